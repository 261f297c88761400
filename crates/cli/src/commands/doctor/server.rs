//! Checks of the control plane, its agents and workers.

use std::time::{Duration, SystemTime};

use rota_client::discover::{Found, Origin};
use rota_client::{Client, Code};
use rota_proto::names;
use rota_proto::v1::{
    Agent, BackgroundTaskState, Breaker, BreakerState, GetSystemStatusRequest, Management, Replica,
    StoreSpace, SystemState, SystemStatus, Worker,
};
use rota_telemetry::clock;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::{Check, claude, isolation, local};
use crate::output::{between, count, duration, moment, time};

/// Timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Clock skew that makes times hard to read.
const SKEW_WARNING: Duration = Duration::from_secs(2);
/// Clock skew that makes tokens and certificates appear expired or not yet valid.
const SKEW_FAILURE: Duration = Duration::from_secs(60);
/// Workers that get no tasks and are named.
const MAX_WORKERS: usize = 10;
/// Free space of the store's volume that is low.
const LOW_SPACE_PERCENT: i64 = 15;
/// The same of a large volume, in bytes.
const LOW_SPACE: i64 = 2 << 30;
/// Store latency that slows everything down.
const SLOW_STORE: Duration = Duration::from_secs(1);

/// Control plane that has responded.
#[derive(Debug)]
pub struct Reached {
    status: Option<SystemStatus>,
    /// Whether the status is not for this caller.
    is_restricted: bool,
    endpoint: String,
    /// Local time in the middle of the call.
    at: SystemTime,
    /// Duration of the call.
    took: Duration,
}

impl Reached {
    /// Replicas that share the database.
    pub fn replicas(&self) -> &[Replica] {
        self.status.as_ref().map_or(&[], |status| &status.replicas)
    }

    /// Circuit breakers of agents with recent failures.
    pub fn breakers(&self) -> &[Breaker] {
        self.status.as_ref().map_or(&[], |status| &status.breakers)
    }
}

/// Fetches the status of the control plane, or returns the failed check.
pub async fn reach(client: &Client) -> Result<Reached, Check> {
    let began = Instant::now();
    let Ok(answer) = timeout(CALL_TIMEOUT, client.get_system_status(GetSystemStatusRequest {})).await else {
        return Err(timed_out(client.endpoint()).await);
    };
    let took = began.elapsed();
    let now = clock::now();
    let at = now.checked_sub(took / 2).unwrap_or(now);
    let endpoint = client.endpoint().to_owned();
    let hint = |error: &rota_client::Error| error.hint.clone().unwrap_or_default();
    let reached =
        |status, is_restricted| Reached { status, is_restricted, endpoint: endpoint.clone(), at, took };
    match answer {
        Ok(status) => Ok(reached(Some(status), false)),
        // Reachable, but older than this call.
        Err(error) if error.code == Code::Unimplemented => Ok(reached(None, false)),
        // A person with rights in some namespaces.
        Err(error) if error.reason.as_deref() == Some("NAMESPACE_FORBIDDEN") => Ok(reached(None, true)),
        Err(error) if matches!(error.code, Code::Unauthenticated | Code::PermissionDenied) => {
            Err(Check::fail("token", format!("access denied by the control plane: {error}"), hint(&error)))
        }
        Err(error) => {
            let message = error.to_string();
            let hint = if is_plain_text(&message) {
                let plain = endpoint.replacen("https://", "http://", 1);
                format!("the server does not use TLS: use {plain}")
            } else {
                hint(&error)
            };
            Err(Check::fail("connection", message, hint))
        }
    }
}

/// Whether an error comes from a server without TLS, which responds with something that is not a TLS record.
fn is_plain_text(error: &str) -> bool {
    error.contains("InvalidContentType")
}

/// Distinguishes a server that hangs from one that is unreachable.
async fn timed_out(endpoint: &str) -> Check {
    let span = duration(CALL_TIMEOUT);
    match timeout(CALL_TIMEOUT, TcpStream::connect(address(endpoint))).await {
        Ok(Ok(_)) => Check::fail(
            "connection",
            format!("{endpoint} accepts connections but does not respond within {span}"),
            "check on that machine whether the process hangs or is stopped, or another program uses the port",
        ),
        _ => Check::fail(
            "connection",
            format!("no response from {endpoint} within {span}"),
            "check the address, and firewalls on the way",
        ),
    }
}

/// Returns host and port of an endpoint.
fn address(endpoint: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("http", endpoint));
    let host = rest.split('/').next().unwrap_or_default();
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match (has_port, scheme) {
        (true, _) => host.to_owned(),
        (false, "https") => format!("{host}:443"),
        (false, _) => format!("{host}:80"),
    }
}

