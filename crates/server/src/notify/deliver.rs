//! Deliveries to one receiver: a few at a time, those of one task in order, each until it is accepted, refused for good, or too
//! old.

use std::error::Error as _;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use fnv::FnvHasher;
use parking_lot::Mutex;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use rota_core::Timestamp;
use rota_core::text::prefix;
use tokio::sync::{Notify, mpsc};

use super::address::Guarded;
use super::cursor::Cursor;
use super::message::Notification;
use super::queue::Queue;
use super::receivers::{Format, NotificationsError, Receiver};
use crate::clock::now;
use crate::metrics::Metrics;
use crate::store_client::StoreClient;

/// Deliveries at a time. The notifications of one task are in one lane.
const LANES: usize = 8;
/// Notifications that wait in a lane.
const LANE_SIZE: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a receiver to answer.
const TIMEOUT: Duration = Duration::from_secs(15);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Time after which a notification is given up that no receiver takes.
const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Answers that refuse a notification before it is given up.
const MAX_REFUSALS: u32 = 5;
/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 512;
/// Wait after a failed read of the store.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// One receiver with its queue.
pub(super) struct Delivery {
    receiver: Receiver,
    queue: Queue,
    cursor: Cursor,
    moved: Notify,
    client: Client,
    metrics: Arc<Metrics>,
    problem: Mutex<Option<(Timestamp, String)>>,
}

/// Why a notification was not accepted.
#[derive(Debug)]
struct Unsent {
    message: String,
    /// Whether the receiver refuses this notification, instead of being unavailable.
    refused: bool,
    /// How long the receiver wants to be left alone.
    after: Option<Duration>,
}

impl Unsent {
    fn unavailable(message: impl Into<String>) -> Self {
        Self { message: message.into(), refused: false, after: None }
    }
}

impl Delivery {
    pub(super) fn new(
        receiver: Receiver,
        queue: Queue,
        cursor: Cursor,
        metrics: Arc<Metrics>,
    ) -> Result<Self, NotificationsError> {
        let client = client(&receiver)
            .map_err(|problem| NotificationsError::Receiver { name: receiver.name.clone(), problem })?;
        let (moved, problem) = (Notify::new(), Mutex::default());
        Ok(Self { receiver, queue, cursor, moved, client, metrics, problem })
    }

    pub(super) fn name(&self) -> &str {
        &self.receiver.name
    }

    /// Returns since when and how deliveries fail; `None` if the last one succeeded.
    pub(super) fn problem(&self) -> Option<(Timestamp, String)> {
        self.problem.lock().clone()
    }

    /// Takes in the occasions of a commit.
    pub(super) fn observe(&self, revision: u64, found: &[Arc<Notification>]) {
        let wanted = found.iter().filter(|one| self.receiver.wants(&one.namespace, one.occasion));
        self.queue.observe(revision, wanted.cloned());
    }

    /// Delivers what the queue has, and never returns.
    pub(super) async fn run(&self, store: &StoreClient) {
        let (senders, lanes): (Vec<_>, Vec<_>) = (0..LANES).map(|_| mpsc::channel(LANE_SIZE)).unzip();
        let lanes = futures::future::join_all(lanes.into_iter().map(|lane| self.drain(lane)));
        tokio::join!(self.distribute(store, senders), lanes, self.save());
    }

