//! The store alone: concurrent task lifecycles, each step awaited, without gRPC and dispatch.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use rota_core::agent::Agent;
use rota_core::target::Target;
use rota_core::task::{self, AttemptRef, Completion, Task, WorkerRef};
use rota_core::{Namespace, TaskId, Timestamp, WorkerName};
use rota_proto::framing;
use rota_store::{Command, Create, OpenSession, PutAgent, Reply, Store};
use rota_telemetry::{OnExit, spawn};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::plane::NAMESPACE;
use crate::report::Latency;

/// Name of the worker, and of its agent.
pub(crate) const WORKER: &str = "raw";

/// Records of the tasks, and calls of the store for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Records {
    /// The least that a task can be: for a worker by name, accepted and ended in one call.
    Least,
    /// Those that the control plane makes of the same tasks: for an agent with so many workers, with an encoded specification,
    /// accepted without urgency and ended by a call of its own.
    Whole { workers: usize },
}

/// Callers of a store, whose tasks have workers of one agent.
pub(crate) struct Callers {
    store: Arc<dyn Store>,
    namespace: Namespace,
    records: Records,
    workers: Vec<WorkerRef>,
    /// Receives the commits, as a control plane does.
    reader: JoinHandle<()>,
}

impl Callers {
    /// Opens the sessions of the workers.
    pub(crate) async fn start(store: Arc<dyn Store>, records: Records) -> Result<Self> {
        let mut commits = store.commits();
        let reader = spawn("bench-commits", OnExit::Done, async move {
            while let Some(commits) = &mut commits
                && commits.recv().await.is_some()
            {}
        });
        let namespace: Namespace = NAMESPACE.parse()?;
        let count = match records {
            Records::Least => 1,
            Records::Whole { workers } => {
                store.apply(vec![put_agent(&namespace)?]).await?;
                workers.max(1)
            }
        };
        let mut workers = Vec::with_capacity(count);
        for number in 0..count {
            let worker: WorkerName = format!("{WORKER}-{number}").parse()?;
            let opened = store.apply(vec![open_session(&namespace, worker.clone())?]).await?;
            let Some(Ok(Reply::Session(epoch, _))) = opened.into_iter().next() else { bail!("no session") };
            workers.push(WorkerRef { worker, epoch });
        }
        Ok(Self { store, namespace, records, workers, reader })
    }

    /// Runs task lifecycles, `concurrency` at a time, until there are enough. Returns their number, and the latency of the commits
    /// that create tasks.
    pub(crate) async fn run(
        &self,
        concurrency: usize,
        enough: impl Fn() -> bool + Clone + Send + 'static,
    ) -> Result<(u64, Latency)> {
        let (records, payload) = (self.records, payload()?);
        let mut callers = Vec::new();
        for by in self.workers.iter().cycle().take(concurrency) {
            let (store, namespace, by) = (Arc::clone(&self.store), self.namespace.clone(), by.clone());
            let (enough, payload) = (enough.clone(), payload.clone());
            callers.push(spawn("bench-caller", OnExit::Done, async move {
                let (mut count, mut creation) = (0_u64, Latency::new());
                while !enough() {
                    creation.record(match records {
                        Records::Least => life(&*store, &namespace, &by).await?,
                        Records::Whole { .. } => whole_life(&*store, &namespace, &by, &payload).await?,
                    });
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
pub(crate) async fn lives(
    store: Arc<dyn Store>,
    concurrency: usize,
    span: Duration,
    records: Records,
) -> Result<f64> {
    let callers = Callers::start(store, records).await?;
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

/// As [`life`], with the records and calls of the control plane.
async fn whole_life(
    store: &dyn Store,
    namespace: &Namespace,
    by: &WorkerRef,
    payload: &Bytes,
) -> Result<Duration> {
    let id = TaskId(uuid::Uuid::now_v7());
    let task = Task::new(id, namespace.clone(), Target::Agent(WORKER.parse()?));
    let began = Instant::now();
    let made = store.apply(vec![create_of(task, payload.clone(), by)]).await?;
    let creation = began.elapsed();
    let Some(Ok(Reply::Created(made))) = made.into_iter().next() else { bail!("not created") };
    let attempt = AttemptRef { by: by.clone(), fence: made.fence };
    let [accept, finish] = end(made.id, namespace, &attempt);
    let ends = (store.apply_lazily(vec![accept]), store.apply(vec![finish]));
    let (accepted, finished) = tokio::try_join!(ends.0, ends.1)?;
    if accepted.iter().chain(&finished).any(Result::is_err) {
        bail!("not finished");
    }
    Ok(creation)
}

/// Returns the specification of the tasks that the control plane is measured with, as it stores them.
fn payload() -> Result<Bytes> {
    let spec = crate::plane::task().task.and_then(|task| task.spec).context("no specification")?;
    Ok(Bytes::from(framing::encode(&spec)).slice(framing::PREFIX..))
}

fn put_agent(namespace: &Namespace) -> Result<Command> {
    let agent = Agent {
        namespace: namespace.clone(),
        name: WORKER.parse()?,
        generation: 0,
        capabilities: [].into(),
        defaults: task::Limits::default(),
        budget: Default::default(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        payload: Bytes::new(),
    };
    Ok(Command::PutAgent(PutAgent { agent, must_exist: None }))
}

/// Returns the command that opens the session of a worker.
pub(crate) fn open_session(namespace: &Namespace, worker: WorkerName) -> Result<Command> {
    Ok(Command::OpenSession(OpenSession {
        namespace: namespace.clone(),
        worker,
        agent: WORKER.parse()?,
        instance: WORKER.to_owned(),
        replica: "bench".to_owned(),
        running: Vec::new(),
        last: None,
        takes_name: true,
    }))
}

/// Returns the command that creates a task and assigns it to a worker.
pub(crate) fn create(id: uuid::Uuid, namespace: &Namespace, by: &WorkerRef) -> Command {
    let task = Task {
        title: "nothing".to_owned(),
        agent_known: true,
        ..Task::new(TaskId(id), namespace.clone(), Target::Worker(by.worker.clone()))
    };
    create_of(task, Bytes::from_static(b"nothing"), by)
}

fn create_of(task: Task, payload: Bytes, by: &WorkerRef) -> Command {
    Command::Create(Box::new(Create {
        task,
        payload,
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
