//! The only way to start a tokio task: with a name, a span, and a policy for its end.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// What the end of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// Expected: the task is done.
    Done,
    /// Logged as an error: the task should run as long as the process.
    Unexpected,
}

/// Spawns `future` as a task, inside a span with its name and in the current context. A panic is logged.
pub fn spawn<F>(name: &'static str, on_exit: OnExit, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let span = tracing::debug_span!("task", name);
    let guard = PanicGuard { name, finished: false };
    #[expect(clippy::disallowed_methods, reason = "the only caller of tokio::spawn")]
    tokio::spawn(
        async move {
            let mut guard = guard;
            let output = future.await;
            guard.finished = true;
            if on_exit == OnExit::Unexpected {
                tracing::error!(name, "task exited unexpectedly");
            }
            output
        }
        .instrument(span),
    )
}

/// Logs a panic of its task. A task that is aborted, or dropped with its runtime, logs nothing.
struct PanicGuard {
    name: &'static str,
    finished: bool,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if !self.finished && std::thread::panicking() {
            tracing::error!(name = self.name, "task panicked");
        }
    }
}
