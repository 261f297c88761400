//! Whether this replica can do its work, and why not. It finds out when somebody asks and does nothing while nobody
//! does; many who ask at once share one answer. Knows nothing of how it is told.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rota_core::breaker::State as Breaker;
use rota_core::{TaskId, Timestamp};
use rota_store::{Error, Store};
use rota_telemetry::loops;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::breakers;
use crate::shared::{Shared, now};

/// For the store to answer; probes themselves wait about as long.
pub(crate) const STORE: Duration = Duration::from_secs(2);
/// How long an answer of the store's is given again: whoever can reach a probe must not keep the store busy.
const FRESH: Duration = Duration::from_millis(250);
/// Agents whose workers cannot start that are told of.
const MOST: usize = 20;

/// How bad a cause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Healthy,
    Degraded,
    Error,
}

impl State {
    /// Its name for programs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Error => "error",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub(crate) state: State,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// What a look at the store gave.
#[derive(Debug, Clone)]
pub(crate) struct StoreSeen {
    /// What is wrong, and what can be done.
    pub(crate) wrong: Option<(String, &'static str)>,
    pub(crate) took: Duration,
}

/// What is noted along the way.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) started: Timestamp,
    /// 0 while there was none.
    last_commit: AtomicI64,
    write_error: Mutex<Option<(String, &'static str)>>,
    seen: tokio::sync::Mutex<Option<(Instant, StoreSeen)>>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            started: now(),
            last_commit: AtomicI64::new(0),
            write_error: Mutex::default(),
            seen: tokio::sync::Mutex::default(),
        }
    }
}

fn said(error: &Error) -> (String, &'static str) {
    let hint = match error {
        Error::Unavailable { hint, .. } => hint,
        Error::Corrupt(_) => "restore the store from a backup",
        Error::Closed => "",
    };
    (error.to_string(), hint)
}

impl Health {
    /// Notes how a write went, and gives it back.
    pub(crate) fn wrote<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        match &answer {
            Err(Error::Closed) => {}
            Err(error) => *self.write_error.lock() = Some(said(error)),
            Ok(_) => drop(self.write_error.lock().take()),
        }
        answer
    }

    /// A change was committed.
    pub(crate) fn committed(&self) {
        self.last_commit.store(now().0, Ordering::Relaxed);
    }

    pub(crate) fn last_commit(&self) -> Option<Timestamp> {
        Some(self.last_commit.load(Ordering::Relaxed)).filter(|at| *at != 0).map(Timestamp)
    }

    pub(crate) fn write_error(&self) -> Option<(String, &'static str)> {
        self.write_error.lock().clone()
    }

    /// Looks at the store, or gives what was seen a moment ago.
    pub(crate) async fn store(&self, store: &dyn Store) -> StoreSeen {
        // Held over the look: those who come meanwhile wait for its answer instead of asking again.
        let mut seen = self.seen.lock().await;
        if let Some((_, known)) = seen.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return known.clone();
        }
        let began = Instant::now();
        // Nothing is written, but the writer must take its turn, and reads have a way of their own.
        let asked = async { tokio::try_join!(store.task(TaskId(Uuid::nil())), store.apply(Vec::new())) };
        let wrong = match timeout(STORE, asked).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(said(&error)),
            Err(_) => Some((
                format!("the store did not answer within {} s", STORE.as_secs()),
                "look at the disk on which the store lies, and at the log",
            )),
        };
        let look = StoreSeen { wrong, took: began.elapsed() };
        *seen = Some((Instant::now(), look.clone()));
        look
    }
}

impl Shared {
    /// Why this replica should get no calls; nothing when it should.
    pub(crate) async fn not_ready(&self) -> Vec<Cause> {
        self.readiness().await.1
    }

    async fn readiness(&self) -> (StoreSeen, Vec<Cause>) {
        let store = self.health.store(&*self.store).await;
        let bad =
            |code, message, hint: &str| Cause { state: State::Error, code, message, hint: hint.to_owned() };
        let mut causes = Vec::new();
        if self.stop.is_cancelled() {
            causes.push(bad("stopping", "this replica is stopping".to_owned(), ""));
        }
        if let Some((message, hint)) = &store.wrong {
            causes.push(bad("store", message.clone(), hint));
        }
        (store, causes)
    }

    /// All that is not as it should be, worst first, with what the store said.
    pub(crate) async fn diagnose(&self) -> (StoreSeen, Vec<Cause>) {
        let (store, mut causes) = self.readiness().await;
        if let Some((message, hint)) = self.health.write_error() {
            let message = format!("the last write failed: {message}");
            causes.push(Cause { state: State::Error, code: "store_writes", message, hint: hint.to_owned() });
        }
        causes.extend(self.loops.all().into_iter().filter_map(|seen| self.of_loop(seen)));
        // One that waits for a task to show that it works is nobody's concern while there is none.
        let all = self.breakers.all().into_iter();
        let open = all.filter(|(_, breaker)| matches!(breaker.state(), Breaker::Open { .. }));
        causes.extend(open.take(MOST).map(|((namespace, agent), breaker)| Cause {
            state: State::Degraded,
            code: "breaker_open",
            message: format!("in {namespace}, {}", breakers::sentence(&agent, &breaker)),
            hint: format!("see `rota admin breakers`, and the failures of tasks of {agent}"),
        }));
        causes.extend(self.pools.messages().into_iter().take(MOST).map(|((namespace, agent), message)| {
            Cause {
                state: State::Degraded,
                code: "workers_cannot_start",
                message: format!("workers of the agent {namespace}/{agent} cannot start: {message}"),
                hint: format!("see `rota describe agent {agent} -n {namespace}`"),
            }
        }));
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.state));
        (store, causes)
    }

    /// What a loop that does not go on as it should means.
    fn of_loop(&self, seen: loops::Seen) -> Option<Cause> {
        let name = seen.name;
        let (state, code, message) = match seen.state {
            loops::State::Waiting | loops::State::Working => return None,
            loops::State::Ended if self.stop.is_cancelled() => return None,
            loops::State::Ended => (State::Error, "loop_ended", format!("the loop {name} has ended")),
            loops::State::Stuck => (
                State::Error,
                "loop_stuck",
                format!("the loop {name} has been at one thing for over a minute"),
            ),
            loops::State::Failing => {
                (State::Degraded, "loop_failing", format!("the loop {name} fails: {}", seen.error))
            }
        };
        Some(Cause { state, code, message, hint: "see `rota admin loops`, and the log".to_owned() })
    }
}

/// The worst of all.
pub(crate) fn worst(causes: &[Cause]) -> State {
    causes.iter().map(|cause| cause.state).max().unwrap_or(State::Healthy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_is_known_until_one_succeeds() {
        let health = Health::default();
        let full = Error::Unavailable { message: "disk full".to_owned(), hint: "make room" };
        assert!(health.wrote::<()>(Err(full)).is_err());
        let (message, hint) = health.write_error().unwrap();
        assert!(message.contains("disk full") && hint == "make room");
        // That it stops says nothing of how it fared.
        assert!(health.wrote::<()>(Err(Error::Closed)).is_err());
        assert!(health.write_error().is_some());
        assert!(health.wrote(Ok(())).is_ok());
        assert_eq!(health.write_error(), None);
    }
}
