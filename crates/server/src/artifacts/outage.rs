//! Failures of the storage of artifacts, for which attempts wait: to store what they leave, or to fetch what they are given. Knows
//! nothing of the attempts.

use std::sync::Arc;

use parking_lot::Mutex;
use rota_artifacts::Error;
use rota_core::Timestamp;

use super::{HINT, SHOWN};
use crate::health::{Cause, State};
use crate::wire::time::rfc3339;

/// Direction of a transfer between the control plane and the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Of what is to be stored, or looked for before.
    In,
    Out,
}

/// Whether the storage takes what it is given, and gives what it has. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outage(Arc<Mutex<Option<Failing>>>);

#[derive(Debug)]
struct Failing {
    since: Timestamp,
    last: Timestamp,
    /// Whether no upload is among the failures: a download shows that they are over.
    only_out: bool,
    error: String,
}

impl Outage {
    /// Notes that a part was stored or fetched.
    pub(super) fn end(&self, way: Way) {
        self.0.lock().take_if(|failing| failing.only_out || way == Way::In);
    }

    /// Notes a failed call, if the storage is the reason.
    pub(super) fn failed(&self, error: &Error, way: Way, now: Timestamp) {
        if matches!(error, Error::Unavailable(_) | Error::TimedOut) {
            let mut failing = self.0.lock();
            let before = failing.as_ref().filter(|failing| failing.last + SHOWN > now);
            let since = before.map_or(now, |failing| failing.since);
            let only_out = way == Way::Out && before.is_none_or(|failing| failing.only_out);
            *failing = Some(Failing { since, last: now, only_out, error: error.to_string() });
        }
    }

    /// Returns the cause while nothing has succeeded since the last failure.
    pub(crate) fn cause(&self, now: Timestamp) -> Option<Cause> {
        let failing = self.0.lock();
        let failing = failing.as_ref().filter(|failing| failing.last + SHOWN > now)?;
        Some(Cause {
            state: State::Degraded,
            code: rota_proto::causes::ARTIFACTS_UNAVAILABLE,
            subject: String::new(),
            message: format!(
                "attempts wait for the storage of artifacts, to store what they leave or to fetch what they are given, since {}: {}",
                rfc3339(failing.since),
                failing.error
            ),
            hint: HINT.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn outage_ends_with_a_transfer_or_without_failures() {
        let (outage, start) = (Outage::default(), Timestamp(0));
        outage.failed(&Error::Size(0), Way::In, start);
        assert!(outage.cause(start).is_none(), "not of the storage");
        outage.failed(&Error::Unavailable("it is away".to_owned()), Way::Out, start);
        let later = start + Duration::from_secs(600);
        outage.failed(&Error::TimedOut, Way::In, later);
        outage.failed(&Error::TimedOut, Way::Out, later);
        let cause = outage.cause(start + Duration::from_secs(1200)).unwrap();
        assert!(cause.message.contains("since 1970-01-01T00:00:00Z: "), "{}", cause.message);
        assert!(outage.cause(later + SHOWN).is_none());
        outage.end(Way::Out);
        assert!(outage.cause(later).is_some(), "it may still take nothing");
        outage.end(Way::In);
        assert!(outage.cause(later).is_none());
        outage.failed(&Error::TimedOut, Way::Out, later);
        outage.end(Way::Out);
        assert!(outage.cause(later).is_none());
    }
}
