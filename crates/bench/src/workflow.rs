//! `rota bench workflow`: steps per second of workflows, next to the same graph of plain tasks that depend on each other.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rota_proto::{names, v1};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use crate::dispatch::settled;
use crate::metrics::Metric;
use crate::plane::{AGENT, NAMESPACE, Plane, Workers, open_at, task};
use crate::report::Latency;
use crate::scenario::{Common, RoundContext, Scenario};
use crate::short_workflows::{ShortWorkflows, request, succeeded};

/// Largest batch that the API accepts.
const BATCH: usize = 1000;
/// Steps of the workflows whose rate is compared with that of large ones.
const SMALL: usize = 100;
/// Small workflows that are measured one after the other.
const SMALL_RUNS: usize = 5;
/// Steps before a step of a random graph that it may need.
const REACH: usize = 100;
const MAX_NEEDS: usize = 3;
/// Limit of the time until a graph has ended.
const RUN_TIMEOUT: Duration = Duration::from_secs(600);

/// Measure steps of workflows per second, compared with plain tasks
#[derive(Debug, Clone, Args, Serialize)]
#[command(after_long_help = "\
Examples:
  rota bench workflow
  rota bench workflow --steps 10000 --rounds 5
  rota bench workflow --store postgres://me@localhost/bench

Each round executes three graphs: a chain, in which each step needs the one before; a wide one, in which all need the first; and \
a random one, in which each needs up to three of the hundred before it. Each graph is executed as a workflow and as plain tasks \
that depend on each other, in alternating order, and by small workflows of 100 steps one after the other. The time counts from \
the call that creates the first task until the end of the last one is durable. The control plane, its client and its workers \
share this process. Last, workflows of three steps are created by concurrent clients, each of which waits for the commit of its \
creation before the next one.")]
pub(crate) struct Workflow {
    /// Number of steps of each graph
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(100..=10_000))]
    steps: u16,
    /// Seed of the random graph
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Number of workers, each with a connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    workers: usize,
    /// Number of concurrent attempts per worker
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    slots: usize,
    /// Number of clients that create workflows of three steps
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    clients: usize,
    /// Duration of the load of workflows of three steps, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u64,
    /// PostgreSQL database that the benchmark fills with tasks, instead of a new file: `postgres://USER@HOST/DATABASE`
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<String>,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

/// Values of one round, all on the same store.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    fsync: Latency,
    chain: Measured,
    wide: Measured,
    random: Measured,
    short: ShortWorkflows,
}

/// Values of one graph, measured in turns.
#[derive(Debug, Serialize)]
struct Measured {
    steps_per_second: f64,
    tasks_per_second: f64,
    /// Time per step of the workflow, divided by that per task.
    time_ratio: f64,
    small_steps_per_second: f64,
    /// Time per step of the workflow, divided by that of small ones.
    growth: f64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    Chain,
    Wide,
    Random,
}

/// For each step, the steps before it that it needs.
type Graph = Vec<Vec<usize>>;

impl Shape {
    pub(crate) fn graph(self, steps: usize, seed: u64) -> Graph {
        let mut random = StdRng::seed_from_u64(seed);
        let needs = |index: usize| match self {
            _ if index == 0 => Vec::new(),
            Self::Chain => vec![index - 1],
            Self::Wide => vec![0],
            Self::Random => {
                let count = random.random_range(0..=MAX_NEEDS);
                let from = index.saturating_sub(REACH);
                let mut needs: Vec<_> = (0..count).map(|_| random.random_range(from..index)).collect();
                needs.sort_unstable();
                needs.dedup();
                needs
            }
        };
        (0..steps).map(needs).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Chain => "a chain",
            Self::Wide => "a wide graph",
            Self::Random => "a random graph",
        }
    }
}

impl Scenario for Workflow {
    const NAME: &'static str = "workflow";
    const METRICS: &'static [Metric] = &[
        Metric::new("chain: steps", "/s", "/chain/steps_per_second"),
        Metric::new("chain: plain tasks", "/s", "/chain/tasks_per_second"),
        Metric::new("chain: time of a step / a task", "", "/chain/time_ratio"),
        Metric::new("chain: time of a step / with 100 steps", "", "/chain/growth"),
        Metric::new("wide: steps", "/s", "/wide/steps_per_second"),
        Metric::new("wide: plain tasks", "/s", "/wide/tasks_per_second"),
        Metric::new("wide: time of a step / a task", "", "/wide/time_ratio"),
        Metric::new("wide: time of a step / with 100 steps", "", "/wide/growth"),
        Metric::new("random: steps", "/s", "/random/steps_per_second"),
        Metric::new("random: plain tasks", "/s", "/random/tasks_per_second"),
        Metric::new("random: time of a step / a task", "", "/random/time_ratio"),
        Metric::new("random: time of a step / with 100 steps", "", "/random/growth"),
        Metric::new("three steps: workflows", "/s", "/short/completed_per_second"),
        Metric::new("three steps: durable creations", "/s", "/short/created_per_second"),
        Metric::new("three steps: creation p50, under load", "ms", "/short/creation/p50_ms"),
        Metric::new("three steps: creation p99, under load", "ms", "/short/creation/p99_ms"),
        Metric::new("three steps: until the last one p50, idle", "ms", "/short/last_step_idle/p50_ms"),
        Metric::new("three steps: until the last one p99, idle", "ms", "/short/last_step_idle/p99_ms"),
        Metric::new("fsync p50", "ms", "/fsync/p50_ms"),
    ];
    type Round = Round;

    fn common(&self) -> &Common {
        &self.common
    }

    async fn round(&self, round: &RoundContext<'_>) -> Result<Round> {
        let fsync = round.fsync().await?;
        let folder = round.subfolder("plane")?;
        let store = open_at(self.store.as_deref(), &folder).await?;
        let plane = Plane::start(store, &folder, self.workers, self.slots).await?;
        // The first calls open connections and fill caches.
        execute(&plane.workers, &Shape::Chain.graph(SMALL, self.seed), true).await?;
        execute(&plane.workers, &Shape::Chain.graph(SMALL, self.seed), false).await?;
        let chain = self.measure(round, &plane.workers, Shape::Chain).await?;
        let wide = self.measure(round, &plane.workers, Shape::Wide).await?;
        let random = self.measure(round, &plane.workers, Shape::Random).await?;
        round.progress("workflows of three steps");
        let span = Duration::from_secs(self.seconds);
        let short = ShortWorkflows::measure(&plane.workers, self.clients, span).await?;
        plane.stop().await;
        Ok(Round { fsync, chain, wide, random, short })
    }
}

