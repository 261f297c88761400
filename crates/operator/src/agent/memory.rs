//! What is remembered of an agent between two looks, and may be forgotten: the worst that comes of
//! that is a call too many.

use std::time::Duration;

use backon::ExponentialBackoff;
use tokio::time::Instant;

use super::dereference::Member;
use super::status::Trouble;
use crate::backoff;

/// A worker that lived this long did not fail to start.
pub(super) const STEADY: Duration = Duration::from_secs(60);
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(120);
/// What the control plane forgets when it starts anew is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(5);
/// The watch of pods is behind by less than this.
const UNSEEN: Duration = Duration::from_secs(30);
/// Somebody may have taken away what pods need to trust the control plane.
const TRUST_AGAIN: Duration = Duration::from_secs(60);

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// What the control plane was told of the spec.
    pub registered: Option<(Option<i64>, u64)>,
    /// When a status was written.
    pub written: Option<Instant>,
    /// The authority that the namespace's pods were told to trust, and when that was last looked at.
    trusted: Option<(String, Instant)>,
    announced: Option<(Vec<(String, String)>, Instant)>,
    reported: Option<(String, Instant)>,
    told: Option<String>,
    started: Vec<(Member, Instant)>,
    crashes: Crashes,
}

#[derive(Debug, Default)]
struct Crashes {
    waits: Option<ExponentialBackoff>,
    until: Option<Instant>,
    last: Option<Trouble>,
}

impl Memory {
    /// Workers did not start, or ended badly soon after: the next may start after a while.
    pub(super) fn failed(&mut self, trouble: Trouble, now: Instant) -> Duration {
        let waits = self.crashes.waits.get_or_insert_with(|| backoff::waits(FIRST, LONGEST));
        let wait = waits.next().unwrap_or(LONGEST);
        self.crashes.until = Some(now + wait);
        self.crashes.last = Some(trouble);
        wait
    }

    /// Whether pods of the namespace have been told lately to trust this authority.
    pub(super) fn trusts(&self, authority: &str, now: Instant) -> bool {
        self.trusted.as_ref().is_some_and(|(known, at)| known == authority && now - *at < TRUST_AGAIN)
    }

    /// They have been told.
    pub(super) fn trusted(&mut self, authority: String, now: Instant) {
        self.trusted = Some((authority, now));
    }

    /// A pod was made.
    pub(super) fn started(&mut self, member: Member, now: Instant) {
        self.started.push((member, now));
    }

    /// Those that were made and are not among what the watch has told of yet: to overlook them would be to
    /// make them again.
    pub(super) fn unseen(&mut self, seen: &[Member], now: Instant) -> Vec<Member> {
        self.started
            .retain(|(one, at)| now - *at < UNSEEN && !seen.iter().any(|known| known.name == one.name));
        self.started.iter().map(|(member, _)| member.clone()).collect()
    }

    /// A worker is connected, or the spec is another: what failed before may do now.
    pub(super) fn recovered(&mut self) {
        self.crashes = Crashes::default();
        self.told = None;
    }

    /// How long no worker may be started; zero when one may.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        self.crashes.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    pub(super) fn trouble(&self) -> Option<&Trouble> {
        self.crashes.last.as_ref()
    }

    /// Whether these workers are to be announced now. While some have not joined they are announced
    /// again and again: a control plane that was started meanwhile has never heard of them.
    pub(super) fn announce(&mut self, set: &[(String, String)], all_joined: bool, now: Instant) -> bool {
        let due = match &self.announced {
            Some((old, at)) => old != set || !all_joined && now - *at >= TELL_AGAIN,
            None => true,
        };
        if due {
            self.announced = Some((set.to_vec(), now));
        }
        due
    }

    /// Something about announcing failed: it is not known what arrived.
    pub(super) fn unannounced(&mut self) {
        self.announced = None;
    }

    /// Whether an Event is due that workers do not start for this reason: once, until they do.
    pub(super) fn is_news(&mut self, reason: &str) -> bool {
        self.told.replace(reason.to_owned()).as_deref() != Some(reason)
    }

    /// Whether this message is to be told now.
    pub(super) fn report(&mut self, message: &str, now: Instant) -> bool {
        let due = match &self.reported {
            Some((old, at)) => old != message || !message.is_empty() && now - *at >= 6 * TELL_AGAIN,
            None => !message.is_empty(),
        };
        if due {
            self.reported = Some((message.to_owned(), now));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pool_that_fails_waits_longer_and_longer() {
        let mut memory = Memory::default();
        let now = Instant::now();
        assert_eq!(memory.pause(now), Duration::ZERO);
        let first = memory.failed(Trouble::new("Error", "x"), now);
        let tenth = (0..9).map(|_| memory.failed(Trouble::new("Error", "x"), now)).last().unwrap();
        assert!(tenth > first && memory.pause(now) > Duration::ZERO);
        memory.recovered();
        assert_eq!((memory.pause(now), memory.trouble()), (Duration::ZERO, None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_started_counts_until_it_is_seen() {
        let mut memory = Memory::default();
        let now = Instant::now();
        let member = Member { name: "a-1".into(), ..Member::default() };
        memory.started(member.clone(), now);
        assert_eq!(memory.unseen(&[], now), std::slice::from_ref(&member));
        assert_eq!(memory.unseen(&[member], now), []);
        assert_eq!(memory.unseen(&[], now), [], "it was seen, and is gone");
        memory.started(Member::default(), now);
        assert_eq!(memory.unseen(&[], now + UNSEEN), []);
    }

    #[tokio::test(start_paused = true)]
    async fn trust_is_looked_at_now_and_then_and_when_it_changes() {
        let mut memory = Memory::default();
        let now = Instant::now();
        assert!(!memory.trusts("a", now));
        memory.trusted("a".into(), now);
        assert!(memory.trusts("a", now) && !memory.trusts("b", now));
        assert!(!memory.trusts("a", now + TRUST_AGAIN));
    }

    #[tokio::test(start_paused = true)]
    async fn only_news_is_told() {
        let mut memory = Memory::default();
        let now = Instant::now();
        let set = [("a".to_owned(), "1".to_owned())];
        assert!(memory.announce(&set, false, now));
        assert!(!memory.announce(&set, false, now));
        assert!(memory.announce(&set, false, now + TELL_AGAIN));
        assert!(!memory.announce(&set, true, now + 9 * TELL_AGAIN), "all have joined");
        assert!(memory.announce(&[], true, now));
        assert!(!memory.report("", now), "nothing was ever wrong");
        assert!(memory.report("broken", now) && !memory.report("broken", now));
        assert!(memory.report("", now));
        assert!(memory.is_news("ErrImagePull") && !memory.is_news("ErrImagePull"));
        memory.recovered();
        assert!(memory.is_news("ErrImagePull"));
    }
}