    /// Gives each notification to the lane of its task.
    async fn distribute(&self, store: &StoreClient, lanes: Vec<mpsc::Sender<Arc<Notification>>>) {
        let hasher = BuildHasherDefault::<FnvHasher>::default();
        loop {
            self.moved.notify_one();
            match self.queue.next(&self.receiver, store).await {
                Ok(next) => {
                    self.metrics.notifications_waiting(self.name(), self.queue.len());
                    let lane = hasher.hash_one(next.task.0) % (LANES as u64);
                    let lane = usize::try_from(lane).ok().and_then(|lane| lanes.get(lane));
                    if let Some(lane) = lane {
                        // Its other end lives as long as this one.
                        let _ = lane.send(next).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(receiver = self.name(), %error, "failed to read what to notify of, retrying");
                    tokio::time::sleep(STORE_RETRY).await;
                }
            }
        }
    }

    async fn drain(&self, mut lane: mpsc::Receiver<Arc<Notification>>) {
        while let Some(next) = lane.recv().await {
            self.deliver(&next).await;
            self.queue.done(&next);
            self.metrics.notifications_waiting(self.name(), self.queue.len());
            self.moved.notify_one();
        }
    }

    /// Writes the position whenever it has moved.
    async fn save(&self) {
        let mut saved = None;
        loop {
            self.moved.notified().await;
            let position = self.queue.position();
            if saved == Some(position) {
                continue;
            }
            let cursor = self.cursor.clone();
            match tokio::task::spawn_blocking(move || cursor.save(position)).await {
                Ok(Ok(())) => saved = Some(position),
                Ok(Err(error)) => {
                    tracing::warn!(receiver = self.name(), %error, "failed to keep the position of a receiver");
                }
                Err(_) => return,
            }
        }
    }

    async fn deliver(&self, one: &Notification) {
        let backoff = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(FIRST_WAIT)
            .with_max_delay(LONGEST_WAIT)
            .without_max_times()
            .with_total_delay(Some(GIVE_UP_AFTER));
        let refusals = AtomicU32::new(0);
        let sent = (|| self.send(one))
            .retry(backoff)
            .sleep(tokio::time::sleep)
            .when(|unsent: &Unsent| {
                let refused = u32::from(unsent.refused);
                refusals.fetch_add(refused, Ordering::Relaxed) + refused < MAX_REFUSALS
            })
            .adjust(|unsent, wait| wait.map(|wait| wait.max(unsent.after.unwrap_or_default())))
            .notify(|unsent, wait| {
                let (receiver, error) = (self.name(), &unsent.message);
                tracing::debug!(
                    receiver,
                    id = one.id(),
                    error,
                    ?wait,
                    "a notification was not accepted, retrying"
                );
                self.metrics.notified(receiver, "retried");
                self.problem.lock().get_or_insert_with(|| (now(), String::new())).1.clone_from(error);
            })
            .await;
        match sent {
            Ok(()) => {
                self.metrics.notified(self.name(), "delivered");
                *self.problem.lock() = None;
            }
            Err(unsent) => {
                self.metrics.notified(self.name(), "dropped");
                let (receiver, error) = (self.name(), &unsent.message);
                tracing::warn!(receiver, id = one.id(), error, "a notification is given up");
            }
        }
    }

    async fn send(&self, one: &Notification) -> Result<(), Unsent> {
        // Small files, read again so that they can be replaced.
        let receiver = self.receiver.clone();
        let read = tokio::task::spawn_blocking(move || (receiver.url(), receiver.keys())).await;
        let (url, keys) = read.map_err(|error| Unsent::unavailable(error.to_string()))?;
        let (url, keys) = (url.map_err(Unsent::unavailable)?, keys.map_err(Unsent::unavailable)?);
        let link = self.receiver.link(&one.namespace, &one.task_id);
        let body = match self.receiver.format {
            Format::Webhook => one.webhook(link.as_deref()),
            Format::Slack => one.slack(link.as_deref()),
        };
        let body = body.to_string();
        let mut request = self.client.post(url).header(CONTENT_TYPE, "application/json");
        if let Some(keys) = keys {
            let (id, timestamp) = (one.id(), now().0.div_euclid(1_000_000));
            request = request
                .header("webhook-signature", keys.sign(&id, timestamp, body.as_bytes()))
                .header("webhook-id", id)
                .header("webhook-timestamp", timestamp);
        }
        let response = request.body(body).send().await.map_err(|error| Unsent::unavailable(cause(&error)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let after = after.map(Duration::from_secs).map(|after| after.min(LONGEST_WAIT));
        let waits = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
        let refused = !status.is_server_error() && !waits.contains(&status);
        let text = tokio::time::timeout(CONNECT_TIMEOUT, beginning(response)).await.unwrap_or_default();
        Err(Unsent { message: format!("it answered {status}{text}"), refused, after })
    }
}

/// Returns the beginning of an answer, in one line.
async fn beginning(mut response: Response) -> String {
    let mut read = Vec::new();
    while read.len() < MAX_ANSWER
        && let Ok(Some(chunk)) = response.chunk().await
    {
        let room = MAX_ANSWER - read.len();
        read.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
    }
    let text = String::from_utf8_lossy(&read);
    let visible = |char: char| if char.is_control() { ' ' } else { char };
    let text: String = prefix(text.trim(), MAX_ANSWER).chars().map(visible).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

/// Returns the last cause of a failed request. Neither it nor the first ones name the URL, which may be a secret.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".to_owned();
    }
    let mut cause = error.source();
    while let Some(next) = cause.and_then(|error| error.source()) {
        cause = Some(next);
    }
    cause.map_or_else(|| "the request failed".to_owned(), ToString::to_string)
}

fn client(receiver: &Receiver) -> Result<Client, String> {
    let mut builder = Client::builder()
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .pool_max_idle_per_host(1)
        .user_agent(concat!("rota/", env!("CARGO_PKG_VERSION")));
    if !receiver.allow_link_local {
        builder = builder.dns_resolver(Arc::new(Guarded));
    }
    if let Some(path) = &receiver.ca {
        let pem = std::fs::read(path).map_err(|error| format!("has an unreadable ca: {error}"))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| format!("has an invalid ca: {error}"))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| format!("cannot be called: {error}"))
}
