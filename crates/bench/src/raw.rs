//! The store alone: concurrent task lifecycles, each step awaited, without gRPC and dispatch.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use rota_core::target::Target;
use rota_core::task::{self, AttemptRef, Completion, Task, WorkerRef};
use rota_core::{Namespace, TaskId};
use rota_store::{Command, Create, OpenSession, Reply, Store};
use rota_telemetry::{OnExit, spawn};
use tokio::time::Instant;

use crate::plane::NAMESPACE;

/// Name of the worker, and of its agent.
pub(crate) const WORKER: &str = "raw";

/// Returns task lifecycles per second.
pub(crate) async fn lives(store: Arc<dyn Store>, concurrency: usize, span: Duration) -> Result<f64> {
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
    let start = Instant::now();
    let mut callers = Vec::new();
    for _ in 0..concurrency {
        let (store, namespace, by) = (Arc::clone(&store), namespace.clone(), by.clone());
        callers.push(spawn("bench-caller", OnExit::Done, async move {
            let mut count = 0_u64;
            while start.elapsed() < span {
                life(&*store, &namespace, &by).await?;
                count += 1;
            }
            anyhow::Ok(count)
        }));
    }
    let mut total = 0;
    for caller in callers {
        total += caller.await??;
    }
    let seconds = start.elapsed().as_secs_f64();
    store.close().await;
    reader.abort();
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let rate = total as f64 / seconds;
    Ok(rate)
}

async fn life(store: &dyn Store, namespace: &Namespace, by: &WorkerRef) -> Result<()> {
    let id = uuid::Uuid::now_v7();
    let made = store.apply(vec![create(id, namespace, by)]).await?;
    let Some(Ok(Reply::Created(made))) = made.into_iter().next() else { bail!("not created") };
    let attempt = AttemptRef { by: by.clone(), fence: made.fence };
    let done = store.apply(end(made.id, namespace, &attempt).into()).await?;
    if done.iter().any(Result::is_err) {
        bail!("not finished");
    }
    Ok(())
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
