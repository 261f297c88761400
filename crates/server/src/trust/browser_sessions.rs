//! Sessions of browsers: each has a cookie, and a record in the store with the digest of the cookie's secret, so that it outlives
//! a restart and can be ended alone. Knows nothing of pages.

mod push;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use prost::Message;
use rota_core::text::prefix;
use rota_core::{Namespace, Timestamp};
use rota_store::{Command, Document, DocumentChange, DocumentKey, DocumentKind, Expected, PutDocument};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

pub(crate) use self::push::Subscription;
use super::people::{People, Person};
use super::roles::Role;
use super::shared_tokens::{SharedTokens, digest};
use crate::metrics::Metrics;
use crate::options::SessionLimits;
use crate::store_client::StoreClient;
use crate::wire::status::error;

/// Sessions of a token; a further one replaces the one that was used least recently.
const MAX_PER_TOKEN: usize = 256;
/// Sessions of a person, in the same way.
const MAX_PER_PERSON: usize = 16;
/// Sessions of all people together.
const MAX_OF_PEOPLE: usize = 4096;
/// Precision of the last use as stored: a session costs a write in this time at most.
const MAX_USE_PRECISION: Duration = Duration::from_secs(3600);
/// Bytes of the name by which a browser describes itself.
const MAX_USER_AGENT: usize = 256;
/// Characters of an id, and of a secret, in the value of a cookie.
const PART: usize = 32;

/// Payload of the document of a session.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredSession {
    /// Digest of the secret in the cookie.
    #[prost(bytes = "vec", tag = "1")]
    secret: Vec<u8>,
    #[prost(bool, tag = "2")]
    viewer: bool,
    /// Mark of the token that has signed in: the session ends when another takes its place.
    #[prost(bytes = "vec", tag = "3")]
    token: Vec<u8>,
    #[prost(string, tag = "4")]
    user_agent: String,
    /// Time of the last use that is stored, in microseconds.
    #[prost(int64, tag = "5")]
    last_use: i64,
    /// The person who has signed in; unset for a token that several people share.
    #[prost(message, optional, tag = "6")]
    person: Option<StoredPerson>,
    /// When the person's token expires that has signed in, in microseconds; 0 for none.
    #[prost(int64, tag = "7")]
    token_expires: i64,
    #[prost(message, optional, tag = "8")]
    subscription: Option<Subscription>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredPerson {
    #[prost(string, tag = "1")]
    issuer: String,
    #[prost(string, tag = "2")]
    subject: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, repeated, tag = "4")]
    groups: Vec<String>,
}

/// A session, with the use that is made of it.
#[derive(Debug)]
pub(crate) struct BrowserSession {
    pub(crate) id: Uuid,
    document: Arc<Document>,
    stored: StoredSession,
    person: Option<Arc<Person>>,
    role: Role,
    usage: Arc<Usage>,
    limits: SessionLimits,
}

/// Use of a session, which outlives changes of its record.
#[derive(Debug)]
struct Usage {
    ended: CancellationToken,
    last_use: AtomicI64,
    /// The last use that was sent to the store.
    recorded: AtomicI64,
}

impl BrowserSession {
    /// Returns the role of the token, or the highest one of the person: anonymous if they are not on the list any more.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    pub(crate) fn person(&self) -> Option<&Arc<Person>> {
        self.person.as_ref()
    }

    pub(crate) fn user_agent(&self) -> &str {
        &self.stored.user_agent
    }

    pub(crate) fn created(&self) -> Timestamp {
        self.document.created_at
    }

    pub(crate) fn last_use(&self) -> Timestamp {
        Timestamp(self.usage.last_use.load(Ordering::Relaxed))
    }

    /// Returns when the session ends, whatever use is made of it.
    pub(crate) fn ends(&self) -> Timestamp {
        let ends = self.created() + self.limits.lifetime;
        match self.stored.token_expires {
            0 => ends,
            expires => ends.min(Timestamp(expires)),
        }
    }

    /// Returns when the session ends unless it is used before.
    pub(crate) fn expires(&self) -> Timestamp {
        self.ends().min(self.last_use() + self.limits.idle)
    }

    /// Waits until the session is ended by a person.
    pub(super) async fn ended(&self) {
        self.usage.ended.cancelled().await;
    }

    /// Notes a use, and returns the command that stores it, unless a recent one is stored. It fails if the session is ended
    /// meanwhile.
    pub(super) fn record_use(&self, now: Timestamp) -> Option<Command> {
        let usage = &self.usage;
        usage.last_use.fetch_max(now.0, Ordering::Relaxed);
        let recorded = usage.recorded.load(Ordering::Relaxed);
        let precision = MAX_USE_PRECISION.min(self.limits.idle / 8);
        if now < Timestamp(recorded) + precision
            || usage.recorded.compare_exchange(recorded, now.0, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return None;
        }
        Some(Command::PutDocument(PutDocument {
            key: self.document.key.clone(),
            payload: StoredSession { last_use: now.0, ..self.stored.clone() }.encode_to_vec().into(),
            expected: self.document.expected(),
        }))
    }
}

