//! Workflows with tasks that fail at random, while the control plane is killed again and again. A run fails if a rule was violated,
//! or if a step is not in the state that follows from the ends of the tasks. `make chaos-workflows` runs 10,000 steps of each shape.

mod shapes;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rota_client::Client;
use rota_proto::v1::{self, OnStepFailure, WorkflowState, script_step::Kind as Script, workflow_step};
use rota_testkit::{group_history, history, tasks, workflow_history};
use tokio::time::{sleep, timeout};

use self::shapes::{RELEASE, Shape, free, task};
use super::load::SCRIPTED;
use super::{FIRST, variable};
use crate::process::Process;
use crate::{Fixture, Graces};

/// Environment variable: the number of steps of each workflow.
const STEPS: &str = "ROTA_CHAOS_STEPS";
const DEFAULT_STEPS: usize = 200;
/// Steps that shapes have besides: one that waits for a signal, and those of `finally`.
const MORE_STEPS: usize = 10;
const DEFAULT_KILLS: usize = 2;
/// Kills of the control plane in each of the large workflows.
const KILLS: usize = 5;
const SLOTS: usize = 32;
/// Limit of the time until a step of a workflow ends, on a busy machine.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);

/// A control plane with workers.
struct World {
    fixture: Fixture,
    client: Client,
    random: StdRng,
    _workers: Vec<Process>,
}

impl World {
    async fn start(seed: u64) -> Result<Self> {
        let fixture = Fixture::start(Graces::LONG).await?;
        let client = fixture.client()?;
        tasks::agent(&client, SCRIPTED, tasks::script([]), &[]).await?;
        let mut workers = Vec::new();
        for name in ["echo-0", "echo-1"] {
            workers.push(fixture.worker(SCRIPTED, name, SLOTS).await?);
        }
        Ok(Self { fixture, client, random: StdRng::seed_from_u64(seed), _workers: workers })
    }

    async fn create(&self, spec: v1::WorkflowSpec) -> Result<String> {
        let workflow = v1::Workflow { spec: Some(spec), ..Default::default() };
        let parent = rota_proto::names::namespace(tasks::NAMESPACE);
        let request = v1::CreateWorkflowRequest { parent, workflow: Some(workflow), ..Default::default() };
        Ok(self.client.create_workflow(request).await?.name)
    }

    /// Kills the control plane and starts it again, after a while.
    async fn kill(&mut self) -> Result<()> {
        self.fixture.kill_server().await;
        sleep(Duration::from_millis(self.random.random_range(0..300))).await;
        self.fixture.start_server().await
    }

    /// Waits until a workflow meets a condition, as its changes are pushed. Returns its status.
    async fn until(
        &self,
        name: &str,
        limit: Duration,
        holds: impl Fn(&v1::WorkflowStatus) -> bool,
    ) -> Result<v1::WorkflowStatus> {
        let wait = async {
            let request = v1::WatchWorkflowRequest { name: name.to_owned(), ..Default::default() };
            let mut changes = self.client.watch_workflow(request).await?;
            while let Some(change) = changes.message().await? {
                let status = change.workflow.and_then(|workflow| workflow.status).unwrap_or_default();
                if holds(&status) {
                    return Ok(status);
                }
            }
            anyhow::bail!("{name} ended without meeting the condition")
        };
        timeout(limit, wait).await.with_context(|| format!("{name} did not continue in time"))?
    }

    /// Lets the steps run that wait for the signal.
    async fn release(&self, name: &str) -> Result<()> {
        let (name, signal) = (name.to_owned(), RELEASE.to_owned());
        let request = v1::SignalWorkflowRequest { name, signal, ..Default::default() };
        self.client.signal_workflow(request).await?;
        Ok(())
    }

    async fn ended(&self, name: &str, limit: Duration) -> Result<v1::WorkflowStatus> {
        self.until(name, limit, |status| status.end_time.is_some()).await
    }
}

fn ended_steps(status: &v1::WorkflowStatus) -> usize {
    let counts = status.counts.unwrap_or_default();
    usize::try_from(counts.succeeded + counts.failed + counts.skipped).unwrap_or_default()
}

