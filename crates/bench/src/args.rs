//! Command line of `rota bench`, which `rota` and `rota-bench` share.

use anyhow::Result;
use clap::{Args, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::control_plane::Serve;
use crate::dispatch::Dispatch;
use crate::idle::Idle;
use crate::load::Load;
use crate::prune::Prune;
use crate::queue::Queue;
use crate::replicas::Replicas;
use crate::scenario::{self, Outcome};
use crate::snapshot::Snapshot;
use crate::watchers::Watchers;
use crate::workflow::Workflow;

/// Benchmark a control plane on this machine
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  rota bench dispatch
  rota bench load --workers 1000 --slots 1 --every 5ms
  rota bench idle --workers 10000
  rota bench queue --tasks 1000000
  rota bench watchers --watchers 100
  rota bench workflow --steps 10000
  rota bench replicas --store postgres://me@localhost/bench

Compare values only with others of the same machine and disk, interleaved in time: --against PROGRAM does that with another \
build, in the order A B B A. A table shows the minimum, median and maximum of all rounds; -o json has all values, with each \
latency as an HDR histogram (`hdr`: V2 compressed, in base64).")]
pub struct Bench {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// Measure task throughput and dispatch latency
    Dispatch(Dispatch),
    /// Measure dispatch latency while tasks arrive at a fixed rate
    Load(Load),
    /// Measure the cost of idle workers, and how soon all are back after a restart
    Idle(Idle),
    /// Measure dispatch from a deep queue, compared with a short one
    Queue(Queue),
    /// Measure task throughput with watchers of all tasks, compared with none
    Watchers(Watchers),
    /// Measure steps of workflows per second, compared with plain tasks
    Workflow(Workflow),
    /// Measure calls that a replica on PostgreSQL passes on, and takeovers
    Replicas(Replicas),
    /// Measure commits on PostgreSQL under a snapshot that stays open, compared with none
    Snapshot(Snapshot),
    /// Measure a long log on PostgreSQL while most of it is removed, and whether its space is used again
    Prune(Prune),
    #[command(hide = true)]
    ControlPlane(Serve),
}

impl Bench {
    /// Runs the benchmark, and calls `report` with each step. Returns nothing for a control plane of a benchmark.
    pub async fn run(self, report: &dyn Fn(&str)) -> Result<Option<Outcome>> {
        // Thousands of connections, here and in the control plane.
        let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
        let outcome = match self.benchmark {
            Benchmark::Dispatch(options) => Box::pin(scenario::run(&options, report)).await,
            Benchmark::Load(options) => Box::pin(scenario::run(&options.with_interval()?, report)).await,
            Benchmark::Idle(options) => Box::pin(scenario::run(&options, report)).await,
            Benchmark::Queue(options) => Box::pin(scenario::run(&options, report)).await,
            Benchmark::Watchers(options) => Box::pin(scenario::run(&options, report)).await,
            Benchmark::Workflow(options) => Box::pin(scenario::run(&options, report)).await,
            Benchmark::Replicas(options) => Box::pin(scenario::run(&options, report)).await,
            Benchmark::Snapshot(options) => Box::pin(scenario::run(&options, report)).await,
            Benchmark::Prune(options) => Box::pin(scenario::run(&options, report)).await,
            Benchmark::ControlPlane(serve) => return Box::pin(serve.run()).await.map(|()| None),
        };
        outcome.map(Some)
    }
}