/// Checks the status that the control plane reported.
pub fn status(reached: &Reached) -> Vec<Check> {
    let how = if reached.endpoint.starts_with("https://") { "over TLS" } else { "without TLS" };
    let mut checks = vec![Check::ok("connection", format!("responds in {} {how}", duration(reached.took)))];
    if reached.is_restricted {
        checks.push(Check::ok("control plane", "reports its status to people with rights in all namespaces"));
        return checks;
    }
    let Some(status) = &reached.status else {
        let hint = "use the same version for server and client";
        checks.push(Check::warn(
            "version",
            "the server is older than this program and does not report its status",
            hint,
        ));
        return checks;
    };
    checks.push(version(&status.version));
    checks.extend(status.server_time.as_ref().map(|server| clocks(moment(server), reached.at, reached.took)));
    let since = time(status.start_time.as_ref());
    let replica = format!("{} started {since}", status.replica);
    match status.state() {
        SystemState::Healthy => checks.push(Check::ok("control plane", format!("{replica}, healthy"))),
        state => {
            let bad = state == SystemState::Error;
            checks.extend(status.causes.iter().map(|cause| {
                let check = if bad { Check::fail } else { Check::warn };
                check("control plane", cause.message.as_str(), cause.hint.as_str())
            }));
            if status.causes.is_empty() {
                checks.push(Check::warn(
                    "control plane",
                    format!("{replica}, not healthy"),
                    "see the control plane's log",
                ));
            }
        }
    }
    if let Some(store) = &status.store {
        let latency = store.latency.as_ref().map_or(Duration::ZERO, |span| {
            Duration::new(u64::try_from(span.seconds).unwrap_or(0), u32::try_from(span.nanos).unwrap_or(0))
        });
        checks.push(match (store.available, store.write_error.as_str()) {
            (false, _) => {
                Check::fail("store", "no response", "see the control plane's log and the store's disk")
            }
            (_, error) if !error.is_empty() => Check::fail(
                "store",
                format!("writes fail: {error}"),
                "check the free space of the store's disk",
            ),
            _ if latency > SLOW_STORE => {
                let message = format!("slow: responds in {}", duration(latency));
                Check::warn("store", message, "check what else uses the store's disk")
            }
            _ => Check::ok("store", format!("responds in {}", duration(latency))),
        });
        checks.extend(store.space.as_ref().map(space));
    }
    let unhealthy: Vec<_> = (status.background_tasks.iter())
        .filter(|one| {
            matches!(
                one.state(),
                BackgroundTaskState::Failing | BackgroundTaskState::Stuck | BackgroundTaskState::Stopped
            )
        })
        .collect();
    if unhealthy.is_empty() && !status.background_tasks.is_empty() {
        checks.push(Check::ok(
            "background tasks",
            format!("all {} are running", status.background_tasks.len()),
        ));
    }
    checks.extend(unhealthy.into_iter().map(|one| {
        let state = one.state().as_str_name().trim_start_matches("BACKGROUND_TASK_STATE_").to_lowercase();
        let message = format!("{} is {state}: {}", one.name, one.error);
        Check::fail("background tasks", message.trim_end_matches(": "), "see the control plane's log")
    }));
    checks
}

fn version(server: &str) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    match server == own {
        true => Check::ok("version", format!("client and server are {own}")),
        false => Check::warn(
            "version",
            format!("the server is {server}, this program {own}"),
            "use the same version; CHANGELOG.md lists the differences",
        ),
    }
}

/// Checks the clock skew, as precisely as the duration of the call allows.
fn clocks(server: SystemTime, local: SystemTime, took: Duration) -> Check {
    let skew = between(server, local).max(between(local, server)).saturating_sub(took / 2);
    let which = if server > local { "ahead" } else { "behind" };
    let message = format!("the server's clock is {} {which}", duration(skew));
    let hint = "synchronize both clocks, for example with NTP";
    match skew {
        _ if skew > SKEW_FAILURE => Check::fail("clock", message, hint),
        _ if skew > SKEW_WARNING => Check::warn("clock", message, hint),
        _ => Check::ok("clock", "in sync with the server"),
    }
}

/// Checks agents and workers of the namespace, and the programs that local workers need.
pub async fn pools(client: &Client, found: &Found, breakers: &[Breaker]) -> Vec<Check> {
    let parent = names::namespace(&found.namespace);
    let listed = async { Ok((client.all_agents(&parent).await?, client.all_workers(&parent, "").await?)) };
    let (agents, workers) = match timeout(CALL_TIMEOUT, listed).await {
        Err(_) => {
            let message = format!("no response from the control plane within {}", duration(CALL_TIMEOUT));
            return vec![Check::fail(
                "agents",
                message,
                "see the control plane's log and `rota admin status`",
            )];
        }
        Ok(Ok(listed)) => listed,
        Ok(Err(error)) => {
            let error: rota_client::Error = error;
            return vec![Check::fail("agents", error.to_string(), error.hint.unwrap_or_default())];
        }
    };
    let mut checks = agents_and_workers(&agents, &workers, breakers);
    // Otherwise the workers are on other machines.
    if found.origin == Origin::Dev {
        checks.extend(local::claude(&claude::programs(&agents, &workers)).await);
    }
    checks.extend(claude::incomplete_providers(&agents));
    checks.extend(claude::incomplete_programs(&agents, &workers));
    checks.extend(isolation::of(&workers));
    checks
}

