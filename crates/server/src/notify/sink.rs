//! Where the notifications of a queue go: a receiver of the file, or the browsers that are subscribed. Knows no queue.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;

use super::message::Notification;
use super::receivers::{NotificationsError, Receiver};
use super::send::{Unsent, client, guarded_client, send};
use super::web_push::WebPush;

/// Age at which a notification is given up that its receiver does not take.
const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Time for one that is old already, and for one with which the receiver fails while it takes others.
pub(super) const MIN_TIME: Duration = Duration::from_secs(3600);
/// Name of the browsers, which no receiver of the file can have.
const BROWSERS: &str = "web_push";

pub(super) enum Sink {
    Receiver(Box<Receiver>, Client),
    Browsers(Arc<WebPush>, Client),
}

impl Sink {
    pub(super) fn receiver(receiver: Receiver) -> Result<Self, NotificationsError> {
        let client = client(&receiver)
            .map_err(|problem| NotificationsError::Receiver { name: receiver.name.clone(), problem })?;
        Ok(Self::Receiver(Box::new(receiver), client))
    }

    pub(super) fn browsers(push: Arc<WebPush>) -> Result<Self, NotificationsError> {
        let client = guarded_client(None)
            .map_err(|problem| NotificationsError::Receiver { name: BROWSERS.to_owned(), problem })?;
        Ok(Self::Browsers(push, client))
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Receiver(receiver, _) => &receiver.name,
            Self::Browsers(..) => BROWSERS,
        }
    }

    /// Whether nothing is wanted of any commit.
    pub(super) fn is_idle(&self) -> bool {
        match self {
            Self::Receiver(..) => false,
            Self::Browsers(push, _) => push.is_idle(),
        }
    }

    /// Whether a notification is wanted.
    pub(super) fn wants(&self, one: &Notification) -> bool {
        match self {
            Self::Receiver(receiver, _) => receiver.wants(&one.namespace, one.occasion),
            Self::Browsers(push, _) => push.wants(one),
        }
    }

    /// Returns how long a notification of this age is sent again and again.
    pub(super) fn time_for(&self, age: Duration) -> Duration {
        match self {
            Self::Receiver(..) => GIVE_UP_AFTER.saturating_sub(age).max(MIN_TIME),
            // One browser's push service must not hold back what others wait for.
            Self::Browsers(..) => Duration::ZERO,
        }
    }

    /// Whether failures are an operator's to repair: not those of browsers, which people subscribe.
    pub(super) fn is_operated(&self) -> bool {
        matches!(self, Self::Receiver(..))
    }

    /// Sends a notification, to a receiver once and to each browser at most twice.
    pub(super) async fn send(&self, one: &Notification) -> Result<(), Unsent> {
        match self {
            Self::Receiver(receiver, client) => send(client, receiver, one).await,
            Self::Browsers(push, client) => push.send(client, one).await,
        }
    }
}
