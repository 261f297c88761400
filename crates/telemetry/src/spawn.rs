//! The only way to start a task: with a name, a span, and a word on what its end means.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// What it means when a task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// Its work is done; nothing to say.
    Done,
    /// It should have run as long as the process: its end is logged as an error.
    Unexpected,
}

/// Runs `future` as a task named `name`, inside a span of that name and the current context.
pub fn spawn<F>(name: &'static str, on_exit: OnExit, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let span = tracing::debug_span!("task", name);
    let guard = Guard { name, on_exit, ended: false };
    #[expect(clippy::disallowed_methods, reason = "the one home of spawning")]
    tokio::spawn(
        async move {
            let mut guard = guard;
            let output = future.await;
            guard.ended = true;
            if guard.on_exit == OnExit::Unexpected {
                tracing::error!(name, "a task that should go on has ended");
            }
            output
        }
        .instrument(span),
    )
}

/// Says so when a task panics. A task that is aborted or dropped with its runtime says nothing.
struct Guard {
    name: &'static str,
    on_exit: OnExit,
    ended: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ended && std::thread::panicking() {
            tracing::error!(name = self.name, "a task panicked");
        }
    }
}
