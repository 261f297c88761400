//! Web Push (RFC 8030): notifications for browsers that are subscribed, also while no page is open. Each is encrypted for its browser (RFC 8291),
//! and has the text that the page itself shows. Knows no queue.

mod payload;
mod services;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures::StreamExt;
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Client, StatusCode};
use rota_core::Timestamp;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use web_push_native::Auth;
use web_push_native::p256::PublicKey;

pub use self::services::WebPushOptions;
use super::message::Notification;
use super::send::{Unsent, cause};
use super::vapid::Vapid;
use crate::clock::now;
use crate::seal::Sealer;
use crate::store_client::StoreClient;
use crate::trust::browser_sessions::{BrowserSession, BrowserSessions, Subscription};

/// Time for which a push service keeps a notification for a browser that is not connected.
const TTL: Duration = Duration::from_secs(12 * 3600);
/// What began to wait so shortly before a subscription is sent as well: the store's clock may differ from this machine's.
const CLOCK_MARGIN: Duration = Duration::from_secs(60);
/// Time for which a push service is left alone that was not reached.
const COOL_DOWN: Duration = Duration::from_secs(60);
/// Push messages of one notification that are sent at a time.
const PLACES: usize = 8;
/// Bytes of a public key: a point without compression.
const KEY_BYTES: usize = 65;
const AUTH_BYTES: usize = 16;
/// Characters by which a push service recognizes a notification that it has already; it takes no more.
const TOPIC: usize = 32;

/// Sender of push messages to the browsers of sessions.
pub(crate) struct WebPush {
    options: WebPushOptions,
    vapid: Vapid,
    sessions: Arc<BrowserSessions>,
    store: StoreClient,
    /// Push services that were not reached, and until when they are left alone.
    down: Mutex<HashMap<String, Instant>>,
}

/// What is sent of a notification, and for how long it counts.
struct Outgoing {
    payload: String,
    topic: String,
    ttl: Duration,
}

impl WebPush {
    pub(crate) fn new(
        options: Option<WebPushOptions>,
        sealer: &Sealer,
        sessions: &Arc<BrowserSessions>,
        store: &StoreClient,
    ) -> Option<Arc<Self>> {
        let (sessions, store) = (Arc::clone(sessions), store.clone());
        Some(Arc::new(Self {
            options: options?,
            vapid: Vapid::new(sealer)?,
            sessions,
            store,
            down: Mutex::default(),
        }))
    }

