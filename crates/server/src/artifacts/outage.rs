//! Failures of the storage of artifacts, for which attempts wait on the disks of their workers. Knows nothing of the attempts.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rota_artifacts::Error;
use rota_core::Timestamp;

use super::HINT;
use crate::health::{Cause, State};
use crate::wire::time::rfc3339;

/// Time after the last failure for which the storage counts as unavailable: workers repeat uploads within ten minutes.
const SHOWN: Duration = Duration::from_secs(15 * 60);

/// Whether the storage takes what it is given. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outage(Arc<Mutex<Option<Failing>>>);

#[derive(Debug)]
struct Failing {
    since: Timestamp,
    last: Timestamp,
    error: String,
}

impl Outage {
    /// Notes that a part was stored.
    pub(super) fn end(&self) {
        *self.0.lock() = None;
    }

    /// Notes a failed call, if the storage is the reason.
    pub(super) fn failed(&self, error: &Error, now: Timestamp) {
        if matches!(error, Error::Unavailable(_) | Error::TimedOut) {
            let mut failing = self.0.lock();
            let since = failing.as_ref().filter(|failing| failing.last + SHOWN > now);
            let since = since.map_or(now, |failing| failing.since);
            *failing = Some(Failing { since, last: now, error: error.to_string() });
        }
    }

    /// Returns the cause while no upload has succeeded since the last failure.
    pub(crate) fn cause(&self, now: Timestamp) -> Option<Cause> {
        let failing = self.0.lock();
        let failing = failing.as_ref().filter(|failing| failing.last + SHOWN > now)?;
        Some(Cause {
            state: State::Degraded,
            code: rota_proto::causes::ARTIFACTS_UNAVAILABLE,
            subject: String::new(),
            message: format!(
                "attempts that have worked wait until their files are stored, since {}: {}",
                rfc3339(failing.since),
                failing.error
            ),
            hint: HINT.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outage_ends_with_an_upload_or_without_failures() {
        let (outage, start) = (Outage::default(), Timestamp(0));
        outage.failed(&Error::Size(0), start);
        assert!(outage.cause(start).is_none(), "not of the storage");
        outage.failed(&Error::Unavailable("it is away".to_owned()), start);
        let later = start + Duration::from_secs(600);
        outage.failed(&Error::TimedOut, later);
        let cause = outage.cause(start + Duration::from_secs(1200)).unwrap();
        assert!(cause.message.contains("since 1970-01-01T00:00:00Z: "), "{}", cause.message);
        assert!(outage.cause(later + SHOWN).is_none());
        outage.end();
        assert!(outage.cause(later).is_none());
    }
}
