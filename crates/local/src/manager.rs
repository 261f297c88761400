//! Event loop of the local manager: receives agents, demand and process exits, and reconciles the pools.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use futures::StreamExt;
use rota_proto::names;
use rota_proto::v1::{
    Demand, DrainAgentRequest, ReportAgentRequest, ReportWorkerDeathRequest, WatchAgentsResponse,
    WatchDemandResponse, watch_agents_response,
};
use rota_telemetry::{OnExit, clock, spawn};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::pool::{Pool, PoolWorker};
use crate::process::{self, ProcessExit, ProcessSpec};
use crate::{Error, Options, WorkerProcess};

/// Interval at which idle timeouts and restart delays are checked.
const TICK_INTERVAL: Duration = Duration::from_millis(500);
/// Characters of a crashed worker's last log line that are reported.
const MAX_REPORTED_CHARS: usize = 400;

pub(crate) struct Manager {
    options: Options,
    logs: PathBuf,
    /// Pools by the agent's full name.
    pools: BTreeMap<String, Pool>,
    /// Last demand by agent. May arrive before the agent does.
    demand: BTreeMap<String, Demand>,
    /// All agents have been received; before that, a missing one means nothing.
    synced: bool,
    exits: mpsc::UnboundedReceiver<ProcessExit>,
    exit_sender: mpsc::UnboundedSender<ProcessExit>,
}