impl Workflow {
    async fn measure(&self, round: &RoundContext<'_>, workers: &Workers, shape: Shape) -> Result<Measured> {
        let (graph, small) = (shape.graph(usize::from(self.steps), self.seed), shape.graph(SMALL, self.seed));
        let mut seconds = [0.0; 2];
        let first = round.number % 2;
        for turn in [first, 1 - first] {
            let workflow = turn == 1;
            round.progress(&format!("{} of {}", shape.name(), if workflow { "steps" } else { "tasks" }));
            seconds[usize::from(workflow)] = execute(workers, &graph, workflow).await?.as_secs_f64();
        }
        let mut small_seconds = 0.0;
        for _ in 0..SMALL_RUNS {
            small_seconds += execute(workers, &small, true).await?.as_secs_f64();
        }
        let steps = f64::from(self.steps);
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        let small_steps_per_second = (SMALL * SMALL_RUNS) as f64 / small_seconds;
        let [tasks_per_second, steps_per_second] = seconds.map(|seconds| steps / seconds);
        Ok(Measured {
            steps_per_second,
            tasks_per_second,
            time_ratio: tasks_per_second / steps_per_second,
            small_steps_per_second,
            growth: small_steps_per_second / steps_per_second,
        })
    }
}

/// Executes a graph as a workflow or as tasks. Returns the time until all results are durable.
async fn execute(workers: &Workers, graph: &Graph, workflow: bool) -> Result<Duration> {
    let before = workers.attempts.done();
    let start = Instant::now();
    let run = async {
        match workflow {
            true => workflow_of(workers, graph, before).await,
            false => tasks_of(workers, graph, before).await,
        }
    };
    timeout(RUN_TIMEOUT, run).await.context("the graph did not end in time")??;
    Ok(start.elapsed())
}

async fn workflow_of(workers: &Workers, graph: &Graph, before: u64) -> Result<()> {
    let created = workers.client.create_workflow(request(graph)).await?;
    workers.attempts.reach(before + graph.len() as u64).await?;
    // The last results may still be in flight. Watching from the start would make the watcher a part of the work.
    succeeded(workers, created.name).await
}

async fn tasks_of(workers: &Workers, graph: &Graph, before: u64) -> Result<()> {
    let ids: Vec<_> = graph.iter().map(|_| uuid::Uuid::now_v7().to_string()).collect();
    let request = |index: usize| {
        let mut request = task();
        request.task_id.clone_from(&ids[index]);
        let spec = request.task.get_or_insert_default().spec.get_or_insert_default();
        let needs = graph[index].iter();
        let depends =
            needs.map(|need| v1::Dependency { task: ids[*need].clone(), ..Default::default() }).collect();
        spec.depends_on = depends;
        request
    };
    let mut service = workers.client.tasks();
    for from in (0..graph.len()).step_by(BATCH) {
        let requests = (from..graph.len().min(from + BATCH)).map(request).collect();
        let batch = v1::BatchCreateTasksRequest {
            parent: names::namespace(NAMESPACE),
            requests,
            ..Default::default()
        };
        for result in service.batch_create_tasks(batch).await?.into_inner().results {
            if !matches!(result.kind, Some(v1::batch_create_tasks_result::Kind::Task(_))) {
                bail!("a task of agent {AGENT} was not created: {result:?}");
            }
        }
    }
    settled(&workers.client, &workers.attempts, before + graph.len() as u64).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_need_earlier_steps() {
        for shape in [Shape::Chain, Shape::Wide, Shape::Random] {
            let graph = shape.graph(1000, 7);
            assert_eq!(graph, shape.graph(1000, 7), "the same for the same seed");
            assert!(graph.iter().enumerate().all(|(index, needs)| needs.iter().all(|need| *need < index)));
        }
        let random = Shape::Random.graph(1000, 7);
        assert!(random.iter().any(|needs| needs.len() == MAX_NEEDS), "{random:?}");
        assert_ne!(random, Shape::Random.graph(1000, 8));
    }
}
