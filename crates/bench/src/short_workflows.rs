//! Workflows of three steps, one after the other and by concurrent clients: the load of `bench/peers` with `--steps 3`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rota_proto::{names, v1};
use rota_telemetry::{OnExit, spawn};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use crate::plane::{NAMESPACE, Workers, task};
use crate::report::Latency;

pub(crate) const STEPS: usize = 3;
/// Workflows that are measured one after the other.
const TIMED_WORKFLOWS: usize = 300;
/// Limit of the time until a workflow has ended, or all of them after the last creation.
const END_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, Serialize)]
pub(crate) struct ShortWorkflows {
    steps: usize,
    /// Workflows created per second by concurrent clients, each of which waits for the commit, until the end of the last one is
    /// durable.
    completed_per_second: f64,
    created_per_second: f64,
    /// Latency of the call that creates a workflow, under this load.
    creation: Latency,
    /// Time from that call to the end of the attempt of the last step, on an idle system.
    last_step_idle: Latency,
}

/// Returns a workflow whose steps need the ones before them as the graph has it.
pub(crate) fn request(graph: &[Vec<usize>]) -> v1::CreateWorkflowRequest {
    let spec = task().task.and_then(|task| task.spec).unwrap_or_default();
    let name = |index: usize| format!("s{index}");
    let step = |(index, needs): (usize, &Vec<usize>)| v1::WorkflowStep {
        name: name(index),
        needs: needs.iter().map(|need| v1::StepNeed { step: name(*need), ..Default::default() }).collect(),
        kind: Some(v1::workflow_step::Kind::Task(spec.clone())),
        ..Default::default()
    };
    let spec = v1::WorkflowSpec { steps: graph.iter().enumerate().map(step).collect(), ..Default::default() };
    v1::CreateWorkflowRequest {
        parent: names::namespace(NAMESPACE),
        workflow: Some(v1::Workflow { spec: Some(spec), ..Default::default() }),
        ..Default::default()
    }
}

/// Waits for the end of a workflow, which must be a success.
pub(crate) async fn succeeded(workers: &Workers, name: String) -> Result<()> {
    let request = v1::WatchWorkflowRequest { name, without_steps: true };
    let mut changes = workers.client.watch_workflow(request).await?;
    let mut state = v1::WorkflowState::Unspecified;
    while let Some(change) = changes.message().await? {
        let status = change.workflow.and_then(|workflow| workflow.status);
        state = status.map_or(state, |status| status.state());
    }
    ensure!(state == v1::WorkflowState::Succeeded, "the workflow ended in state {}", state.as_str_name());
    Ok(())
}

impl ShortWorkflows {
    pub(crate) async fn measure(workers: &Workers, clients: usize, span: Duration) -> Result<Self> {
        let chain: Vec<Vec<usize>> =
            (0..STEPS).map(|index| index.checked_sub(1).into_iter().collect()).collect();
        let last_step_idle = one_at_a_time(workers, &chain).await?;
        let before = workers.attempts.done();
        let start = Instant::now();
        let mut callers = Vec::new();
        for _ in 0..clients {
            let (client, request) = (workers.client.clone(), request(&chain));
            callers.push(spawn("bench-client", OnExit::Done, async move {
                let mut times = Vec::new();
                while start.elapsed() < span {
                    let at = Instant::now();
                    client.create_workflow(request.clone()).await?;
                    times.push(at.elapsed());
                }
                anyhow::Ok(times)
            }));
        }
        let mut creation = Latency::new();
        for caller in callers {
            caller.await??.into_iter().for_each(|time| creation.record(time));
        }
        let creating = start.elapsed().as_secs_f64();
        let attempts = before + creation.count() * STEPS as u64;
        timeout(END_TIMEOUT, settled(workers, attempts))
            .await
            .context("the workflows did not end in time")??;
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        let count = creation.count() as f64;
        Ok(Self {
            steps: STEPS,
            completed_per_second: count / start.elapsed().as_secs_f64(),
            created_per_second: count / creating,
            creation,
            last_step_idle,
        })
    }
}

async fn one_at_a_time(workers: &Workers, chain: &[Vec<usize>]) -> Result<Latency> {
    let mut latency = Latency::new();
    for _ in 0..TIMED_WORKFLOWS {
        let attempts = workers.attempts.done() + STEPS as u64;
        let start = Instant::now();
        let run = async {
            let created = workers.client.create_workflow(request(chain)).await?;
            workers.attempts.reach(attempts).await?;
            latency.record(start.elapsed());
            // Nothing of it is left to commit when the next one is created: the system is idle.
            succeeded(workers, created.name).await
        };
        timeout(END_TIMEOUT, run).await.context("a workflow did not end in time")??;
    }
    Ok(latency)
}

/// Waits until a number of attempts have finished, and the ends of all workflows are durable.
async fn settled(workers: &Workers, attempts: u64) -> Result<()> {
    workers.attempts.reach(attempts).await?;
    // All attempts have run; the results of the last ones may still be in flight.
    let states = vec![v1::WorkflowState::Running.into()];
    let filter = v1::WorkflowFilter { states, ..Default::default() };
    for workflow in workers.client.all_workflows(&names::namespace(NAMESPACE), filter).await? {
        succeeded(workers, workflow.name).await?;
    }
    Ok(())
}
