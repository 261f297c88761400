//! A subscription of a WebSocket: what exists, page by page, then the changes of a feed of the services. Keeps no message: a client
//! that takes none holds the feed up, which has its own bounds and then sends a resync.

use std::collections::HashSet;

use futures::{Stream, stream};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

use super::caller::{Caller, Command};
use super::message::{Channel, Subscribe, kind, message, path};
use crate::call::Inner;
use crate::stream::Messages;
use crate::{response, status};

/// Entries of a page of what exists.
const PAGE_SIZE: usize = 100;

/// A message, and whether it is the error with which the subscription ends.
pub(super) type Sent = (Value, Option<Box<Status>>);

struct Subscription<S> {
    caller: Caller<S>,
    id: String,
    wanted: Subscribe,
    source: Source,
    /// Token of the next page of what exists; `None` once all of it was sent.
    page: Option<String>,
    /// Names of the agents that were sent.
    known: HashSet<String>,
}

enum Source {
    Closed,
    Feed(Messages),
    Over,
}

/// Returns the messages of a subscription, the last of which may be an error.
pub(super) fn open<S: Inner>(
    caller: Caller<S>,
    id: String,
    wanted: Subscribe,
) -> impl Stream<Item = Sent> + Send {
    let page = (wanted.snapshot && wanted.token.is_empty()).then(String::new);
    let subscription =
        Subscription { caller, id, wanted, source: Source::Closed, page, known: HashSet::new() };
    stream::unfold(subscription, async |mut subscription| {
        let sent = subscription.next().await?;
        Some((sent, subscription))
    })
}

impl<S: Inner> Subscription<S> {
    async fn next(&mut self) -> Option<Sent> {
        let sent = match &self.source {
            Source::Over => return None,
            Source::Closed => self.begin().await,
            // Lists follow the start of the feed, so that no change is between them.
            Source::Feed(_) if self.page.is_some() && self.list().is_some() => self.read_page().await,
            Source::Feed(_) => self.read_feed().await,
        };
        Some(sent.map_or_else(|status| self.end(status), |sent| (sent, None)))
    }

    fn end(&mut self, status: Box<Status>) -> Sent {
        self.source = Source::Over;
        let error = status::json(&self.caller.gateway.pool, &status);
        let error: Value = serde_json::from_slice(&error).unwrap_or_default();
        let fields = Map::from_iter([("error".to_owned(), error)]);
        (message("error", &self.id, fields), Some(status))
    }

    /// Returns the name of the list and of its entries, for channels that have one besides their feed.
    fn list(&self) -> Option<&'static str> {
        match self.wanted.channel {
            Channel::Tasks => Some("tasks"),
            Channel::Workflows => Some("workflows"),
            Channel::Agents | Channel::System => None,
        }
    }

    async fn begin(&mut self) -> Result<Value, Box<Status>> {
        let (parent, token) = (path(&self.wanted.parent), &self.wanted.token);
        let token: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
        let feed = match self.wanted.channel {
            Channel::Tasks => format!("{parent}/tasks:watch?statesOnly=true&token={token}"),
            Channel::Workflows => format!("{parent}/workflows:watch?token={token}"),
            Channel::Agents if self.page.is_none() => {
                let why = "the channel of agents has no positions, and begins with all of them";
                return Err(status::error("MESSAGE_INVALID", why, "subscribe without a token"));
            }
            Channel::Agents => format!("{parent}/agents:watch"),
            Channel::System => "/api/v1/system/status:watch".to_owned(),
        };
        let opened = self.caller.feed(feed);
        self.source = Source::Feed(opened.await?);
        Ok(message("subscribed", &self.id, Map::new()))
    }

    async fn read_page(&mut self) -> Result<Value, Box<Status>> {
        let list = self.list().unwrap_or_default();
        let token = self.page.take().unwrap_or_default();
        let token: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
        let parent = path(&self.wanted.parent);
        let read =
            self.caller.one(Command::get(format!("{parent}/{list}?pageSize={PAGE_SIZE}&pageToken={token}")));
        let mut read = read.await?;
        let next = read["nextPageToken"].as_str().filter(|token| !token.is_empty()).map(str::to_owned);
        let is_last = next.is_none();
        self.page = next;
        Ok(self.snapshot(read[list].take(), is_last))
    }

    /// Returns a part of what exists.
    fn snapshot(&self, items: Value, is_last: bool) -> Value {
        let items = if items.is_null() { json!([]) } else { items };
        let fields = [("items".to_owned(), items), ("complete".to_owned(), json!(is_last))];
        message("snapshot", &self.id, Map::from_iter(fields))
    }

    async fn read_feed(&mut self) -> Result<Value, Box<Status>> {
        loop {
            let Source::Feed(feed) = &mut self.source else { return Err(ended()) };
            let next = match feed.next().await {
                Err(status) if status.code() == Code::Ok => return Err(ended()),
                next => next?,
            };
            let change = response::decode(&feed.output, next, |change| {
                serde_json::to_value(change).map_err(|error| Box::new(Status::internal(error.to_string())))
            });
            let Value::Object(mut change) = change.await? else { continue };
            if self.wanted.channel == Channel::System {
                change = Map::from_iter([("status".to_owned(), Value::Object(change))]);
            }
            if self.wanted.channel == Channel::Agents
                && let Some(sent) = self.agent(&change)
            {
                return Ok(sent);
            }
            if change.contains_key("resync") && self.wanted.snapshot {
                // What was sent before may be outdated: all of it follows.
                self.page = Some(String::new());
            }
            let is_new = self.is_new(&change);
            return Ok(message(kind(self.wanted.channel, &change, is_new), &self.id, change));
        }
    }

    /// Returns the part of what exists that an agent of the feed is, before the feed has sent all.
    fn agent(&mut self, change: &Map<String, Value>) -> Option<Value> {
        let is_whole = self.page.is_none();
        if change.contains_key("synced") {
            self.page = None;
            return Some(self.snapshot(json!([]), true));
        }
        let agent = change.get("agent").filter(|_| !is_whole)?.clone();
        self.is_new(change);
        Some(self.snapshot(json!([agent]), false))
    }

    /// Whether an agent was not sent before.
    fn is_new(&mut self, change: &Map<String, Value>) -> bool {
        let name = |agent: &Value| agent["name"].as_str().map(str::to_owned);
        if let Some(deleted) = change.get("deleted").and_then(Value::as_str) {
            self.known.remove(deleted);
        }
        change.get("agent").and_then(name).is_some_and(|name| self.known.insert(name))
    }
}

fn ended() -> Box<Status> {
    Box::new(Status::unavailable("the feed has ended: subscribe again"))
}
