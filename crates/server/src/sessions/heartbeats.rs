//! Heartbeats to workers: one task for all sessions, which serves a slice of them at each step. A task and a timer of its own for each
//! session would be thousands of wake-ups a second. Knows nothing of what workers send.

use std::time::Duration;

use parking_lot::Mutex;
use rota_proto::worker::v1::{ServerHeartbeat, SessionResponse, session_response::Kind};
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::scheduler::SessionHandle;

/// Time between two steps, about.
const STEP: Duration = Duration::from_millis(100);
const MIN_STEP: Duration = Duration::from_millis(1);
const MAX_SLICES: u128 = 64;

/// Sessions that are sent heartbeats, until they end.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    step: Duration,
    sessions: Mutex<Sessions>,
    added: Notify,
}

#[derive(Debug)]
struct Sessions {
    /// Each is served once per interval.
    slices: Vec<Vec<Session>>,
    /// The one that was served last. A new session joins it: its next heartbeat is an interval later.
    served: usize,
}

/// A session, which its entry here does not keep.
#[derive(Debug)]
struct Session {
    messages: mpsc::WeakSender<Box<SessionResponse>>,
    closed: CancellationToken,
}

impl Heartbeats {
    pub(crate) fn new(interval: Duration) -> Self {
        let slices = (interval.as_millis() / STEP.as_millis()).clamp(1, MAX_SLICES);
        let count = u32::try_from(slices).unwrap_or(1);
        let slices: Vec<_> = (0..count).map(|_| Vec::new()).collect();
        let sessions = Sessions { served: slices.len() - 1, slices };
        // A timer has no period of zero.
        let step = (interval / count).max(MIN_STEP);
        Self { step, sessions: Mutex::new(sessions), added: Notify::new() }
    }

    /// Sends heartbeats to a session, the first immediately, until it ends.
    pub(super) fn add(&self, session: &SessionHandle) {
        let session = Session { messages: session.messages.downgrade(), closed: session.closed.clone() };
        if !session.send(&heartbeat()) {
            return;
        }
        let mut sessions = self.sessions.lock();
        let served = sessions.served;
        if let Some(slice) = sessions.slices.get_mut(served) {
            slice.push(session);
        }
        drop(sessions);
        self.added.notify_one();
    }

    /// Sends heartbeats until `stop` is cancelled, to a slice of the sessions at each step.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let send = async {
            let mut ticks = interval(self.step);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let slices = self.sessions.lock().slices.len();
            for slice in (0..slices).cycle() {
                if self.is_empty() {
                    self.added.notified().await;
                }
                ticks.tick().await;
                self.send(slice);
            }
        };
        stop.run_until_cancelled(send).await;
    }

    fn is_empty(&self) -> bool {
        self.sessions.lock().slices.iter().all(Vec::is_empty)
    }

    /// Sends to the sessions of a slice, and forgets those that have ended.
    fn send(&self, slice: usize) {
        let beat = heartbeat();
        let mut sessions = self.sessions.lock();
        sessions.served = slice;
        if let Some(slice) = sessions.slices.get_mut(slice) {
            slice.retain(|session| session.send(&beat));
        }
    }
}

impl Session {
    /// Returns whether the session is up.
    fn send(&self, beat: &SessionResponse) -> bool {
        if self.closed.is_cancelled() {
            return false;
        }
        let Some(messages) = self.messages.upgrade() else { return false };
        // A full outbox holds messages enough for the worker to know that the server lives.
        let _ = messages.try_send(Box::new(beat.clone()));
        true
    }
}

fn heartbeat() -> SessionResponse {
    SessionResponse { kind: Some(Kind::Heartbeat(ServerHeartbeat::default())) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rota_telemetry::{OnExit, spawn};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    type Outbox = mpsc::Receiver<Box<SessionResponse>>;

    fn open(heartbeats: &Heartbeats) -> (SessionHandle, Outbox) {
        let (messages, outbox) = mpsc::channel(1000);
        let session = SessionHandle { messages, closed: CancellationToken::new() };
        heartbeats.add(&session);
        (session, outbox)
    }

    fn received(outbox: &mut Outbox) -> usize {
        std::iter::from_fn(|| outbox.try_recv().ok()).count()
    }

    fn known(heartbeats: &Heartbeats) -> Vec<usize> {
        heartbeats.sessions.lock().slices.iter().map(Vec::len).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_session_has_its_heartbeats() {
        let heartbeats = Arc::new(Heartbeats::new(INTERVAL));
        let running = Arc::clone(&heartbeats);
        let _task =
            spawn("heartbeats", OnExit::Done, async move { running.run(CancellationToken::new()).await });
        let mut sessions = Vec::new();
        for _ in 0..100 {
            let mut new: Vec<_> = (0..10).map(|_| open(&heartbeats)).collect();
            for (_, outbox) in &mut new {
                assert_eq!(received(outbox), 1, "the first follows Welcome");
            }
            sessions.extend(new);
            tokio::time::sleep(INTERVAL / 100).await;
        }
        let most = known(&heartbeats).into_iter().max();
        assert!(most.is_some_and(|most| most <= 40), "a step serves those that began in its time: {most:?}");
        for (_, outbox) in &mut sessions {
            assert!(received(outbox) <= 1, "the next one is an interval later");
        }
        tokio::time::sleep(INTERVAL * 10).await;
        for (_, outbox) in &mut sessions {
            assert!((9..=11).contains(&received(outbox)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn interval_of_zero_is_a_short_one() {
        let heartbeats = Arc::new(Heartbeats::new(Duration::ZERO));
        let running = Arc::clone(&heartbeats);
        let _task =
            spawn("heartbeats", OnExit::Done, async move { running.run(CancellationToken::new()).await });
        let (_session, mut outbox) = open(&heartbeats);
        for _ in 0..3 {
            let sent = tokio::time::timeout(INTERVAL, outbox.recv()).await;
            assert!(sent.is_ok_and(|sent| sent.is_some()), "its timer must not panic");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_that_have_ended_are_forgotten() {
        let heartbeats = Arc::new(Heartbeats::new(INTERVAL));
        let running = Arc::clone(&heartbeats);
        let _task =
            spawn("heartbeats", OnExit::Done, async move { running.run(CancellationToken::new()).await });
        let (closed, _outbox) = open(&heartbeats);
        let (dropped, mut outbox) = open(&heartbeats);
        closed.close();
        drop(dropped);
        assert_eq!(received(&mut outbox), 1);
        assert!(outbox.recv().await.is_none(), "the list must not keep a session");
        tokio::time::sleep(INTERVAL * 2).await;
        assert_eq!(known(&heartbeats).into_iter().sum::<usize>(), 0);
        // The task has paused.
        let (_session, mut outbox) = open(&heartbeats);
        tokio::time::sleep(INTERVAL * 3).await;
        assert!(received(&mut outbox) >= 3);
    }
}
