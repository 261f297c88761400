//! A WebSocket that is open: reads messages, and sends one at a time. Nothing is queued for a client: what is sent next is taken from
//! its subscriptions when the one before is with the network, and a client that takes none for too long is cut off.

use std::borrow::Cow;
use std::pin::Pin;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, SinkExt, Stream, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_stream::StreamMap;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::caller::Caller;
use super::message::{Incoming, Read, message, read};
use super::subscription::{self, Sent};
use crate::call::{Inner, LARGE};
use crate::{large, status};

/// Largest message of a client: that of a request over HTTP, and its frame.
const MAX_MESSAGE: usize = 8 << 20;
const READ_BUFFER: usize = 8 << 10;
/// Bytes that are not with the network yet: one message, which the services bound, and answers to pings.
const MAX_WRITE_BUFFER: usize = 64 << 20;
const MAX_SUBSCRIPTIONS: usize = 32;
/// Commands that are not answered yet.
const MAX_COMMANDS: usize = 16;
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Time without a message or an answer to a ping after which a client counts as disconnected.
const SILENCE: Duration = Duration::from_secs(60);
/// Time for a client to take a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a client to answer the end of the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The credentials of the handshake are valid no more.
const SIGNED_OUT: u16 = 4401;

type Subscriptions = StreamMap<String, Pin<Box<dyn Stream<Item = Sent> + Send>>>;

/// Why a connection ends: code and text for its client.
type End = (CloseCode, Cow<'static, str>);

/// Serves a connection until its client or the server ends it.
pub(super) async fn serve<S: Inner>(stream: Upgraded, caller: Caller<S>, stop: CancellationToken) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, Some(config)).await;
    let Some((code, reason)) = exchange(&mut socket, caller, &stop).await else { return };
    let frame = CloseFrame { code, reason: reason.as_ref().into() };
    let closed = async {
        socket.close(Some(frame)).await?;
        // The client answers; what it has sent before is of no use.
        while let Some(message) = socket.next().await {
            message?;
        }
        Ok::<_, Error>(())
    };
    let _ = timeout(CLOSE_TIMEOUT, closed).await;
}