    /// Returns the key with which browsers subscribe.
    pub(crate) fn public_key(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.vapid.public())
    }

    /// Whether a session has a subscription for the key of this control plane, which another secret key changes.
    pub(crate) fn is_subscribed(&self, session: &BrowserSession) -> bool {
        session.subscription().is_some_and(|one| one.server_key == self.vapid.public())
    }

    /// Checks what a browser names: its push service, and its keys. Fails with the field that is wrong.
    pub(crate) fn subscription(
        &self,
        endpoint: &str,
        key: &str,
        auth: &str,
        now: Timestamp,
    ) -> Result<Subscription, (&'static str, &'static str)> {
        self.options.check(endpoint).map_err(|why| ("endpoint", why))?;
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
        let key = decode(key).filter(|key| key.len() == KEY_BYTES && PublicKey::from_sec1_bytes(key).is_ok());
        let auth = decode(auth).filter(|auth| auth.len() == AUTH_BYTES);
        Ok(Subscription {
            endpoint: endpoint.to_owned(),
            key: key.ok_or(("p256dh", "must be a point of P-256 in base64url"))?,
            auth: auth.ok_or(("auth", "must be 16 bytes in base64url"))?,
            server_key: self.vapid.public().to_vec(),
            since: now.0,
        })
    }

    /// Whether no browser is subscribed.
    pub(super) fn is_idle(&self) -> bool {
        !self.sessions.has_subscriptions()
    }

    /// Whether the notification is about what the inbox shows, and a browser is subscribed that may see it.
    pub(super) fn wants(&self, one: &Notification) -> bool {
        one.is_of_inbox() && self.sessions.has_subscribed(&one.namespace, now())
    }

    /// Sends a notification to each browser that is subscribed, and waits for none that fails. Fails if none has it because of its
    /// push service.
    pub(super) async fn send(&self, client: &Client, one: &Notification) -> Result<(), Unsent> {
        let Some(ttl) = TTL.checked_sub(now().since(one.at)) else { return Ok(()) };
        let digest = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(one.id()));
        let topic = digest.chars().take(TOPIC).collect();
        let outgoing = &Outgoing { payload: payload::of(one).to_string(), topic, ttl };
        let mut open = self.sessions.subscribed(&one.namespace, now());
        open.retain(|session| {
            let since = session.subscription().map(|subscription| Timestamp(subscription.since));
            self.is_subscribed(session) && since.is_some_and(|since| since <= one.at + CLOCK_MARGIN)
        });
        let sent = open.into_iter().map(|session| async move {
            let sent = match self.send_to(client, &session, outgoing, false).await {
                Ok(()) => Ok(()),
                Err(unsent) => self.send_to(client, &session, outgoing, true).await.map_err(|_| unsent),
            };
            if let Err(unsent) = &sent {
                let error = &unsent.message;
                tracing::warn!(session = %session.id, error, "a browser misses a notification");
            }
            sent
        });
        let sent: Vec<_> = futures::stream::iter(sent).buffer_unordered(PLACES).collect().await;
        if sent.iter().any(Result::is_ok) {
            return Ok(());
        }
        sent.into_iter().next().unwrap_or(Ok(()))
    }

    /// Sends to one browser. Fails only if its push service does, which is left alone if this was the last attempt, or a long one.
    async fn send_to(
        &self,
        client: &Client,
        session: &BrowserSession,
        outgoing: &Outgoing,
        is_last: bool,
    ) -> Result<(), Unsent> {
        let Some(subscription) = session.subscription() else { return Ok(()) };
        // The list of push services may be another one since.
        let Ok(url) = self.options.check(&subscription.endpoint) else { return Ok(()) };
        let service = url.host_str().unwrap_or_default().to_owned();
        let origin = url.origin().ascii_serialization();
        if self.is_down(&origin) {
            return Err(Unsent::unavailable(format!("{service} has failed a moment ago")));
        }
        let (Some(body), Ok(authorization)) = (
            encrypt(subscription, &outgoing.payload),
            self.vapid.authorization(&url, self.options.contact(), now()),
        ) else {
            tracing::error!(session = %session.id, "a push message cannot be encrypted or signed");
            return Ok(());
        };
        let request = client
            .post(url)
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_ENCODING, "aes128gcm")
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("ttl", outgoing.ttl.as_secs())
            .header("urgency", "high")
            .header("topic", &outgoing.topic);
        let response = request.body(body).send().await.map_err(|error| {
            if is_last || error.is_timeout() {
                self.down.lock().insert(origin, Instant::now() + COOL_DOWN);
            }
            Unsent::unavailable(format!("{service}: {}", cause(&error)))
        })?;
        match response.status() {
            status if status.is_success() => Ok(()),
            // The service does not know the subscription, or not any more.
            status if matches!(status.as_u16(), 404 | 410) => {
                self.remove(session).await;
                Ok(())
            }
            status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
                Err(Unsent::unavailable(format!("{service} answered {status}")))
            }
            status => {
                tracing::warn!(session = %session.id, service, %status, "a push service refuses a notification");
                Ok(())
            }
        }
    }

    /// Whether a push service was not reached a moment ago.
    fn is_down(&self, origin: &str) -> bool {
        let mut down = self.down.lock();
        down.retain(|_, until| *until > Instant::now());
        down.contains_key(origin)
    }

    /// Removes a subscription that its push service does not know any more.
    async fn remove(&self, session: &BrowserSession) {
        tracing::info!(session = %session.id, "a browser's subscription to push messages has ended");
        // If the record has changed meanwhile, the next message removes the subscription.
        if let Err(error) = self.store.apply_lazily(vec![session.subscribe(None)]).await {
            tracing::warn!(%error, "failed to remove a subscription to push messages");
        }
    }
}

/// Encrypts a payload for a browser.
fn encrypt(subscription: &Subscription, payload: &str) -> Option<Vec<u8>> {
    let key = PublicKey::from_sec1_bytes(&subscription.key).ok()?;
    let auth: [u8; AUTH_BYTES] = subscription.auth.as_slice().try_into().ok()?;
    web_push_native::encrypt(payload.as_bytes().to_vec(), &key, &Auth::from(auth)).ok()
}
