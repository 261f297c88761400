//! The thread that owns the engine.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use super::outbox::{CloseOnDrop, Outbox};
use super::{Answer, Call, Clock, Mode};
use crate::engine::Engine;
use crate::{Backend, Command, Error};

/// Commands per transaction, unless a single call has more.
const MAX_BATCH: usize = 1024;
/// Payloads per transaction, in units of [`UNIT_BYTES`](super::UNIT_BYTES), unless a single call has more: a long one
/// delays all others.
const MAX_BATCH_UNITS: u32 = 8192;
/// Time after a failed commit for which calls share none.
const CAUTIOUS_FOR: Duration = Duration::from_secs(5);
/// Time for which a lazy call waits for a commit that it can share.
const LAZY_DELAY: Duration = Duration::from_millis(20);
/// Pause between attempts to continue follow-ups while the store fails.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The writer's end of the queue. Callers that wait for room fail once it is dropped.
pub(super) struct Inbox {
    pub(super) calls: blocking::Receiver<Call>,
    pub(super) free: Arc<Semaphore>,
}

enum Next {
    Call(Call),
    None,
    /// All senders of calls are dropped.
    Closed,
}

impl Inbox {
    /// Waits for the next call; with a limit, at most that long.
    fn next(&self, limit: Option<Duration>) -> Next {
        use blocking::{RecvTimeoutError, TryRecvError};
        let call = match limit {
            None => self.calls.recv().map_err(|_| Next::Closed),
            Some(Duration::ZERO) => self.calls.try_recv().map_err(|error| match error {
                TryRecvError::Empty => Next::None,
                TryRecvError::Disconnected => Next::Closed,
            }),
            Some(limit) => self.calls.recv_timeout(limit).map_err(|error| match error {
                RecvTimeoutError::Timeout => Next::None,
                RecvTimeoutError::Disconnected => Next::Closed,
            }),
        };
        match call {
            Ok(call) => {
                self.free.add_permits(call.units as usize);
                Next::Call(call)
            }
            Err(next) => next,
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.free.close();
    }
}

pub(super) fn write<B: Backend>(mut engine: Engine<B>, inbox: &Inbox, commits: &Outbox, clock: &Clock) {
    let _last = CloseOnDrop(commits);
    let mut waiting: VecDeque<Call> = VecDeque::new();
    let mut failed = false;
    let mut cautious = Cautious::default();
    loop {
        // The engine continues its follow-ups without calls; while the store fails, at a slow pace.
        let pause = if failed { RETRY_DELAY } else { Duration::ZERO };
        let backlog = engine.backlog_delay(clock()).map(|delay| delay.max(pause));
        if !gather(inbox, backlog, cautious.is_on(), &mut waiting) {
            return;
        }
        let mut batch = Vec::new();
        let (mut open, mut dry_runs) = (Vec::new(), Vec::new());
        while let Some(call) = waiting.pop_front() {
            if call.mode == Mode::DryRun {
                dry_runs.push(call);
                continue;
            }
            let count = call.batch.len();
            batch.extend(call.batch);
            open.push((count, call.reply));
        }
        if !open.is_empty() || engine.has_backlog() {
            match commit(&mut engine, batch, open, commits, clock) {
                Ok(()) => failed = false,
                Err(error) if error.is_fatal() => return,
                Err(_) => {
                    failed = true;
                    cautious.begin();
                }
            }
        }
        for call in dry_runs {
            let _ = call.reply.send(engine.dry_run(call.batch, clock()));
        }
    }
}

/// Executes a batch, publishes its commit, and answers its calls.
fn commit<B: Backend>(
    engine: &mut Engine<B>,
    batch: Vec<Command>,
    open: Vec<(usize, oneshot::Sender<Answer>)>,
    commits: &Outbox,
    clock: &Clock,
) -> Result<(), Error> {
    let (commands, now) = (batch.len(), clock());
    #[expect(clippy::disallowed_methods, reason = "a plain thread has no paused time")]
    let began = std::time::Instant::now();
    match engine.run(batch, now) {
        Ok(mut outcome) => {
            (outcome.commit.commands, outcome.commit.took) = (commands, began.elapsed());
            outcome.commit.next_due = engine.durable(now, clock());
            // Sent before any reply, so that a caller with a reply finds the commit already published.
            commits.send(outcome.commit);
            let mut replies = outcome.replies.into_iter();
            for (count, reply) in open {
                let _ = reply.send(Ok(replies.by_ref().take(count).collect()));
            }
            Ok(())
        }
        Err(error) => {
            // What was accepted in it is not, and is sent again.
            engine.durable(now, clock());
            for (_, reply) in open {
                let _ = reply.send(Err(error.clone()));
            }
            Err(error)
        }
    }
}

/// After a failed commit, calls are committed one by one: of several that share a commit, one may not fit on a disk that is
/// nearly full, and all would fail with it.
#[derive(Default)]
struct Cautious {
    since: Option<std::time::Instant>,
}

#[expect(clippy::disallowed_methods, reason = "a plain thread has no paused time")]
impl Cautious {
    fn begin(&mut self) {
        self.since = Some(std::time::Instant::now());
    }

    fn is_on(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() < CAUTIOUS_FOR)
    }
}

/// Waits for calls, or `alone` for one; with a limit, at most that long. Lazy ones wait for others to share a commit with,
/// up to `LAZY_DELAY`.
/// Returns `false` once all senders are dropped.
fn gather(inbox: &Inbox, limit: Option<Duration>, alone: bool, waiting: &mut VecDeque<Call>) -> bool {
    let first = match inbox.next(limit) {
        Next::Call(first) => first,
        Next::None => return true,
        Next::Closed => return false,
    };
    // With follow-ups to continue there is a commit to share immediately.
    let mut hurry = first.mode != Mode::Lazy || limit.is_some();
    let (mut count, mut units) = (first.batch.len(), first.units);
    waiting.push_back(first);
    #[expect(clippy::disallowed_methods, reason = "a plain thread has no paused time")]
    let until = std::time::Instant::now() + LAZY_DELAY;
    while count < MAX_BATCH && units < MAX_BATCH_UNITS && !alone {
        #[expect(clippy::disallowed_methods, reason = "a plain thread has no paused time")]
        let left =
            if hurry { Duration::ZERO } else { until.saturating_duration_since(std::time::Instant::now()) };
        let Next::Call(call) = inbox.next(Some(left)) else { break };
        hurry |= call.mode != Mode::Lazy;
        count += call.batch.len();
        units = units.saturating_add(call.units);
        waiting.push_back(call);
    }
    true
}