/// Sessions that are counted together, and how many there may be.
type Limit<'a> = (&'a dyn Fn(&BrowserSession) -> bool, usize);

/// A session that does not exist yet.
pub(crate) struct NewSession {
    pub(crate) id: Uuid,
    /// Value of its cookie: a secret.
    pub(crate) value: String,
    /// Commands that create it, the last of them itself.
    pub(crate) commands: Vec<Command>,
}

/// Sessions in the store, as of the last applied commit.
#[derive(Debug, Default)]
pub(crate) struct BrowserSessions {
    known: RwLock<HashMap<Uuid, Arc<BrowserSession>>>,
    /// Sessions with a subscription to push messages.
    subscriptions: AtomicUsize,
    tokens: SharedTokens,
    people: Option<Arc<People>>,
    limits: SessionLimits,
}

/// Returns the key of the document of a session. Sessions belong to no namespace, and have the default one.
fn document_key(id: Uuid) -> DocumentKey {
    DocumentKey { kind: DocumentKind::BrowserSession, namespace: Namespace::default(), name: id.to_string() }
}

impl BrowserSessions {
    pub(crate) fn new(tokens: SharedTokens, people: Option<Arc<People>>, limits: SessionLimits) -> Self {
        Self { known: RwLock::default(), subscriptions: AtomicUsize::default(), tokens, people, limits }
    }

    pub(super) fn tokens(&self) -> &SharedTokens {
        &self.tokens
    }

    /// Reads the sessions in a store.
    pub(crate) async fn restore(
        &self,
        store: &StoreClient,
        metrics: &Metrics,
    ) -> Result<(), rota_store::Error> {
        let mut damaged = BTreeMap::new();
        for document in crate::documents::all(store, DocumentKind::BrowserSession, &mut damaged).await? {
            self.put(Arc::new(document));
        }
        metrics.undecodable(damaged.iter().map(|(key, reason)| (key as &dyn Display, reason)));
        Ok(())
    }

    /// Takes in a change of a document.
    pub(crate) fn apply(&self, change: &DocumentChange) {
        let document = &change.document;
        if document.key.kind != DocumentKind::BrowserSession {
            return;
        }
        if !change.deleted {
            return self.put(Arc::clone(document));
        }
        let ended = document.key.name.parse().ok().and_then(|id: Uuid| self.known.write().remove(&id));
        if let Some(session) = ended {
            self.count(session.subscription(), None);
            session.usage.ended.cancel();
        }
    }

    fn put(&self, document: Arc<Document>) {
        let (Ok(id), Ok(stored)) = (document.key.name.parse(), StoredSession::decode(&document.payload[..]))
        else {
            return tracing::error!(document = %document.key, "a record cannot be decoded: the browser session has ended");
        };
        let mut known = self.known.write();
        let before: Option<&Arc<BrowserSession>> = known.get(&id);
        if before.is_some_and(|before| before.document.version > document.version) {
            return;
        }
        let usage = match before {
            Some(before) => Arc::clone(&before.usage),
            None => Arc::new(Usage {
                ended: CancellationToken::new(),
                last_use: stored.last_use.into(),
                recorded: stored.last_use.into(),
            }),
        };
        let person = stored.person.clone().map(|StoredPerson { issuer, subject, name, groups }| {
            Arc::new(Person { issuer, subject, name, groups })
        });
        let role = match &person {
            Some(person) => self.role_of(person).unwrap_or(Role::Anonymous),
            None if stored.viewer => Role::Viewer,
            None => Role::Admin,
        };
        self.count(before.and_then(|before| before.subscription()), stored.subscription.as_ref());
        let session = BrowserSession { id, document, stored, person, role, usage, limits: self.limits };
        known.insert(id, Arc::new(session));
    }

    fn role_of(&self, person: &Person) -> Option<Role> {
        self.people.as_ref()?.role(person)
    }

    /// Returns the session that the value of a cookie belongs to.
    pub(super) fn find(&self, value: &str, now: Timestamp) -> Result<Arc<BrowserSession>, Status> {
        let ended = |why| error("SESSION_ENDED", why);
        let (id, secret) = value.split_at_checked(PART).ok_or_else(|| ended("the session is not known"))?;
        let known = Uuid::try_parse(id).ok().and_then(|id| self.known.read().get(&id).cloned());
        let session = known
            .filter(|session| session.stored.secret == digest(secret.as_bytes()))
            .ok_or_else(|| ended("the session was ended"))?;
        if session.expires() <= now {
            return Err(ended("the session has expired"));
        }
        if !self.has_token(&session) {
            return Err(ended(match session.person {
                Some(_) => "the person is not on the list of people who may sign in",
                None => "the token of the session was replaced",
            }));
        }
        Ok(session)
    }