/// Executes a workflow of a shape. Fails unless each kill has met it before its end, half of them its compensations, if it has any.
async fn run(world: &mut World, shape: Shape, steps: usize, kills: usize) -> Result<()> {
    let spec = shape.spec(steps, &mut world.random);
    let name = world.create(spec).await?;
    let limit = STEP_TIMEOUT * u32::try_from(steps)?;
    for part in 0..kills {
        // At any time between two equal parts, the first right after the creation.
        let (free, compensates) = (free(steps), shape.compensates() && part >= kills / 2);
        let at = free * part / kills + world.random.random_range(0..free / kills / 2 + 1);
        if compensates && part == kills / 2 {
            world.release(&name).await?;
        }
        let meets = |status: &v1::WorkflowStatus| match compensates {
            true => status.state() == WorkflowState::Compensating,
            false => ended_steps(status) >= at && status.end_time.is_none(),
        };
        world.until(&name, limit, meets).await?;
        world.kill().await?;
        let after = world.until(&name, limit, |_| true).await?;
        let is_under_way =
            if compensates { after.state() == WorkflowState::Compensating } else { after.end_time.is_none() };
        ensure!(is_under_way, "{shape:?}: kill {part} came too late: {after:?}");
    }
    if !shape.compensates() {
        world.release(&name).await?;
    }
    let status = world.ended(&name, limit).await?;
    let total = usize::try_from(status.counts.unwrap_or_default().total)?;
    ensure!(shape.stops() || ended_steps(&status) == total, "{shape:?}: {status:?}");
    let found = workflow_history::check(&world.client, &name).await?;
    found.check().with_context(|| format!("{shape:?}"))?;
    ensure!(found.states.contains_key("STEP_STATE_FAILED"), "no step has failed: {found:?}");
    println!("{shape:?}, {kills} kills: {} attempts, {:?}", found.attempts, found.states);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_end_as_their_tasks_do() -> Result<()> {
    let steps = variable(STEPS, DEFAULT_STEPS as u64)?;
    let kills = if steps > DEFAULT_STEPS as u64 { KILLS } else { DEFAULT_KILLS };
    let seed = variable(FIRST, 1)?;
    let mut world = World::start(seed).await?;
    for shape in Shape::ALL {
        run(&mut world, shape, usize::try_from(steps)? - MORE_STEPS, kills).await?;
    }
    let groups = group_history::check(&world.client).await?;
    groups.check()?;
    ensure!(groups.attempts > 0, "no step was in a group");
    history::check(&world.client, true).await?.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn fan_out_survives_kills() -> Result<()> {
    const ITEMS: usize = 1000;
    let mut world = World::start(1).await?;
    let mut each = task(0.0);
    let steps = [Script::Succeed("${{ item }}".to_owned())];
    each.runtime = Some(tasks::script(steps));
    let mut last = each.clone();
    // In the order of the list.
    let text = "${{ steps.each.results.map(r, int(r.text)) == inputs.items ? 'all' : 'other' }}";
    last.runtime = Some(tasks::script([Script::Succeed(text.to_owned())]));
    let step = |name: &str, task: v1::TaskSpec| v1::WorkflowStep {
        name: name.to_owned(),
        kind: Some(workflow_step::Kind::Task(Box::new(task))),
        ..Default::default()
    };
    let for_each =
        Some(v1::ForEach { items: "inputs.items".to_owned(), max_parallel: 40, ..Default::default() });
    let needs = vec![v1::StepNeed { step: "each".to_owned(), ..Default::default() }];
    let steps = vec![
        v1::WorkflowStep { for_each, ..step("each", each) },
        v1::WorkflowStep { needs, ..step("last", last) },
    ];
    let inputs = serde_json::json!({ "items": (0..ITEMS).collect::<Vec<_>>() });
    let inputs = Some(serde_json::from_value(inputs)?);
    let outputs = [("text".to_owned(), "${{ steps.last.result.text }}".to_owned())].into();
    let on_failure = OnStepFailure::SkipDependents.into();
    let spec = v1::WorkflowSpec { steps, inputs, outputs, on_failure, ..Default::default() };
    let name = world.create(spec).await?;
    for part in 1..=2 {
        let at = ITEMS * part / 3;
        tasks::eventually("tasks of the list", async || {
            let steps = world.client.all_workflow_steps(&name).await?;
            Ok(usize::try_from(steps[0].tasks_succeeded)? >= at)
        })
        .await?;
        world.kill().await?;
    }
    let status = world.ended(&name, tasks::WAIT_TIMEOUT).await?;
    ensure!(status.state() == v1::WorkflowState::Succeeded, "{status:?}");
    let ended = world.client.get_workflow(v1::GetWorkflowRequest { name: name.clone() }).await?;
    let outputs = serde_json::to_value(ended.status.unwrap_or_default().outputs)?;
    assert_eq!(outputs["text"], "all");
    workflow_history::check(&world.client, &name).await?.check()?;
    history::check(&world.client, true).await?.check()
}