impl Manager {
    pub(crate) fn new(options: Options) -> Result<Self, Error> {
        let logs = options.state_dir.join("logs");
        std::fs::create_dir_all(&logs).map_err(|source| Error::Directory { path: logs.clone(), source })?;
        let (exit_sender, exits) = mpsc::unbounded_channel();
        let (pools, demand) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { options, logs, pools, demand, synced: false, exits, exit_sender })
    }

    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let client = self.options.client.clone();
        let mut agents = client.watch_agents(self.options.parent.clone());
        let mut demand = client.watch_demand(self.options.parent.clone());
        let monitor =
            self.options.background_tasks.register("workers", "Scales the worker processes of each agent");
        let mut tick = interval(TICK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let result = loop {
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                change = agents.next() => match change {
                    Some(Ok(change)) => self.apply_agent_change(change),
                    Some(Err(error)) => break Err(error.into()),
                    None => break Ok(()),
                },
                response = demand.next() => match response {
                    Some(Ok(response)) => self.apply_demand(response),
                    Some(Err(error)) => break Err(error.into()),
                    None => break Ok(()),
                },
                Some(exit) = self.exits.recv() => self.apply_exit(exit),
                _ = tick.tick() => {}
            }
            self.report_recovered();
            if self.synced {
                let activation = monitor.activate();
                self.reconcile().await;
                activation.succeeded();
            }
        };
        self.stop_all().await;
        result
    }

    fn apply_agent_change(&mut self, change: WatchAgentsResponse) {
        use watch_agents_response::Kind;
        match change.kind {
            Some(Kind::Agent(agent)) => {
                let pool = self.pools.entry(agent.name.clone()).or_default();
                pool.set_agent(&agent);
                pool.set_demand(self.demand.get(&agent.name).cloned().unwrap_or_default());
            }
            Some(Kind::Deleted(name)) => {
                if let Some(pool) = self.pools.get_mut(&name) {
                    pool.remove_agent();
                }
            }
            Some(Kind::Synced(_)) => {
                self.synced = true;
                self.adopt_awaited();
            }
            None => {}
        }
    }

    fn apply_demand(&mut self, response: WatchDemandResponse) {
        self.demand = response.demands.into_iter().map(|demand| (demand.agent.clone(), demand)).collect();
        for (name, pool) in &mut self.pools {
            // An agent that is not listed has neither demand nor workers.
            pool.set_demand(self.demand.get(name).cloned().unwrap_or_default());
        }
        self.adopt_awaited();
    }

    /// Adds pools of agents that were deleted before this manager started, as long as workers of theirs are awaited.
    fn adopt_awaited(&mut self) {
        let demand = self.demand.iter().filter(|(_, demand)| self.synced && !demand.awaited.is_empty());
        for (name, demand) in demand {
            if let Entry::Vacant(vacant) = self.pools.entry(name.clone()) {
                let pool = vacant.insert(Pool::default());
                pool.remove_agent();
                pool.set_demand(demand.clone());
            }
        }
    }

    fn apply_exit(&mut self, exit: ProcessExit) {
        let exited = self.pools.get_mut(&exit.agent).and_then(|pool| {
            let ours = pool.workers.get(&exit.worker)?.process.instance == exit.instance;
            ours.then(|| pool.workers.remove(&exit.worker)).flatten().map(|worker| (pool, worker))
        });
        let status = match &exit.status {
            Ok(status) => status.to_string(),
            Err(error) => format!("failed to wait for the process: {error}"),
        };
        if let Some((pool, worker)) = exited {
            // Of a deleted agent, it may exit before its drain is known here.
            let is_done = (worker.only_stores || pool.is_deleted())
                && exit.status.as_ref().is_ok_and(ExitStatus::success);
            if worker.drained || worker.process.is_stopping() || is_done {
                tracing::info!(worker = exit.worker, %status, "worker stopped");
            } else {
                let delay = pool.backoff.crashed(Instant::now(), exit.lifetime);
                let log = self.logs.join(log_name(&exit.agent, &exit.worker));
                tracing::warn!(
                    worker = exit.worker,
                    %status,
                    lifetime = ?exit.lifetime,
                    last_log_line = exit.last_log_line,
                    log = %log.display(),
                    restart_delay = ?delay,
                    "worker exited unexpectedly"
                );
                if !worker.connected {
                    let line: String = exit.last_log_line.chars().take(MAX_REPORTED_CHARS).collect();
                    let worker = &exit.worker;
                    let message = format!("{worker} exited before it connected ({status}) {line}");
                    self.report_start_failure(&exit.agent, message);
                }
            }
        }
        self.report_exit(&exit, status);
    }

    /// Reports why no worker of an agent can start, for those who ask why its tasks are pending. An empty message
    /// withdraws the report.
    fn report_start_failure(&mut self, agent: &str, message: String) {
        if let Some(pool) = self.pools.get_mut(agent) {
            pool.failure_reported = !message.is_empty();
        }
        let message = message.trim_end().to_owned();
        let request = ReportAgentRequest { name: agent.to_owned(), message, ..Default::default() };
        let client = self.options.client.clone();
        spawn("report agent", OnExit::Done, async move {
            if let Err(error) = client.report_agent(request).await {
                tracing::debug!(%error, "failed to report the state of a pool");
            }
        });
    }

    fn report_recovered(&mut self) {
        let recovered = self.pools.iter_mut();
        let recovered = recovered.filter_map(|(name, pool)| pool.take_recovered().then(|| name.clone()));
        for agent in recovered.collect::<Vec<_>>() {
            self.report_start_failure(&agent, String::new());
        }
    }

    /// Reports that a process has exited, which releases its tasks and locks immediately.
    fn report_exit(&self, exit: &ProcessExit, status: String) {
        let namespace = names::parse(&exit.agent, "agents").map_or("", |(namespace, _)| namespace);
        let request = ReportWorkerDeathRequest {
            name: names::worker(namespace, &exit.worker),
            // Identifies this process; a later one of the same name is not affected.
            instance: exit.instance.clone(),
            message: status,
            disrupted: false,
            node_pressure: false,
        };
        let client = self.options.client.clone();
        spawn("report worker death", OnExit::Done, async move {
            match client.report_worker_death(request).await {
                Ok(answer) if answer.freed_tasks > 0 => {
                    tracing::info!(tasks = answer.freed_tasks, "tasks of an exited worker are reassigned");
                }
                // A worker that exited gracefully is already unregistered. Without the report its lease expires.
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "failed to report a worker's exit"),
            }
        });
    }

    async fn reconcile(&mut self) {
        let (now, wall) = (Instant::now(), clock::now());
        let desired: Vec<_> =
            self.pools.iter().map(|(name, pool)| (name.clone(), pool.desired(now, wall))).collect();
        for (agent, desired) in desired {
            for worker in desired.give_up {
                tracing::warn!(worker, "worker did not connect in time, stopping it");
                self.report_start_failure(&agent, format!("{worker} did not connect in time"));
                self.stop_worker(&agent, &worker);
            }
            for worker in desired.stop {
                self.stop_worker(&agent, &worker);
            }
            for worker in desired.drain {
                self.drain(&agent, &worker).await;
            }
            for _ in 0..desired.start {
                let id = names::last(&agent);
                let Some(worker) = self.pools.get(&agent).map(|pool| pool.free_name(id)) else { break };
                if !self.start(&agent, worker, false) {
                    break;
                }
            }
            for worker in desired.store {
                // One that has nothing on this disk is awaited from another machine.
                if self.has_left(&agent, &worker) {
                    self.start(&agent, worker, true);
                }
            }
        }
        self.pools.retain(|_, pool| !pool.is_finished());
    }

    fn stop_worker(&mut self, agent: &str, worker: &str) {
        if let Some(worker) = self.pools.get_mut(agent).and_then(|pool| pool.workers.get_mut(worker)) {
            worker.process.stop();
        }
    }

    /// Drains a worker through the control plane and stops it only if it was still idle there: the demand seen here
    /// may be outdated.
    async fn drain(&mut self, agent: &str, worker: &str) {
        let request =
            DrainAgentRequest { name: agent.to_owned(), worker: worker.to_owned(), only_idle: true };
        match self.options.client.drain_agent(request).await {
            Ok(answer) if answer.workers.iter().any(|drained| names::last(drained) == worker) => {
                tracing::info!(worker, "stopping idle worker");
                if let Some(worker) = self.pools.get_mut(agent).and_then(|pool| pool.workers.get_mut(worker))
                {
                    worker.drained = true;
                    worker.process.stop();
                }
            }
            Ok(_) => tracing::debug!(worker, "worker is no longer idle, not drained"),
            Err(error) => tracing::debug!(worker, %error, "failed to drain worker"),
        }
    }

    /// Whether the state directory has attempts of an earlier process of a worker.
    fn has_left(&self, agent: &str, worker: &str) -> bool {
        let namespace = names::parse(agent, "agents").map_or("", |(namespace, _)| namespace);
        let attempts = self.options.state_dir.join("workers/running").join(namespace).join(worker);
        attempts.read_dir().is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Starts one worker; returns false if the process could not be started.
    fn start(&mut self, agent: &str, worker: String, only_stores: bool) -> bool {
        let Some((namespace, id)) = names::parse(agent, "agents") else { return false };
        let Some(pool) = self.pools.get_mut(agent) else { return false };
        let slots = pool.slots();
        let instance = uuid::Uuid::new_v4().to_string();
        let mut arguments = self.options.arguments.clone();
        let state_dir = self.options.state_dir.join("workers");
        for (flag, value) in [
            ("--namespace", OsString::from(namespace)),
            ("--agent", id.into()),
            ("--worker", (&worker).into()),
            ("--instance", (&instance).into()),
            ("--slots", slots.to_string().into()),
            ("--state-dir", state_dir.clone().into_os_string()),
        ] {
            arguments.extend([OsString::from(flag), value]);
        }
        let supervisors = state_dir.join(format!(".{namespace}.{worker}.supervisors"));
        arguments.extend([OsString::from("--supervisors-lock"), supervisors.clone().into_os_string()]);
        arguments.push("--exit-with-parent".into());
        if only_stores {
            arguments.push("--only-store".into());
        }
        let process = WorkerProcess { namespace, agent: id, worker: &worker, instance: &instance, slots };
        let token = match self.options.tokens.issue(&process) {
            Ok(token) => token,
            Err(error) => {
                tracing::error!(worker, error, "failed to issue a worker's token");
                return false;
            }
        };
        let spec = ProcessSpec {
            program: self.options.program.clone(),
            arguments,
            log: self.logs.join(log_name(agent, &worker)),
            supervisors,
            agent: agent.to_owned(),
            worker: worker.clone(),
            token,
            instance,
            grace: self.options.stop_grace,
        };
        match process::start(spec, self.exit_sender.clone()) {
            Ok(process) => {
                tracing::info!(worker, "starting worker");
                let started = Instant::now();
                let started =
                    PoolWorker { process, started, slots, connected: false, drained: false, only_stores };
                pool.workers.insert(worker, started);
                true
            }
            Err(error) => {
                let delay = pool.backoff.crashed(Instant::now(), Duration::ZERO);
                tracing::warn!(worker, %error, retry_delay = ?delay, "failed to start worker, retrying");
                self.report_start_failure(agent, format!("failed to start {worker}: {error}"));
                false
            }
        }
    }

    /// Stops every worker and waits for all exits; each is killed at the end of its grace period.
    async fn stop_all(&mut self) {
        for pool in self.pools.values_mut() {
            pool.workers.values_mut().for_each(|worker| worker.process.stop());
        }
        while self.pools.values().any(|pool| !pool.workers.is_empty()) {
            let Some(exit) = self.exits.recv().await else { return };
            self.apply_exit(exit);
        }
    }
}

/// Returns the file name of a worker's log. It contains the namespace, since agents of two namespaces may share a name.
fn log_name(agent: &str, worker: &str) -> String {
    let namespace = names::parse(agent, "agents").map_or("", |(namespace, _)| namespace);
    format!("{namespace}.{worker}.log")
}
