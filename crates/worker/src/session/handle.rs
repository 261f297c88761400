//! State that an attempt's task shares with the session loop: the outbox, the request to end, the
//! watchdog's clock. Locks are held briefly.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rota_proto::v1::{Event, Failure, InputReceived, event};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::attempt::{AttemptEvent, AttemptKey};
use super::earlier::Earlier;
use super::outbox::Outbox;
use super::spill::SpillJob;
use super::storing::Keeping;
use crate::runtimes::deltas::Deltas;
use crate::supervise::{Group, Stop};

/// Reason why an attempt is being ended. Runtimes do not see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// The control plane cancelled it.
    Cancelled,
    /// A budget is spent. Work that is finished by then is none that ends.
    Budget,
    Timeout,
    /// It exceeded its silence timeout.
    Silence,
    /// Its fence is outdated: only the fact that it has ended is still reported.
    Stale,
    /// The worker was disconnected for too long.
    Disconnected,
    /// The worker is shutting down.
    WorkerShutdown,
}

/// Minimum silence timeout while a tool runs: builds and tests print nothing until they end. Longer than tools may take by
/// their own limits.
const TOOL_SILENCE: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct AttemptHandle {
    state: Mutex<AttemptState>,
    stop: watch::Sender<Option<Stop>>,
    /// Since when the attempt has only waited for a person.
    pub(super) waiting: watch::Sender<Option<Instant>>,
    /// Wakes the attempt's task, for example when the outbox has room again.
    pub(super) changed: Notify,
    pub(super) key: AttemptKey,
    /// Where the session loop learns that there are events to send.
    pub(super) notifications: mpsc::UnboundedSender<AttemptEvent>,
    /// Process group of the attempt's programs.
    pub(super) group: Group,
    /// Parts of the message that its agent is writing.
    pub(super) deltas: Deltas,
    /// What earlier attempts have left.
    pub(super) earlier: Earlier,
}

#[derive(Debug)]
pub(super) struct AttemptState {
    pub(super) outbox: Outbox,
    /// The session loop has a pending notification for this attempt.
    pub(super) notified: bool,
    pub(super) stop_reason: Option<StopReason>,
    /// Whether its agent has succeeded.
    finished: bool,
    /// Error that has kept the attempt from starting so far; the explanation of a timeout.
    pub(super) obstacle: Option<Failure>,
    /// Time of the last activity; `None` during set-up, when the silence timeout does not run.
    last_activity: Option<Instant>,
    /// Input requests without an answer; the time limits do not run meanwhile.
    pub(super) open_requests: HashSet<String>,
    /// Since when there are open requests.
    waiting_since: Option<Instant>,
    /// How long there were open requests before.
    waited: Duration,
    /// Calls of tools without a result.
    pub(super) running_tools: HashSet<String>,
    paused: bool,
    /// Whether it waits for a workspace that another attempt uses.
    held_up: bool,
    /// Set once no program runs any more: what they left is being stored.
    pub(super) keeping: Option<Keeping>,
}

