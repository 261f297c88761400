//! People who answer questions, and a worker that refuses everything, for the whole time of a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use rota_client::Client;
use rota_proto::v1::{self, TaskState};
use rota_telemetry::{OnExit, spawn};
use rota_testkit::raw::{RawWorker, hello};
use rota_testkit::tasks;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Time between two looks for questions, and between two connections of the worker.
const PAUSE: Duration = Duration::from_millis(300);

/// Runs until it is dropped.
pub(crate) struct Background {
    pub(crate) answers: Arc<AtomicUsize>,
    pub(crate) rejections: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Background {
    /// Starts with clients of a person and of the worker `name` of `agent`.
    pub(crate) fn start(person: Client, worker: Client, agent: &'static str, name: &'static str) -> Self {
        let stop = CancellationToken::new();
        let (answers, rejections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (answered, rejected) = (Arc::clone(&answers), Arc::clone(&rejections));
        let answering = stop.clone();
        spawn("answer", OnExit::Done, async move {
            // Errors are those of the faults: the control plane is away, the task has ended.
            let forever = async {
                loop {
                    let _ = answer(&person, &answered).await;
                    tokio::time::sleep(PAUSE).await;
                }
            };
            tokio::select! { () = answering.cancelled() => {}, () = forever => {} }
        });
        let rejecting = stop.clone();
        spawn("reject", OnExit::Done, async move {
            let forever = async {
                loop {
                    let _ = reject(&worker, agent, name, &rejected).await;
                    tokio::time::sleep(PAUSE).await;
                }
            };
            tokio::select! { () = rejecting.cancelled() => {}, () = forever => {} }
        });
        Self { answers, rejections, _stop: stop.drop_guard() }
    }
}

/// Answers every open question once.
async fn answer(client: &Client, answered: &AtomicUsize) -> Result<()> {
    let states = vec![i32::from(TaskState::InputRequired)];
    let filter = Some(v1::TaskFilter { states, ..Default::default() });
    let parent = rota_proto::names::namespace(tasks::NAMESPACE);
    let request = v1::ListTasksRequest { parent, filter, ..Default::default() };
    for task in client.all_tasks(request, None).await? {
        for question in task.status.unwrap_or_default().pending_input {
            let input =
                v1::TaskInput { request_id: question.request_id, text: "yes".into(), ..Default::default() };
            let request = v1::SendTaskInputRequest { name: task.name.clone(), input: Some(input) };
            if client.send_task_input(request).await.is_ok() {
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

/// Rejects assignments until the session ends.
async fn reject(client: &Client, agent: &str, name: &str, rejected: &AtomicUsize) -> Result<()> {
    let mut worker = RawWorker::join(client, hello(agent, name, 2)).await?;
    loop {
        let assign = worker.next_assignment().await?;
        worker.reject(&assign, "not today");
        rejected.fetch_add(1, Ordering::Relaxed);
    }
}