fn agents_and_workers(agents: &[Agent], workers: &[Worker], breakers: &[Breaker]) -> Vec<Check> {
    if agents.is_empty() {
        return vec![Check::warn(
            "agents",
            "none in this namespace",
            "create one with `rota apply -f agent.yaml`",
        )];
    }
    let mut checks = Vec::new();
    let closed = |agent: &&Agent| {
        let mut open = breakers
            .iter()
            .filter(|one| !matches!(one.state(), BreakerState::Closed | BreakerState::Unspecified));
        let held = agent.status.as_ref().is_some_and(|status| !status.breaker.is_empty());
        !held && !open.any(|one| one.agent == agent.name)
    };
    // Agents with an open breaker are covered by the status of the control plane.
    let agents: Vec<_> = agents.iter().filter(closed).collect();
    for agent in &agents {
        let name = names::last(&agent.name);
        let (spec, status) =
            (agent.spec.clone().unwrap_or_default(), agent.status.clone().unwrap_or_default());
        let waiting = status.queued_tasks;
        let wait =
            if waiting == 1 { "1 task is queued".to_owned() } else { format!("{waiting} tasks are queued") };
        if !status.message.is_empty() {
            let message = format!("{name}: workers fail to start: {}", status.message);
            checks.push(Check::fail("agents", message, format!("see `rota describe agent {name}`")));
        } else if status.workers == 0 && spec.management() == Management::External {
            let message = format!("{name}: no worker is connected and {wait}");
            checks.push(Check::warn(
                "agents",
                message,
                format!("start one with `rota worker --agent {name}`"),
            ));
        } else if waiting > 0 && status.workers == 0 {
            let message = format!("{name}: {wait} and no worker is connected yet");
            let hint = "workers start on demand; if none starts, check that `rota dev` or the operator runs";
            checks.push(Check::warn("agents", message, hint));
        } else if waiting > 0 && none_available(name, workers) {
            let message = format!("{name}: {wait} and its workers take none");
            checks.push(Check::warn("agents", message, "see the checks of workers below"));
        } else if waiting > 0 && status.free_slots == 0 {
            let message = format!("{name}: {wait} and all slots are in use");
            let hint = format!("raise maxReplicas or slots of {name} if this persists; see `rota top`");
            checks.push(Check::warn("agents", message, hint));
        }
    }
    if checks.is_empty() && !agents.is_empty() {
        checks.push(Check::ok("agents", format!("{} with free capacity", agents.len())));
    }
    let lost: Vec<_> =
        workers.iter().filter(|worker| !worker.connected).map(|one| names::last(&one.name)).collect();
    let (connected, slots) =
        (workers.len() - lost.len(), workers.iter().map(|worker| worker.slots).sum::<i32>());
    if lost.is_empty() {
        checks.push(Check::ok("workers", format!("{connected} connected, {}", count(slots, "slot"))));
    } else {
        let are = if lost.len() == 1 { "is" } else { "are" };
        let message = format!("{} {are} not connected: {}", lost.len(), lost.join(", "));
        checks.push(Check::warn(
            "workers",
            message,
            "tasks of lost workers are requeued after the reconnect grace",
        ));
    }
    checks.extend(unavailable(workers));
    checks
}

/// Reports the room of the store.
fn space(space: &StoreSpace) -> Check {
    let free = space.free_bytes.saturating_add(space.reusable_bytes);
    let percent = free.saturating_mul(100) / space.volume_bytes.max(1);
    let message = format!("{} MiB free for records, {percent}% of its volume", free / (1 << 20));
    // As the alert RotaStoreSpaceLow has it.
    let low = (space.volume_bytes / 100 * LOW_SPACE_PERCENT).min(LOW_SPACE);
    match free < low {
        true => Check::warn("store", message, "enlarge the volume, or see `rota admin prune`"),
        false => Check::ok("store", message),
    }
}

/// Why a worker gets no tasks; empty if it gets some.
fn unavailable_reason(worker: &Worker) -> &str {
    if worker.not_ready_reason.is_empty() { &worker.breaker } else { &worker.not_ready_reason }
}

/// Whether an agent has workers, and all of them get no tasks.
fn none_available(agent: &str, workers: &[Worker]) -> bool {
    let serves = |worker: &&Worker| worker.agent == agent && worker.connected && !worker.draining;
    let mut serving = workers.iter().filter(serves).peekable();
    serving.peek().is_some() && serving.all(|worker| !unavailable_reason(worker).is_empty())
}

/// Reports workers that are connected and get no tasks.
fn unavailable(workers: &[Worker]) -> Vec<Check> {
    let hint = "repair its machine or restart it; it gets tasks again by itself";
    let sick = || workers.iter().filter(|worker| worker.connected && !unavailable_reason(worker).is_empty());
    let mut checks: Vec<_> = (sick().take(MAX_WORKERS))
        .map(|worker| {
            let message =
                format!("{} gets no tasks: {}", names::last(&worker.name), unavailable_reason(worker));
            Check::warn("workers", message, hint)
        })
        .collect();
    let more = sick().count().saturating_sub(MAX_WORKERS);
    if more > 0 {
        checks.push(Check::warn("workers", format!("{more} more get no tasks"), "see `rota workers`"));
    }
    checks
}

#[cfg(test)]
mod tests;
