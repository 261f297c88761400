//! Subscriptions of browsers to push messages: each is a part of the record of its session, and ends with it. Knows no push service.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prost::Message;
use rota_core::{Namespace, Timestamp};
use rota_store::{Command, PutDocument};
use uuid::Uuid;

use super::{BrowserSession, BrowserSessions, StoredSession};
use crate::trust::roles::allowed_roles;

/// Call that shows what waits: who may make it for a namespace is notified of that.
const LIST: &str = "/rota.v1.TaskService/ListTasks";

/// Subscription of a browser, as its push service knows it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Subscription {
    /// Address at the push service, which is a secret of the browser.
    #[prost(string, tag = "1")]
    pub(crate) endpoint: String,
    /// Public key of the browser.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) key: Vec<u8>,
    /// Secret that the browser shares with those who encrypt for it.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) auth: Vec<u8>,
    /// Key of the control plane, of which alone the push service takes messages.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) server_key: Vec<u8>,
    /// When it was made, in microseconds.
    #[prost(int64, tag = "5")]
    pub(crate) since: i64,
}

impl BrowserSession {
    pub(crate) fn subscription(&self) -> Option<&Subscription> {
        self.stored.subscription.as_ref()
    }

    /// Returns the command that replaces the subscription. It fails if the record has changed meanwhile.
    pub(crate) fn subscribe(&self, subscription: Option<Subscription>) -> Command {
        Command::PutDocument(PutDocument {
            key: self.document.key.clone(),
            payload: StoredSession { subscription, ..self.stored.clone() }.encode_to_vec().into(),
            expected: self.document.expected(),
        })
    }
}

impl BrowserSessions {
    /// Notes that a subscription takes the place of another one.
    pub(super) fn count(&self, before: Option<&Subscription>, after: Option<&Subscription>) {
        match (before.is_some(), after.is_some()) {
            (false, true) => self.subscriptions.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.subscriptions.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }

    pub(crate) fn has_subscriptions(&self) -> bool {
        self.subscriptions.load(Ordering::Relaxed) > 0
    }

    /// Returns the sessions with a subscription that have not ended, and may read a namespace.
    pub(crate) fn subscribed(&self, namespace: &Namespace, now: Timestamp) -> Vec<Arc<BrowserSession>> {
        if !self.has_subscriptions() {
            return Vec::new();
        }
        let known = self.known.read();
        known.values().filter(|session| self.is_notified(session, namespace, now)).cloned().collect()
    }

    /// Whether there is such a session.
    pub(crate) fn has_subscribed(&self, namespace: &Namespace, now: Timestamp) -> bool {
        self.has_subscriptions()
            && self.known.read().values().any(|session| self.is_notified(session, namespace, now))
    }

    fn is_notified(&self, session: &BrowserSession, namespace: &Namespace, now: Timestamp) -> bool {
        session.subscription().is_some() && self.is_live(session, now) && self.may_read(session, namespace)
    }

    fn may_read(&self, session: &BrowserSession, namespace: &Namespace) -> bool {
        let Some(person) = &session.person else { return true };
        let found = self.people.as_ref().and_then(|people| people.namespaces(person, allowed_roles(LIST)));
        found.is_some_and(|found| found.contains(namespace.as_str()))
    }

    /// Returns the commands that give a session a subscription, and take it from others: a browser that has signed in again has the same one.
    /// The last command counts; there are none if nothing changes, and `None` is returned if the session has ended.
    pub(crate) fn subscribe(&self, id: Uuid, subscription: Subscription) -> Option<Vec<Command>> {
        let known = self.known.read();
        let own = known.get(&id)?;
        let is_same = |one: &&Arc<BrowserSession>| {
            one.id != id && one.subscription().is_some_and(|other| other.endpoint == subscription.endpoint)
        };
        let mut commands: Vec<_> = known.values().filter(is_same).map(|one| one.subscribe(None)).collect();
        let is_kept = own
            .subscription()
            .is_some_and(|kept| *kept == Subscription { since: kept.since, ..subscription.clone() });
        if !is_kept {
            commands.push(own.subscribe(Some(subscription)));
        }
        Some(commands)
    }
}
