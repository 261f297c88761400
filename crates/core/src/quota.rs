//! Cool-downs of model credentials: how long the tasks that use a credential wait after the model API limited or rejected
//! it. Pure; knows no keys, only their hashes, and no workers.
//!
//! A limit whose end the API named lasts until then, unless one of the tasks that probe it every hour shows that it is over.
//! Otherwise the wait grows from a minute to half an hour, and one task probes the credential at the end of each wait:
//! [`Phase`].

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::{Class, Failure};
use crate::retry::{MAX_RESET, backoff};
use crate::text::prefix;
use crate::{AgentName, Fence, Namespace, TaskId, Timestamp};

/// First wait for a limit whose end is not known.
pub const INITIAL_WAIT: Duration = Duration::from_mins(1);
/// Longest wait for a limit whose end is not known.
pub const MAX_WAIT: Duration = Duration::from_mins(30);
/// Longest wait for a credential that is rejected: it may be replaced at any time.
const MAX_REJECTED_WAIT: Duration = Duration::from_mins(5);
/// Time after which a probe that has shown nothing is replaced by another.
pub const PROBE_TIMEOUT: Duration = Duration::from_mins(10);
/// Longest time between two probes. Also of a limit whose end is known: it may be raised, or the end be wrong.
pub const PROBE_INTERVAL: Duration = Duration::from_hours(1);
/// Cool-downs of one namespace, and those among them of credentials that tasks bring along.
pub const MAX_COOL_DOWNS: usize = 256;
pub const MAX_OWN_COOL_DOWNS: usize = 192;
/// Bytes of the name of a limit, and of a message.
pub const MAX_LIMIT_NAME: usize = 64;
const MAX_MESSAGE: usize = 512;
/// Limit of credentials that the model API rejects.
pub const INVALID: &str = "invalid_credential";

/// Keyed hash of a model credential, which distinguishes the credentials of one namespace and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CredentialId(pub [u8; 8]);

/// Error for a text that is not a credential's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a credential's id has 16 hexadecimal digits")]
pub struct BadCredentialId;

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CredentialId {
    type Err = BadCredentialId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits).ok_or(BadCredentialId)?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl TryFrom<String> for CredentialId {
    type Error = BadCredentialId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<CredentialId> for String {
    fn from(id: CredentialId) -> Self {
        id.to_string()
    }
}

/// What the model calls of an attempt use, as its worker reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelAccess {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialId>,
    /// The same credential at its back end: another id for each host or provider of the model API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_backend: Option<CredentialId>,
    /// Host or provider of the model API, with its region; empty if it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backend: String,
}

impl ModelAccess {
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// The credential that a cool-down of an attempt would be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedCredential {
    pub id: CredentialId,
    /// Whether the task brought it along. Otherwise it is the agent's, at its back end.
    pub own: bool,
}

/// What a waiting task waits for: a credential that cools down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaWait {
    pub credential: CredentialId,
    /// Name of the limit, such as `five_hour`.
    pub limit: String,
    /// Since when the task waits for it.
    pub since: Timestamp,
    /// When it continues at the latest: the task may be one that tries earlier.
    #[serde(default)]
    pub until: Timestamp,
}

/// A credential that the model API has limited or rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoolDown {
    pub namespace: Namespace,
    pub credential: CredentialId,
    /// Name of the limit, such as `five_hour`.
    pub limit: String,
    /// What the API answered last.
    pub message: String,
    /// Whether the API named the end, at which all tasks continue.
    pub reset_known: bool,
    pub since: Timestamp,
    /// The end, or if it is not known, that of the present wait.
    pub until: Timestamp,
    /// From when on a task may probe the credential.
    #[serde(default)]
    pub probe_at: Timestamp,
    /// Consecutive waits, without a success between them.
    pub waits: u32,
    /// Agents whose tasks have met it with the agent's own credential.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub agents: BTreeSet<AgentName>,
    /// The attempt that probes the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

/// Attempt that probes a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub task: TaskId,
    pub fence: Fence,
    pub since: Timestamp,
}

/// What a credential may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No task may use it until this time, when one may probe it, or all may use it.
    Cooling(Timestamp),
    /// One task may use it, as a probe.
    Probe,
    /// Nothing, until the probe has shown something, or this time.
    ProbeInFlight(Timestamp),
    /// All tasks may use it again.
    Over,
}

impl CoolDown {
    /// Whether a failure of an attempt is one of its credential.
    pub fn concerns(failure: &Failure) -> bool {
        matches!(failure.class, Class::RateLimit | Class::Auth)
    }

