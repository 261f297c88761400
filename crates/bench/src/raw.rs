//! The store alone: concurrent task lifecycles, each step awaited, without gRPC and dispatch.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use rota_core::target::Target;
use rota_core::task::{self, AttemptRef, Completion, Task, WorkerRef};
use rota_core::{Namespace, TaskId};
use rota_store::{Command, Create, OpenSession, Reply, Store};
use rota_telemetry::{OnExit, spawn};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::plane::NAMESPACE;
use crate::report::Latency;

/// Name of the worker, and of its agent.
pub(crate) const WORKER: &str = "raw";

/// Callers of a store, whose tasks have one worker.
pub(crate) struct Callers {
    store: Arc<dyn Store>,
    namespace: Namespace,
    by: WorkerRef,
    /// Receives the commits, as a control plane does.
    reader: JoinHandle<()>,
}

impl Callers {
    /// Opens the session of the worker.
    pub(crate) async fn start(store: Arc<dyn Store>) -> Result<Self> {
        let mut commits = store.commits();
        let reader = spawn("bench-commits", OnExit::Done, async move {
            while let Some(commits) = &mut commits
                && commits.recv().await.is_some()
            {}
        });
        let namespace: Namespace = NAMESPACE.parse()?;
        let opened = store.apply(vec![open_session(&namespace)?]).await?;
        let Some(Ok(Reply::Session(epoch, _))) = opened.into_iter().next() else { bail!("no session") };
        let by = WorkerRef { worker: WORKER.parse()?, epoch };
        Ok(Self { store, namespace, by, reader })
    }

    /// Runs task lifecycles, `concurrency` at a time, until there are enough. Returns their number, and the latency of the commits
    /// that create tasks.
    pub(crate) async fn run(
        &self,
        concurrency: usize,
        enough: impl Fn() -> bool + Clone + Send + 'static,
    ) -> Result<(u64, Latency)> {
        let mut callers = Vec::new();
        for _ in 0..concurrency {
            let (store, namespace, by) = (Arc::clone(&self.store), self.namespace.clone(), self.by.clone());
            let enough = enough.clone();
            callers.push(spawn("bench-caller", OnExit::Done, async move {
                let (mut count, mut creation) = (0_u64, Latency::new());
                while !enough() {
                    creation.record(life(&*store, &namespace, &by).await?);
                    count += 1;
                }
                anyhow::Ok((count, creation))
            }));
        }
        let (mut total, mut creation) = (0, Latency::new());
        for caller in callers {
            let (count, own) = caller.await??;
            total += count;
            creation.merge(&own)?;
        }
        Ok((total, creation))
    }

    pub(crate) async fn close(self) {
        self.store.close().await;
        self.reader.abort();
    }
}

/// Returns task lifecycles per second.
pub(crate) async fn lives(store: Arc<dyn Store>, concurrency: usize, span: Duration) -> Result<f64> {
    let callers = Callers::start(store).await?;
    let start = Instant::now();
    let (total, _) = callers.run(concurrency, move || start.elapsed() >= span).await?;
    let seconds = start.elapsed().as_secs_f64();
    callers.close().await;
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let rate = total as f64 / seconds;
    Ok(rate)
}

/// Creates a task and ends it. Returns the latency of its creation.
async fn life(store: &dyn Store, namespace: &Namespace, by: &WorkerRef) -> Result<Duration> {
    let id = uuid::Uuid::now_v7();
    let began = Instant::now();
    let made = store.apply(vec![create(id, namespace, by)]).await?;
    let creation = began.elapsed();
    let Some(Ok(Reply::Created(made))) = made.into_iter().next() else { bail!("not created") };
    let attempt = AttemptRef { by: by.clone(), fence: made.fence };
    let done = store.apply(end(made.id, namespace, &attempt).into()).await?;
    if done.iter().any(Result::is_err) {
        bail!("not finished");
    }
    Ok(creation)
}

/// Returns the command that opens the worker's session.
pub(crate) fn open_session(namespace: &Namespace) -> Result<Command> {
    Ok(Command::OpenSession(OpenSession {
        namespace: namespace.clone(),
        worker: WORKER.parse()?,
        agent: WORKER.parse()?,
        instance: WORKER.to_owned(),
        replica: "bench".to_owned(),
        running: Vec::new(),
        last: None,
    }))
}

/// Returns the command that creates a task and assigns it to a worker.
pub(crate) fn create(id: uuid::Uuid, namespace: &Namespace, by: &WorkerRef) -> Command {
    let task = Task {
        title: "nothing".to_owned(),
        agent_known: true,
        ..Task::new(TaskId(id), namespace.clone(), Target::Worker(by.worker.clone()))
    };
    Command::Create(Box::new(Create {
        task,
        payload: bytes::Bytes::from_static(b"nothing"),
        secrets: None,
        given: Default::default(),
        key: None,
        foreign_id: false,
        strict: false,
        offer: Some(by.clone()),
    }))
}

/// Returns the commands by which a worker accepts an assignment and reports its success.
pub(crate) fn end(id: TaskId, namespace: &Namespace, attempt: &AttemptRef) -> [Command; 2] {
    let one = |command| Command::Task { namespace: namespace.clone(), id, command };
    let finish = task::Command::Finish {
        attempt: attempt.clone(),
        last: 0,
        completion: Completion::Succeeded(None),
        usage: None,
        session: String::new(),
        jitter: 0.5,
    };
    [one(task::Command::Accept(attempt.clone())), one(finish)]
}
