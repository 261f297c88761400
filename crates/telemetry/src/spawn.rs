//! The only way to start a tokio task: with a name, a span, and a policy for its end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::task::JoinHandle;
use tracing::Span;

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
    #[expect(clippy::disallowed_methods, reason = "the only caller of tokio::spawn")]
    tokio::spawn(Task { future, span, guard: PanicGuard { name, finished: false }, on_exit })
}

pin_project! {
    /// A named task. By hand: an `async` block would hold its captured future twice, and move it when it is first polled.
    struct Task<F> {
        #[pin]
        future: F,
        span: Span,
        guard: PanicGuard,
        on_exit: OnExit,
    }
}

impl<F: Future> Future for Task<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let task = self.project();
        let _entered = task.span.enter();
        let output = ready!(task.future.poll(context));
        task.guard.finished = true;
        if *task.on_exit == OnExit::Unexpected {
            tracing::error!(name = task.guard.name, "task exited unexpectedly");
        }
        Poll::Ready(output)
    }
}

/// Runs `future` within the caller, without a task of its own; if the caller is dropped before, as when a client hangs up,
/// the rest runs as a task.
pub fn finish<T: Send + 'static>(
    name: &'static str,
    future: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> + Send {
    Finish { name, future: Some(Box::pin(future)) }
}

struct Finish<T: Send + 'static> {
    name: &'static str,
    future: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<T: Send + 'static> Future for Finish<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(future) = &mut self.future else { return Poll::Pending };
        let output = ready!(future.as_mut().poll(context));
        self.future = None;
        Poll::Ready(output)
    }
}

impl<T: Send + 'static> Drop for Finish<T> {
    fn drop(&mut self) {
        // While a runtime shuts down, there is nothing left to run it.
        if let Some(future) = self.future.take()
            && !std::thread::panicking()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            drop(spawn(self.name, OnExit::Done, future));
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rest_of_a_dropped_call_runs_to_its_end() {
        let (go, gate) = tokio::sync::oneshot::channel::<()>();
        let (done, ended) = tokio::sync::oneshot::channel();
        let mut call = Box::pin(finish("call", async move {
            let _ = gate.await;
            let _ = done.send(());
        }));
        assert!(poll_once(call.as_mut()).is_pending());
        drop(call);
        go.send(()).unwrap();
        ended.await.unwrap();
    }

    fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(std::task::Waker::noop()))
    }
}
