//! What the control plane and its fleet tell.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use rota_client::discover::{Found, Origin};
use rota_client::{Client, Code};
use rota_proto::names;
use rota_proto::v1::{
    Agent, Breaker, BreakerState, GetSystemStatusRequest, LoopState, Management, SystemState, SystemStatus,
    Worker, runtime,
};
use rota_telemetry::clock;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Check;
use super::here;
use crate::output::{between, count, duration, moment, time};

/// A control plane that has not answered by then will not.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clocks that differ by more make times hard to read.
const APART: Duration = Duration::from_secs(2);
/// By more, tokens and certificates are taken for old or not yet good.
const FAR_APART: Duration = Duration::from_secs(60);
/// A store that takes longer makes everything slow.
const SLOW: Duration = Duration::from_secs(1);

/// A control plane that has answered.
#[derive(Debug)]
pub struct Reached {
    status: Option<SystemStatus>,
    endpoint: String,
    /// The time here in the middle of the call, and how long the call took.
    at: SystemTime,
    took: Duration,
}

impl Reached {
    /// What agents are given less, for their last attempts failed.
    pub fn breakers(&self) -> &[Breaker] {
        self.status.as_ref().map_or(&[], |status| &status.breakers)
    }
}

/// Asks the control plane how it fares; or says why it cannot be asked.
pub async fn reach(client: &Client) -> Result<Reached, Check> {
    let began = Instant::now();
    let Ok(answer) = timeout(PATIENCE, client.get_system_status(GetSystemStatusRequest {})).await else {
        return Err(silent(client.endpoint()).await);
    };
    let took = began.elapsed();
    let now = clock::now();
    let at = now.checked_sub(took / 2).unwrap_or(now);
    let endpoint = client.endpoint().to_owned();
    let hint = |error: &rota_client::Error| error.hint.clone().unwrap_or_default();
    match answer {
        Ok(status) => Ok(Reached { status: Some(status), endpoint, at, took }),
        // It is there and lets us in, and knows less.
        Err(error) if error.code == Code::Unimplemented => Ok(Reached { status: None, endpoint, at, took }),
        Err(error) if matches!(error.code, Code::Unauthenticated | Code::PermissionDenied) => {
            Err(Check::fail("token", format!("the control plane does not let us in: {error}"), hint(&error)))
        }
        Err(error) => {
            let said = error.to_string();
            let hint = if speaks_no_tls(&said) {
                let plain = endpoint.replacen("https://", "http://", 1);
                format!("the server speaks no TLS: use {plain}")
            } else {
                hint(&error)
            };
            Err(Check::fail("connection", said, hint))
        }
    }
}

/// What a server answers that does not know what TLS is: anything but a beginning of it.
fn speaks_no_tls(error: &str) -> bool {
    error.contains("InvalidContentType")
}

/// Nothing was answered in time: by a program that hangs, or because none is reached at all.
async fn silent(endpoint: &str) -> Check {
    let span = duration(PATIENCE);
    match timeout(PATIENCE, TcpStream::connect(address(endpoint))).await {
        Ok(Ok(_)) => Check::fail(
            "connection",
            format!("{endpoint} accepts connections, and does not answer within {span}"),
            "its process hangs or is stopped, or another program has its port: look at that machine",
        ),
        _ => Check::fail(
            "connection",
            format!("nothing answers at {endpoint} within {span}"),
            "see whether the address is right, and whether a firewall stands in between",
        ),
    }
}

/// Host and port of an endpoint.
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

