//! The store alone: concurrent task lifecycles, each step awaited, without gRPC and dispatch.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use rota_core::target::Target;
use rota_core::task::{self, AttemptRef, Completion, Task, WorkerRef};
use rota_core::{AgentName, Namespace, TaskId, WorkerName};
use rota_store::{Command, Create, OpenSession, Reply, Store};
use rota_telemetry::{OnExit, spawn};
use tokio::time::Instant;

use crate::plane::{NAMESPACE, open};

/// Returns task lifecycles per second.
pub(crate) async fn lives(folder: &Path, concurrency: usize, span: Duration) -> Result<f64> {
    let store = open(folder)?;
    let mut commits = store.commits();
    let reader = spawn("bench-commits", OnExit::Done, async move {
        while let Some(commits) = &mut commits
            && commits.recv().await.is_some()
        {}
    });
    let namespace: Namespace = NAMESPACE.parse()?;
    let worker: WorkerName = "raw".parse()?;
    let agent: AgentName = "raw".parse()?;
    let opened = store
        .apply(vec![Command::OpenSession(OpenSession {
            namespace: namespace.clone(),
            worker: worker.clone(),
            agent,
            instance: "raw".to_owned(),
            replica: "bench".to_owned(),
            running: Vec::new(),
            last: None,
        })])
        .await?;
    let Some(Ok(Reply::Session(epoch, _))) = opened.into_iter().next() else { bail!("no session") };
    let by = WorkerRef { worker, epoch };
    let start = Instant::now();
    let mut callers = Vec::new();
    for _ in 0..concurrency {
        let (store, namespace, by) = (Arc::clone(&store), namespace.clone(), by.clone());
        callers.push(spawn("bench-caller", OnExit::Done, async move {
            let mut count = 0_u64;
            while start.elapsed() < span {
                if life(&*store, &namespace, &by).await.is_err() {
                    break;
                }
                count += 1;
            }
            count
        }));
    }
    let mut total = 0;
    for caller in callers {
        total += caller.await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    store.close().await;
    reader.abort();
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let rate = total as f64 / seconds;
    Ok(rate)
}

async fn life(store: &dyn Store, namespace: &Namespace, by: &WorkerRef) -> Result<()> {
    let task = Task {
        title: "nothing".to_owned(),
        agent_known: true,
        ..Task::new(TaskId(uuid::Uuid::now_v7()), namespace.clone(), Target::Worker(by.worker.clone()))
    };
    let id = task.id;
    let create = Create {
        task,
        payload: bytes::Bytes::from_static(b"nothing"),
        secrets: None,
        key: None,
        foreign_id: false,
        strict: false,
        offer: Some(by.clone()),
    };
    let made = store.apply(vec![Command::Create(Box::new(create))]).await?;
    let Some(Ok(Reply::Created(made))) = made.into_iter().next() else { bail!("not created") };
    let attempt = AttemptRef { by: by.clone(), fence: made.fence };
    let one = |command| Command::Task { namespace: namespace.clone(), id, command };
    let finish = task::Command::Finish {
        attempt: attempt.clone(),
        completion: Completion::Succeeded(None),
        usage: None,
        session: String::new(),
        jitter: 0.5,
    };
    let done = store.apply(vec![one(task::Command::Accept(attempt)), one(finish)]).await?;
    if done.iter().any(Result::is_err) {
        bail!("not finished");
    }
    Ok(())
}