impl AttemptHandle {
    pub(super) fn new(
        outbox: Outbox,
        key: AttemptKey,
        notifications: mpsc::UnboundedSender<AttemptEvent>,
    ) -> Self {
        let (last_activity, open_requests) = (None, HashSet::new());
        let state = AttemptState {
            outbox,
            notified: false,
            stop_reason: None,
            finished: false,
            obstacle: None,
            last_activity,
            open_requests,
            waiting_since: None,
            waited: Duration::ZERO,
            running_tools: HashSet::new(),
            paused: false,
            held_up: false,
            keeping: None,
        };
        let (changed, group) = (Notify::new(), Group::default());
        let state = Mutex::new(state);
        let (stop, waiting, deltas) = (watch::Sender::new(None), watch::Sender::new(None), Deltas::default());
        let earlier = Earlier::default();
        Self { state, stop, waiting, changed, key, notifications, group, deltas, earlier }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, AttemptState> {
        self.state.lock()
    }

    /// Returns the receiver by which a runtime learns that the attempt must end.
    pub(super) fn stop_signal(&self) -> watch::Receiver<Option<Stop>> {
        self.stop.subscribe()
    }

    /// Requests the attempt to end. The first reason wins, except that `Stale` overrides any, and any a budget.
    pub(super) fn request_stop(&self, reason: StopReason, grace: Duration) {
        let mut state = self.state.lock();
        if reason == StopReason::Budget && state.finished {
            return;
        }
        if matches!(state.stop_reason, None | Some(StopReason::Budget)) || reason == StopReason::Stale {
            state.stop_reason = Some(reason);
        }
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            if first {
                *stop = Some(Stop { grace });
            }
            first
        });
        drop(state);
        self.changed.notify_one();
    }

    /// Notes that the agent has succeeded: what is left to do costs nothing, and no budget ends it.
    pub(super) fn finish(&self) {
        let mut state = self.state.lock();
        state.finished = true;
        if state.stop_reason.take_if(|reason| *reason == StopReason::Budget).is_some() {
            self.stop.send_replace(None);
        }
    }

    /// Whether an end was requested.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Starts the silence timeout, when the runtime starts.
    pub(super) fn start_silence_clock(&self) {
        self.state.lock().last_activity = Some(Instant::now());
        // The attempt's task computes its next wake-up again.
        self.changed.notify_one();
    }

    /// Stops the silence timeout, for work that has limits of its own.
    pub(super) fn stop_silence_clock(&self) {
        self.state.lock().last_activity = None;
        self.changed.notify_one();
    }

    /// Stores an event, and notifies the session loop.
    pub(super) fn push(self: &Arc<Self>, event: Event) {
        let mut state = self.state.lock();
        match &event.kind {
            Some(event::Kind::InputRequest(request)) => {
                state.open_requests.insert(request.request_id.clone());
                state.match_clock();
            }
            // The runtime has withdrawn it.
            Some(event::Kind::InputReceived(InputReceived { input: Some(input), .. })) => {
                state.resolve(&input.request_id);
            }
            Some(event::Kind::ToolCall(call)) => {
                state.running_tools.insert(call.call_id.clone());
            }
            Some(event::Kind::ToolResult(result)) => {
                state.running_tools.remove(&result.call_id);
            }
            // The end of a turn, of which no tool is left.
            Some(event::Kind::Usage(usage)) if !usage.partial => state.running_tools.clear(),
            _ => {}
        }
        let asked = matches!(event.kind, Some(event::Kind::InputRequest(_) | event::Kind::InputReceived(_)));
        self.match_waiting(&state, asked);
        state.outbox.push(event);
        state.touch();
        self.serve_outbox(&mut state);
        self.notify(&mut state);
    }

    /// Drops events up to `seq`, which are durable in the control plane.
    pub(super) fn ack(self: &Arc<Self>, seq: i64) {
        let mut state = self.state.lock();
        let was_full = state.outbox.is_full();
        state.outbox.ack(seq);
        self.serve_outbox(&mut state);
        if was_full && !state.outbox.is_full() || self.deltas.is_followed() && state.outbox.is_acked() {
            self.changed.notify_one();
        }
    }

    /// Starts over on a new session, after the event `seq`.
    pub(super) fn resume(self: &Arc<Self>, seq: i64) {
        let mut state = self.state.lock();
        state.outbox.resume(seq);
        self.serve_outbox(&mut state);
        self.changed.notify_one();
    }

    /// Starts what the outbox has to do with its file. The disk may hang, so it is done without the lock, for which the
    /// session loop would wait.
    fn serve_outbox(self: &Arc<Self>, state: &mut AttemptState) {
        if let Some(job) = state.outbox.start_job() {
            let handle = Arc::clone(self);
            tokio::task::spawn_blocking(move || handle.run_jobs(job));
        }
    }

    fn run_jobs(&self, mut job: SpillJob) {
        loop {
            let done = job.run();
            let mut state = self.state.lock();
            let next = state.outbox.finish(done);
            if state.outbox.has_more() {
                self.notify(&mut state);
            }
            drop(state);
            self.changed.notify_one();
            match next {
                Some(next) => job = next,
                None => return,
            }
        }
    }

    fn notify(&self, state: &mut AttemptState) {
        if !std::mem::replace(&mut state.notified, true) {
            // Fails only when the worker is exiting.
            let _ = self.notifications.send(AttemptEvent::EventsQueued(self.key.clone()));
        }
    }

    /// Restarts the silence timeout without an event.
    pub(super) fn record_activity(&self) {
        self.state.lock().touch();
    }

    /// Marks an input request as answered; the time limits run again with the last one.
    pub(super) fn resolve_request(&self, request: &str) {
        let mut state = self.state.lock();
        state.resolve(request);
        self.match_waiting(&state, true);
        state.touch();
        drop(state);
        self.changed.notify_one();
    }

    /// Freezes or thaws the attempt's processes, and its time limits with them.
    pub(super) fn set_paused(&self, paused: bool) {
        let mut state = self.state.lock();
        state.paused = paused;
        state.match_clock();
        state.touch();
        drop(state);
        self.changed.notify_one();
        self.group.set_paused(paused);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.state.lock().paused
    }

    /// Stops the total time while another attempt uses the workspace, or lets it run again. Returns whether that is a change.
    pub(super) fn set_held_up(&self, held_up: bool) -> bool {
        let mut state = self.state.lock();
        let changes = std::mem::replace(&mut state.held_up, held_up) != held_up;
        state.match_clock();
        drop(state);
        self.changed.notify_one();
        changes
    }

    /// Returns when the total time is over that would end at a time without waiting; `None` while it does not run.
    pub(super) fn deadline(&self, at: Instant) -> Option<Instant> {
        let state = self.state.lock();
        state.waiting_since.is_none().then(|| at + state.waited)
    }

    /// Returns when the silence timeout expires, if it is running.
    pub(super) fn silence_deadline(&self, limit: Duration) -> Option<Instant> {
        let state = self.state.lock();
        // Backpressure: an attempt that waits for room in the outbox is not silent.
        if state.paused || !state.open_requests.is_empty() || state.outbox.is_full() {
            return None;
        }
        let limit = if state.running_tools.is_empty() { limit } else { limit.max(TOOL_SILENCE) };
        Some(state.last_activity? + limit)
    }
}

impl AttemptState {
    fn resolve(&mut self, request: &str) {
        self.open_requests.remove(request);
        self.match_clock();
    }

    /// Stops the clock of the total time while the attempt waits for a person or its workspace, or is frozen.
    fn match_clock(&mut self) {
        if self.paused || self.held_up || !self.open_requests.is_empty() {
            self.waiting_since.get_or_insert_with(Instant::now);
        } else if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
    }

    fn touch(&mut self) {
        if let Some(last_activity) = &mut self.last_activity {
            *last_activity = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests;