    /// Returns the cool-down after a failure of an attempt that was assigned at a time; `known` is the one so far.
    /// `jitter` is from 0 to 1.
    pub fn after(
        known: Option<&Self>,
        namespace: &Namespace,
        credential: CredentialId,
        failure: &Failure,
        assigned_at: Timestamp,
        now: Timestamp,
        jitter: f64,
    ) -> Self {
        let limit = match failure.class {
            Class::Auth => INVALID,
            _ if failure.limit.is_empty() => "requests",
            _ => prefix(&failure.limit, MAX_LIMIT_NAME),
        };
        let requested = failure.retry_after.unwrap_or_default().min(MAX_RESET);
        let mut next = known.cloned().unwrap_or_else(|| Self {
            namespace: namespace.clone(),
            credential,
            limit: String::new(),
            message: String::new(),
            reset_known: false,
            since: now,
            until: now,
            probe_at: now,
            waits: 0,
            agents: BTreeSet::new(),
            probe: None,
        });
        // It was running when the wait began, and fails for the same reason.
        let old = known.is_some_and(|known| assigned_at < known.probe_at);
        let cooling = known.is_some_and(|known| now < known.until);
        let set = |next: &mut Self, reset_known, until| {
            limit.clone_into(&mut next.limit);
            prefix(&failure.message, MAX_MESSAGE).clone_into(&mut next.message);
            (next.reset_known, next.until) = (reset_known, until);
        };
        match failure.resets_in() {
            // Of what attempts report that ran concurrently, the longer limit holds.
            Some(resets) if old && next.reset_known && next.until >= now + resets => return next,
            Some(resets) => set(&mut next, true, now + resets),
            None if old => return next,
            // The probe failed, and the API did not repeat the end.
            None if next.reset_known && cooling => {}
            None => {
                next.waits = if next.reset_known { 1 } else { next.waits.saturating_add(1) };
                let most = if failure.class == Class::Auth { MAX_REJECTED_WAIT } else { MAX_WAIT };
                let wait = backoff(INITIAL_WAIT * 2, most, next.waits, jitter).max(INITIAL_WAIT);
                set(&mut next, false, now + wait.max(requested));
            }
        }
        next.probe_at = if next.reset_known { next.until.min(now + PROBE_INTERVAL) } else { next.until };
        next.probe = None;
        next
    }

    /// Returns what the credential may be used for.
    pub fn phase(&self, now: Timestamp) -> Phase {
        if self.reset_known && now >= self.until {
            return Phase::Over;
        }
        match self.probe.map(|probe| probe.since + PROBE_TIMEOUT) {
            Some(end) if now < end && self.reset_known => Phase::ProbeInFlight(end.min(self.until)),
            Some(end) if now < end => Phase::ProbeInFlight(end),
            _ if now < self.probe_at => Phase::Cooling(self.probe_at),
            _ => Phase::Probe,
        }
    }

    /// Returns until when a task waits that would use the credential now; `None` if it may.
    pub fn wait(&self, now: Timestamp) -> Option<Timestamp> {
        match self.phase(now) {
            // The next task that comes may probe it.
            Phase::Cooling(_) | Phase::ProbeInFlight(_) if self.reset_known => Some(self.until),
            Phase::Cooling(until) | Phase::ProbeInFlight(until) => Some(until),
            Phase::Probe | Phase::Over => None,
        }
    }

    /// Whether an attempt that worked shows that the credential does again: not one that was running when the wait began.
    pub fn is_disproved_by(&self, assigned_at: Timestamp) -> bool {
        assigned_at >= self.probe_at
    }

    /// Lets a task probe the credential now.
    pub fn probe_now(&mut self, now: Timestamp) {
        self.probe_at = self.probe_at.min(now);
        self.probe = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn after(known: Option<&CoolDown>, failure: &Failure, assigned: i64, now: i64) -> CoolDown {
        let namespace = Namespace::new("n").unwrap();
        CoolDown::after(known, &namespace, CredentialId([7; 8]), failure, at(assigned), at(now), 1.0)
    }

    fn limited(seconds: Option<u64>, limit: &str) -> Failure {
        Failure {
            retry_after: seconds.map(Duration::from_secs),
            limit_resets: seconds.is_some(),
            limit: limit.to_owned(),
            ..Failure::new(Class::RateLimit, "429")
        }
    }

    #[test]
    fn id_round_trips() {
        let id = CredentialId([0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff]);
        assert_eq!(id.to_string(), "00010203fcfdfeff");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"00010203fcfdfeff\"");
        for bad in ["", "0", "00010203fcfdfefg", "+0010203fcfdfeff", "00010203fcfdfeff0"] {
            assert_eq!(bad.parse::<CredentialId>(), Err(BadCredentialId), "{bad:?}");
        }
    }

