//! `rota bench replicas`: two replicas on PostgreSQL. What it costs to be passed on by the one that stands by, and how soon it serves
//! when the owner is stopped or killed.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use nix::sys::signal::Signal;
use rota_client::Client;
use rota_proto::v1;
use rota_telemetry::free_addresses;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use crate::control_plane::ControlPlane;
use crate::metrics::Metric;
use crate::plane::{AGENT, put_agent, task};
use crate::report::Latency;
use crate::scenario::{Common, RoundContext, Scenario};

/// Calls before the measurement: connections are opened by the first.
const FIRST_CALLS: usize = 50;
/// Limit of a call to a replica that may not own the database yet.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const PROBE_PAUSE: Duration = Duration::from_millis(5);
/// Limit of the time until calls succeed again after a takeover.
const SERVE_TIMEOUT: Duration = Duration::from_secs(60);

/// Measure calls that a replica on PostgreSQL passes on, and takeovers
#[derive(Debug, Clone, Args, Serialize)]
#[command(after_long_help = "\
Examples:
  rota bench replicas --store postgres://me@localhost/bench
  rota bench replicas --store postgres://me@localhost/bench --calls 200 --takeovers 1

Two replicas share a database. One client calls the owner, one the replica that stands by and passes its connection on, in the order \
A B B A: a read that is answered from memory, and the creation of a task. Then the owner is stopped by SIGTERM and killed by SIGKILL in \
turns: the time is that from the signal until the other replica, asked again and again, has created a task as the owner. A killed \
one is replaced once its lease of ten seconds is over. No task is executed.")]
pub(crate) struct Replicas {
    /// PostgreSQL database that the benchmark fills with tasks: `postgres://USER@HOST/DATABASE`
    #[arg(long, value_name = "URL")]
    store: String,
    /// Number of calls of each kind by each client
    #[arg(long, value_name = "COUNT", default_value_t = 2000)]
    calls: usize,
    /// Number of takeovers of each kind
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    takeovers: usize,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

#[derive(Debug, Serialize)]
pub(crate) struct Round {
    fsync: Latency,
    direct: Calls,
    passed_on: Calls,
    /// From SIGTERM until the next owner serves.
    stopped: Latency,
    /// From SIGKILL until the next owner serves.
    killed: Latency,
}

#[derive(Debug, Serialize)]
struct Calls {
    read: Latency,
    creation: Latency,
}

impl Scenario for Replicas {
    const NAME: &'static str = "replicas";
    const ROUNDS: u32 = 1;
    const METRICS: &'static [Metric] = &[
        Metric::new("read p50, direct", "ms", "/direct/read/p50_ms"),
        Metric::new("read p50, passed on", "ms", "/passed_on/read/p50_ms"),
        Metric::difference(
            "read p50, passed on - direct",
            "ms",
            "/passed_on/read/p50_ms",
            "/direct/read/p50_ms",
        ),
        Metric::new("read p99, direct", "ms", "/direct/read/p99_ms"),
        Metric::new("read p99, passed on", "ms", "/passed_on/read/p99_ms"),
        Metric::new("creation p50, direct", "ms", "/direct/creation/p50_ms"),
        Metric::new("creation p50, passed on", "ms", "/passed_on/creation/p50_ms"),
        Metric::difference(
            "creation p50, passed on - direct",
            "ms",
            "/passed_on/creation/p50_ms",
            "/direct/creation/p50_ms",
        ),
        Metric::new("creation p99, direct", "ms", "/direct/creation/p99_ms"),
        Metric::new("creation p99, passed on", "ms", "/passed_on/creation/p99_ms"),
        Metric::new("takeover after SIGTERM, p50", "ms", "/stopped/p50_ms"),
        Metric::new("takeover after SIGTERM, maximum", "ms", "/stopped/max_ms"),
        Metric::new("takeover after SIGKILL, p50", "ms", "/killed/p50_ms"),
        Metric::new("takeover after SIGKILL, maximum", "ms", "/killed/max_ms"),
        Metric::new("fsync p50", "ms", "/fsync/p50_ms"),
    ];
    type Round = Round;

    fn common(&self) -> &Common {
        &self.common
    }

    async fn round(&self, round: &RoundContext<'_>) -> Result<Round> {
        let fsync = round.fsync().await?;
        let folder = round.subfolder("replicas")?;
        // Replicas name theirs to each other before they listen.
        let addrs = free_addresses(2).context("no free ports")?;
        let mut owner = self.replica(&folder, addrs[0], 0).await?;
        put_agent(&Client::new(owner.client_options())?, AGENT).await?;
        let mut standby = self.replica(&folder, addrs[1], 1).await?;
        round.progress("calls to the owner, and through the other replica");
        let [direct, passed_on] = Box::pin(self.calls([&owner, &standby])).await?;
        let (mut stopped, mut killed) = (Latency::new(), Latency::new());
        for number in 0..2 * self.takeovers {
            let (signal, latency) = match number % 2 {
                0 => (Signal::SIGTERM, &mut stopped),
                _ => (Signal::SIGKILL, &mut killed),
            };
            round.progress(&format!("takeover {} of {}: {signal}", number + 1, 2 * self.takeovers));
            let began = Instant::now();
            owner.signal(signal)?;
            standby.serves().await?;
            serve(&Client::new(standby.client_options())?).await?;
            latency.record(began.elapsed());
            let addr = owner.addr();
            owner.stop().await?;
            owner = standby;
            standby = self.replica(&folder, addr, number + 2).await?;
        }
        standby.stop().await?;
        owner.stop().await?;
        Ok(Round { fsync, direct, passed_on, stopped, killed })
    }
}

impl Replicas {
    async fn replica(&self, folder: &Path, addr: SocketAddr, number: usize) -> Result<ControlPlane> {
        ControlPlane::start_replica(folder, addr, &self.store, &format!("replica-{number}")).await
    }

    /// Measures calls to the owner, and through the other replica.
    async fn calls(&self, [owner, standby]: [&ControlPlane; 2]) -> Result<[Calls; 2]> {
        let clients = [Client::new(owner.client_options())?, Client::new(standby.client_options())?];
        let new = || Calls { read: Latency::new(), creation: Latency::new() };
        let mut calls = [new(), new()];
        for number in 0..FIRST_CALLS + self.calls {
            let order = if number.is_multiple_of(2) { [0, 1] } else { [1, 0] };
            for side in order {
                let read = time(read(&clients[side])).await?;
                let creation = Box::pin(time(create(&clients[side]))).await?;
                if number >= FIRST_CALLS {
                    calls[side].read.record(read);
                    calls[side].creation.record(creation);
                }
            }
        }
        Ok(calls)
    }
}

async fn time(call: impl Future<Output = Result<()>>) -> Result<Duration> {
    let began = Instant::now();
    call.await?;
    Ok(began.elapsed())
}

/// Reads what is in the memory of the owner, and is computed for no other call: an agent comes with the demand, which waits.
async fn read(client: &Client) -> Result<()> {
    client.get_log_filter(v1::GetLogFilterRequest {}).await?;
    Ok(())
}

/// Creates a task that waits.
async fn create(client: &Client) -> Result<()> {
    client.tasks().create_task(task()).await?;
    Ok(())
}

/// Waits until a call succeeds. It is not repeated by the client, whose pauses would be measured.
async fn serve(client: &Client) -> Result<()> {
    let served = async {
        while !matches!(timeout(PROBE_TIMEOUT, create(client)).await, Ok(Ok(()))) {
            sleep(PROBE_PAUSE).await;
        }
    };
    timeout(SERVE_TIMEOUT, served).await.context("no call succeeded after a takeover")
}
