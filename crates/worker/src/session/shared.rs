//! What an attempt's task and the session loop share: the outbox, the request to end, the watchdog's
//! view. Short locks only.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rota_proto::v1::{Event, event};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::outbox::Outbox;
use crate::runtimes::{Stop, StopCause};
use crate::supervise::Group;

/// Why an attempt is ended. More is known here than a runtime is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The control plane asked for it.
    Cancelled,
    /// Its deadline has come.
    Timeout,
    /// The watchdog heard nothing.
    Silence,
    /// Its fence is old: nothing of it counts but that it has ended.
    Stale,
    /// The worker was cut off too long.
    CutOff,
    /// The worker ends.
    WorkerEnds,
}

impl Why {
    fn cause(self) -> StopCause {
        match self {
            Self::Cancelled => StopCause::Cancelled,
            Self::Timeout => StopCause::Timeout,
            Self::Silence => StopCause::Silence,
            Self::Stale | Self::CutOff | Self::WorkerEnds => StopCause::Abandoned,
        }
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    stop: watch::Sender<Option<Stop>>,
    /// Something has changed for whoever watches the attempt, such as room in the outbox.
    pub(super) changed: Notify,
    /// The attempt's programs.
    pub(super) group: Group,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) outbox: Outbox,
    /// The session loop has been told that there is something to send.
    pub(super) noted: bool,
    pub(super) why: Option<Why>,
    /// When it was last heard; none while it is being prepared, and nothing is expected of it.
    heard: Option<Instant>,
    /// Questions to people that wait for an answer: its silence is theirs.
    asked: HashSet<String>,
    paused: bool,
}

impl Shared {
    pub(super) fn new(outbox: Outbox) -> Self {
        let (heard, asked) = (None, HashSet::new());
        let state = State { outbox, noted: false, why: None, heard, asked, paused: false };
        let (changed, group) = (Notify::new(), Group::default());
        Self { state: Mutex::new(state), stop: watch::Sender::new(None), changed, group }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// How the attempt's runtime hears that it shall end.
    pub(super) fn stop(&self) -> watch::Receiver<Option<Stop>> {
        self.stop.subscribe()
    }

    /// Asks the attempt to end. The first reason counts, except that of a stale one nothing counts, whatever came before.
    pub(super) fn request(&self, why: Why, grace: Duration) {
        let mut state = self.state.lock();
        if state.why.is_none() || why == Why::Stale {
            state.why = Some(why);
        }
        drop(state);
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            if first {
                *stop = Some(Stop { cause: why.cause(), grace });
            }
            first
        });
        self.changed.notify_one();
    }

    /// Whether the attempt has been asked to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// The runtime starts: from now on it should be heard.
    pub(super) fn begin(&self) {
        self.state.lock().heard = Some(Instant::now());
        // Whoever watches it reckons anew.
        self.changed.notify_one();
    }

    /// Takes an event. True if the session loop has to be told.
    pub(super) fn push(&self, event: Event) -> bool {
        let mut state = self.state.lock();
        if let Some(event::Kind::InputRequest(request)) = &event.kind {
            state.asked.insert(request.request_id.clone());
        }
        state.outbox.push(event);
        state.touch();
        !std::mem::replace(&mut state.noted, true)
    }

    /// The attempt was heard, though there is nothing to tell of it.
    pub(super) fn heard(&self) {
        self.state.lock().touch();
    }

    /// Somebody answered, or steered: the agent has its own time again.
    pub(super) fn answered(&self, request: &str) {
        let mut state = self.state.lock();
        state.asked.remove(request);
        state.touch();
    }

    /// Freezes or thaws the attempt. Its total time goes on.
    pub(super) fn set_paused(&self, paused: bool) {
        let mut state = self.state.lock();
        state.paused = paused;
        state.touch();
        drop(state);
        self.group.set_paused(paused);
    }

    /// When the attempt will have been silent for too long, as things are now.
    pub(super) fn silent_at(&self, limit: Duration) -> Option<Instant> {
        let state = self.state.lock();
        // One that waits for room is not silent, it is not listened to.
        if state.paused || !state.asked.is_empty() || state.outbox.is_full() {
            return None;
        }
        Some(state.heard? + limit)
    }
}

impl State {
    fn touch(&mut self) {
        if let Some(heard) = &mut self.heard {
            *heard = Instant::now();
        }
    }
}