    #[test]
    fn known_reset_is_the_end() {
        let week = 7 * 24 * 3600;
        let cool_down = after(None, &limited(Some(week), "seven_day"), 0, 10);
        assert_eq!((cool_down.until, cool_down.limit.as_str()), (at(10 + week as i64), "seven_day"));
        assert_eq!(cool_down.wait(at(11)), Some(cool_down.until));
        assert_eq!(cool_down.phase(cool_down.until), Phase::Over);
        // Another attempt of the same credential reports a shorter one.
        assert_eq!(after(Some(&cool_down), &limited(Some(60), "five_hour"), 0, 20), cool_down);
        let longer = after(Some(&cool_down), &limited(Some(week), "overage"), 0, 20);
        assert_eq!((longer.until, longer.since), (at(20 + week as i64), at(10)));
    }

    #[test]
    fn unknown_end_grows_by_failed_probes() {
        let mut cool_down = after(None, &limited(None, ""), 0, 0);
        assert_eq!((cool_down.until, cool_down.limit.as_str()), (at(120), "requests"));
        // Attempts that were running do not prolong it.
        assert_eq!(after(Some(&cool_down), &limited(None, ""), 0, 100), cool_down);
        assert_eq!(after(Some(&cool_down), &limited(None, ""), 0, 130), cool_down);
        for minutes in [4, 8, 16, 30, 30] {
            let now = cool_down.until.0 / 1_000_000;
            assert_eq!(cool_down.phase(at(now)), Phase::Probe);
            cool_down = after(Some(&cool_down), &limited(None, ""), now, now + 1);
            assert_eq!(cool_down.until, at(now + 1 + minutes * 60));
        }
        assert!(!cool_down.is_disproved_by(at(0)) && cool_down.is_disproved_by(cool_down.until));
    }

    #[test]
    fn probe_is_replaced_in_time() {
        let mut cool_down = after(None, &limited(None, ""), 0, 0);
        cool_down.probe = Some(Probe { task: TaskId(uuid::Uuid::nil()), fence: Fence(1), since: at(120) });
        assert_eq!(cool_down.wait(at(120)), Some(at(720)));
        assert_eq!(cool_down.phase(at(720)), Phase::Probe);
    }

    #[test]
    fn named_reset_is_probed_every_hour() {
        let (hour, day) = (3600_i64, 24 * 3600_i64);
        let limited = |seconds: Option<i64>| limited(seconds.map(|seconds| seconds as u64), "seven_day");
        let mut cool_down = after(None, &limited(Some(7 * day)), 0, 0);
        for probes in 1..=5 {
            let now = probes * hour;
            assert_eq!(cool_down.phase(at(now - 1)), Phase::Cooling(at(now)));
            assert_eq!(cool_down.phase(at(now)), Phase::Probe);
            // With the end, with another, or without one.
            let failure = match probes {
                1 => limited(Some(7 * day - now)),
                2 => limited(Some(2 * day)),
                _ => limited(None),
            };
            cool_down = after(Some(&cool_down), &failure, now, now);
            let end = if probes == 1 { 7 * day } else { 2 * hour + 2 * day };
            assert_eq!((cool_down.until, cool_down.reset_known), (at(end), true));
        }
        let mut early = cool_down.clone();
        early.probe_now(at(5 * hour + 1));
        assert_eq!((early.phase(at(5 * hour + 1)), early.until), (Phase::Probe, cool_down.until));
    }

    #[test]
    fn resets_are_bounded_and_ahead() {
        let most = after(None, &limited(Some(u64::MAX), "x"), 0, 0);
        assert_eq!(most.until, at(32 * 24 * 3600));
        // One that has passed is no end: the waits grow.
        let mut last = after(None, &limited(Some(1), "five_hour"), 0, 0);
        for waits in 2..=5 {
            let now = last.until.0 / 1_000_000;
            let next = after(Some(&last), &limited(Some(1), "five_hour"), now, now);
            assert_eq!((next.waits, next.reset_known), (waits, false));
            assert!(next.until.since(at(now)) > last.until.since(last.since) / 2);
            last = next;
        }
    }

    #[test]
    fn rejected_credential_is_probed() {
        let cool_down = after(None, &Failure::new(Class::Auth, "401"), 0, 0);
        assert_eq!((cool_down.limit.as_str(), cool_down.reset_known), (INVALID, false));
    }
}