/// How the control plane fares, by its own word.
pub fn status(reached: &Reached) -> Vec<Check> {
    let how = if reached.endpoint.starts_with("https://") { "over TLS" } else { "without TLS" };
    let mut checks = vec![Check::ok("connection", format!("it answers in {} {how}", duration(reached.took)))];
    let Some(status) = &reached.status else {
        let hint = "bring server and client to one version";
        checks.push(Check::warn(
            "version",
            "the server is older than this program and does not tell how it fares",
            hint,
        ));
        return checks;
    };
    checks.push(version(&status.version));
    checks.extend(status.server_time.as_ref().map(|server| clocks(moment(server), reached.at, reached.took)));
    let since = time(status.start_time.as_ref());
    let fares = format!("{} is up since {since}", status.replica);
    match status.state() {
        SystemState::Healthy => checks.push(Check::ok("control plane", format!("{fares}, and healthy"))),
        state => {
            let bad = state == SystemState::Error;
            checks.extend(status.causes.iter().map(|cause| {
                let check = if bad { Check::fail } else { Check::warn };
                check("control plane", cause.message.as_str(), cause.hint.as_str())
            }));
            if status.causes.is_empty() {
                checks.push(Check::warn("control plane", format!("{fares}, and not healthy"), "see its log"));
            }
        }
    }
    if let Some(store) = &status.store {
        let latency = store.latency.as_ref().map_or(Duration::ZERO, |span| {
            Duration::new(u64::try_from(span.seconds).unwrap_or(0), u32::try_from(span.nanos).unwrap_or(0))
        });
        checks.push(match (store.answers, store.write_error.as_str()) {
            (false, _) => {
                Check::fail("store", "it does not answer", "see the control plane's log and its disk")
            }
            (_, error) if !error.is_empty() => {
                Check::fail("store", format!("it takes no writes: {error}"), "see that its disk has room")
            }
            _ if latency > SLOW => {
                let message = format!("it takes {} to answer", duration(latency));
                Check::warn("store", message, "see what else uses its disk")
            }
            _ => Check::ok("store", format!("it answers in {}", duration(latency))),
        });
    }
    let ill: Vec<_> = (status.loops.iter())
        .filter(|one| matches!(one.state(), LoopState::Failing | LoopState::Stuck | LoopState::Ended))
        .collect();
    if ill.is_empty() && !status.loops.is_empty() {
        checks.push(Check::ok("loops", format!("all {} go on", status.loops.len())));
    }
    checks.extend(ill.into_iter().map(|one| {
        let state = one.state().as_str_name().trim_start_matches("LOOP_STATE_").to_lowercase();
        let message = format!("{} is {state}: {}", one.name, one.error);
        Check::fail("loops", message.trim_end_matches(": "), "see the control plane's log")
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
            "bring them to one version; see CHANGELOG.md for what differs",
        ),
    }
}

/// How far the clocks are apart, as far as the call's own time lets one say.
fn clocks(server: SystemTime, here: SystemTime, took: Duration) -> Check {
    let apart = between(server, here).max(between(here, server)).saturating_sub(took / 2);
    let which = if server > here { "ahead" } else { "behind" };
    let message = format!("the server's is {} {which}", duration(apart));
    let hint = "let both machines keep time, for example with NTP";
    match apart {
        _ if apart > FAR_APART => Check::fail("clock", message, hint),
        _ if apart > APART => Check::warn("clock", message, hint),
        _ => Check::ok("clock", "here and at the server are the same"),
    }
}

/// Agents and workers of the namespace, and the programs that workers on this machine need.
pub async fn fleet(client: &Client, found: &Found, breakers: &[Breaker]) -> Vec<Check> {
    let parent = names::namespace(&found.namespace);
    let listed = async { Ok((client.all_agents(&parent).await?, client.all_workers(&parent, "").await?)) };
    let (agents, workers) = match timeout(PATIENCE, listed).await {
        Err(_) => {
            let message = format!("the control plane does not tell of them within {}", duration(PATIENCE));
            return vec![Check::fail("agents", message, "see its log, and how its store fares")];
        }
        Ok(Ok(listed)) => listed,
        Ok(Err(error)) => {
            let error: rota_client::Error = error;
            return vec![Check::fail("agents", error.to_string(), error.hint.unwrap_or_default())];
        }
    };
    let mut checks = agents_and_workers(&agents, &workers, breakers);
    // Elsewhere, the workers and their programs are on other machines.
    if found.origin == Origin::Dev {
        checks.extend(here::claude(&claude_programs(&agents, &workers)).await);
    }
    checks
}

fn agents_and_workers(agents: &[Agent], workers: &[Worker], breakers: &[Breaker]) -> Vec<Check> {
    if agents.is_empty() {
        return vec![Check::warn(
            "agents",
            "there are none in this namespace",
            "make one with `rota apply -f agent.yaml`",
        )];
    }
    let mut checks = Vec::new();
    let closed = |agent: &&Agent| {
        let mut open = breakers
            .iter()
            .filter(|one| !matches!(one.state(), BreakerState::Closed | BreakerState::Unspecified));
        !open.any(|one| one.agent == agent.name)
    };
    // What waits for the others waits whatever room there is: the control plane tells why.
    let agents: Vec<_> = agents.iter().filter(closed).collect();
    for agent in &agents {
        let name = names::last(&agent.name);
        let (spec, status) =
            (agent.spec.clone().unwrap_or_default(), agent.status.clone().unwrap_or_default());
        let waiting = status.queued_tasks;
        let wait = if waiting == 1 { "1 task waits".to_owned() } else { format!("{waiting} tasks wait") };
        if !status.message.is_empty() {
            let message = format!("{name}: its workers cannot start: {}", status.message);
            checks.push(Check::fail("agents", message, format!("see `rota describe agent {name}`")));
        } else if status.workers == 0 && spec.management() == Management::External {
            let message = format!("{name}: no worker is connected, and {wait}");
            checks.push(Check::warn(
                "agents",
                message,
                format!("start one with `rota worker --agent {name}`"),
            ));
        } else if waiting > 0 && status.workers == 0 {
            let message = format!("{name}: {wait}, and no worker is connected yet");
            let hint =
                "workers start by demand; if none comes, see whether `rota dev` or the operator is there";
            checks.push(Check::warn("agents", message, hint));
        } else if waiting > 0 && status.free_slots == 0 {
            let message = format!("{name}: {wait}, and all slots are filled");
            let hint = format!("raise maxReplicas or slots of {name} if that goes on; see `rota top`");
            checks.push(Check::warn("agents", message, hint));
        }
    }
    if checks.is_empty() && !agents.is_empty() {
        checks.push(Check::ok("agents", format!("{} with room for tasks", agents.len())));
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
        checks.push(Check::warn("workers", message, "their tasks go to others when their grace is over"));
    }
    checks
}

/// The programs of agents that run the Claude CLI, unless a worker of theirs has found its own.
fn claude_programs(agents: &[Agent], workers: &[Worker]) -> Vec<String> {
    let has_one = |agent: &str| {
        let mut theirs = workers.iter().filter(|worker| worker.agent == agent);
        theirs.any(|worker| !worker.runtime_version.is_empty())
    };
    let programs = agents.iter().filter_map(|agent| {
        let spec = agent.spec.as_ref()?;
        let ours = spec.management() != Management::External && !has_one(names::last(&agent.name));
        match spec.runtime.as_ref()?.kind.as_ref()? {
            runtime::Kind::Claude(claude) if ours => Some(claude.program.clone()),
            _ => None,
        }
    });
    programs.collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests;