    /// Whether the token that has signed in is still valid, or the person still on the list.
    fn has_token(&self, session: &BrowserSession) -> bool {
        if session.person.is_some() {
            return session.role != Role::Anonymous;
        }
        self.tokens.mark(session.role()).is_some_and(|mark| session.stored.token == mark)
    }

    /// Waits until the token that has signed in is replaced.
    pub(super) async fn token_replaced(&self, session: &BrowserSession) {
        let mut changes = self.tokens.changes();
        while self.has_token(session) && changes.changed().await.is_ok() {}
    }

    fn is_live(&self, session: &BrowserSession, now: Timestamp) -> bool {
        session.expires() > now && self.has_token(session)
    }

    pub(crate) fn get(&self, id: Uuid) -> Option<Arc<BrowserSession>> {
        self.known.read().get(&id).cloned()
    }

    /// Returns the sessions that have not ended.
    pub(crate) fn list(&self, now: Timestamp) -> Vec<Arc<BrowserSession>> {
        self.known.read().values().filter(|session| self.is_live(session, now)).cloned().collect()
    }

    /// Returns a session for the holder of a shared token. It exists once its commands are applied; another one that begins before
    /// does not see it.
    pub(crate) fn begin(&self, token: &[u8], user_agent: &str, now: Timestamp) -> Option<NewSession> {
        let role = self.tokens.role_of(token)?;
        let token = self.tokens.mark(role)?.to_vec();
        let stored = StoredSession { viewer: role == Role::Viewer, token, ..StoredSession::default() };
        let is_alike = |session: &BrowserSession| session.person.is_none() && session.role == role;
        Some(self.create(stored, user_agent, now, &[(&is_alike, MAX_PER_TOKEN)]))
    }

    /// Returns a session for a person, in the same way. It ends with the token that the person has signed in with, if that is one.
    pub(crate) fn begin_for(
        &self,
        person: &Person,
        token_expires: Option<Timestamp>,
        user_agent: &str,
        now: Timestamp,
    ) -> Option<NewSession> {
        self.role_of(person)?;
        let Person { issuer, subject, name, groups } = person.clone();
        let stored = StoredPerson { issuer, subject, name, groups };
        let token_expires = token_expires.map_or(0, |expires| expires.0);
        let stored = StoredSession { person: Some(stored), token_expires, ..StoredSession::default() };
        let is_alike = |session: &BrowserSession| {
            session.person.as_ref().is_some_and(|other| other.subject == person.subject)
        };
        let is_of_people = |session: &BrowserSession| session.person.is_some();
        let limits: [Limit<'_>; 2] = [(&is_alike, MAX_PER_PERSON), (&is_of_people, MAX_OF_PEOPLE)];
        Some(self.create(stored, user_agent, now, &limits))
    }

    fn create(
        &self,
        stored: StoredSession,
        user_agent: &str,
        now: Timestamp,
        limits: &[Limit<'_>],
    ) -> NewSession {
        let (id, secret) = (Uuid::now_v7(), Uuid::new_v4().simple().to_string());
        let stored = StoredSession {
            secret: digest(secret.as_bytes()).to_vec(),
            user_agent: prefix(user_agent, MAX_USER_AGENT).to_owned(),
            last_use: now.0,
            ..stored
        };
        let mut commands = self.make_room(limits, now);
        commands.push(Command::PutDocument(PutDocument {
            key: document_key(id),
            payload: stored.encode_to_vec().into(),
            expected: Expected::Absent,
        }));
        NewSession { id, value: format!("{}{secret}", id.simple()), commands }
    }

    /// Returns the command that ends a session.
    pub(crate) fn end(id: Uuid) -> Command {
        Command::DeleteDocument(document_key(id), Expected::Any)
    }

    /// Returns the commands that remove sessions that have ended, and those beyond what each group of sessions may have with one
    /// more.
    fn make_room(&self, limits: &[Limit<'_>], now: Timestamp) -> Vec<Command> {
        let known = self.known.read();
        let (mut live, over): (Vec<_>, Vec<_>) =
            known.values().partition(|session| self.is_live(session, now));
        let mut ended: BTreeSet<_> = over.iter().map(|session| session.id).collect();
        live.sort_by_key(|session| session.last_use());
        for (is_alike, max) in limits {
            let alike: Vec<_> =
                live.iter().filter(|session| is_alike(session) && !ended.contains(&session.id)).collect();
            let excess = (alike.len() + 1).saturating_sub(*max);
            ended.extend(alike.iter().take(excess).map(|session| session.id));
        }
        ended.into_iter().map(Self::end).collect()
    }
}

#[cfg(test)]
mod tests;