/// Exchanges messages until the connection ends. Returns what its client is to learn, unless it has disconnected.
async fn exchange<S: Inner>(
    socket: &mut WebSocketStream<TokioIo<Upgraded>>,
    caller: Caller<S>,
    stop: &CancellationToken,
) -> Option<End> {
    let mut subscriptions = Subscriptions::new();
    let mut commands = FuturesUnordered::new();
    let mut pings = interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut received_at = Instant::now();
    while !stop.is_cancelled() {
        let (sent, refused) = tokio::select! {
            () = stop.cancelled() => break,
            _ = pings.tick() => {
                if received_at.elapsed() > SILENCE {
                    return end(CloseCode::Policy, "the client has answered no ping");
                }
                (Message::Ping(Default::default()), None)
            }
            received = socket.next() => {
                let text = match received? {
                    Ok(Message::Text(text)) => text,
                    Ok(Message::Binary(_)) => return end(CloseCode::Unsupported, "messages are texts in JSON"),
                    // Answers and the end of the connection are the library's.
                    Ok(_) => {
                        received_at = Instant::now();
                        continue;
                    }
                    Err(error) => return failed(&error),
                };
                received_at = Instant::now();
                let answer = match read_apart(text).await {
                    Err((id, refused)) => Some((id, refused)),
                    Ok((id, Incoming::Subscribe(_))) if subscriptions.contains_key(&id) => {
                        let why = "a subscription has this id already";
                        Some((Some(id), status::error("MESSAGE_INVALID", why, "")))
                    }
                    Ok((id, Incoming::Subscribe(_))) if subscriptions.len() >= MAX_SUBSCRIPTIONS => {
                        let why = format!("a connection has at most {MAX_SUBSCRIPTIONS} subscriptions");
                        Some((Some(id), status::error("SUBSCRIPTIONS_EXHAUSTED", &why, "")))
                    }
                    Ok((id, Incoming::Subscribe(wanted))) => {
                        let opened = subscription::open(caller.clone(), id.clone(), wanted);
                        subscriptions.insert(id, opened.boxed());
                        None
                    }
                    Ok((id, Incoming::Unsubscribe)) => {
                        subscriptions.remove(&id);
                        let message = message("unsubscribed", &id, Map::new());
                        send(socket, text_of(&message), stop).await?;
                        None
                    }
                    Ok((id, Incoming::Command(_))) if commands.len() >= MAX_COMMANDS => {
                        let why = format!("{MAX_COMMANDS} commands are not answered yet");
                        Some((Some(id), status::error("COMMANDS_EXHAUSTED", &why, "wait for answers")))
                    }
                    Ok((id, Incoming::Command(command))) => {
                        commands.push(caller.one(command).map(|answer| (id, answer)).boxed());
                        None
                    }
                };
                match answer {
                    None => continue,
                    Some((id, refused)) => (text_of(&error(&caller, id.as_deref(), &refused)), None),
                }
            }
            Some((_, (message, refused))) = subscriptions.next(), if !subscriptions.is_empty() => {
                (text_of(&message), refused)
            }
            Some((id, answer)) = commands.next(), if !commands.is_empty() => match answer {
                Ok(result) => {
                    let fields = Map::from_iter([("result".to_owned(), result)]);
                    (text_of(&message("result", &id, fields)), None)
                }
                Err(refused) => (text_of(&error(&caller, Some(&id), &refused)), Some(refused)),
            },
        };
        send(socket, sent, stop).await?;
        if refused.is_some_and(|status: Box<Status>| status.code() == Code::Unauthenticated) {
            return end(CloseCode::from(SIGNED_OUT), "the credentials of the connection are valid no more");
        }
    }
    end(CloseCode::Away, "the control plane is stopping; connect again")
}

/// Reads a message of a client, a large one on a thread of its own.
async fn read_apart(text: Utf8Bytes) -> Read {
    if text.len() < LARGE {
        return read(&text);
    }
    let failed = || Err((None, Box::new(Status::internal("the message could not be read"))));
    large::in_turn(move || read(&text)).await.unwrap_or_else(failed)
}

fn end(code: CloseCode, why: &'static str) -> Option<End> {
    Some((code, Cow::Borrowed(why)))
}

/// Returns what a client learns whose message cannot be read; nothing if it has disconnected.
fn failed(error: &Error) -> Option<End> {
    match error {
        Error::Capacity(_) => {
            Some((CloseCode::Size, Cow::Owned(format!("a message has at most {MAX_MESSAGE} bytes"))))
        }
        Error::Protocol(_) | Error::Utf8(_) => end(CloseCode::Protocol, "the message is malformed"),
        _ => None,
    }
}

/// Sends a message, unless the client has disconnected or takes none. What is left of it when the server stops is sent with the end of
/// the connection.
async fn send(
    socket: &mut WebSocketStream<TokioIo<Upgraded>>,
    message: Message,
    stop: &CancellationToken,
) -> Option<()> {
    let sent = tokio::select! {
        () = stop.cancelled() => return Some(()),
        sent = timeout(SEND_TIMEOUT, socket.send(message)) => sent,
    };
    match sent {
        Ok(Ok(())) => Some(()),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a WebSocket was closed");
            None
        }
        Err(_) => {
            tracing::debug!("a client of a WebSocket did not take a message in time");
            None
        }
    }
}

fn text_of(message: &Value) -> Message {
    Message::text(message.to_string())
}

fn error<S: Inner>(caller: &Caller<S>, id: Option<&str>, refused: &Status) -> Value {
    let error: Value =
        serde_json::from_slice(&status::json(&caller.gateway.pool, refused)).unwrap_or_default();
    match id {
        Some(id) => message("error", id, Map::from_iter([("error".to_owned(), error)])),
        None => json!({ "type": "error", "error": error }),
    }
}
