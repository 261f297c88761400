//! The loop: takes in agents, demand and ends of processes, and does what the pools want.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
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

use crate::child::{self, Exited, Start};
use crate::pool::{Member, Pool};
use crate::{Error, Options};

/// What time alone changes (idle timeouts, waits after crashes) is looked at this often.
const TICK: Duration = Duration::from_millis(500);

/// Characters of what a worker said last that are told.
const LAST_WORDS: usize = 400;

pub(crate) struct Manager {
    options: Options,
    logs: PathBuf,
    /// By the agent's full name.
    pools: BTreeMap<String, Pool>,
    /// The last that was told, by agent. It may come before the agent does.
    told: BTreeMap<String, Demand>,
    /// All agents have been told; before that, a missing one means nothing.
    synced: bool,
    exits: mpsc::UnboundedReceiver<Exited>,
    exit: mpsc::UnboundedSender<Exited>,
}

impl Manager {
    pub(crate) fn new(options: Options) -> Result<Self, Error> {
        let logs = options.state_dir.join("logs");
        std::fs::create_dir_all(&logs).map_err(|source| Error::Directory { path: logs.clone(), source })?;
        let (exit, exits) = mpsc::unbounded_channel();
        Ok(Self { options, logs, pools: BTreeMap::new(), told: BTreeMap::new(), synced: false, exits, exit })
    }

    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let client = self.options.client.clone();
        let mut agents = client.watch_agents(self.options.parent.clone());
        let mut demand = client.watch_demand(self.options.parent.clone());
        let beat =
            self.options.loops.enter("workers", "Keeps as many worker processes as there is demand for");
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let result = loop {
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                agent = agents.next() => match agent {
                    Some(Ok(change)) => self.agent(change),
                    Some(Err(error)) => break Err(error.into()),
                    None => break Ok(()),
                },
                told = demand.next() => match told {
                    Some(Ok(told)) => self.demand(told),
                    Some(Err(error)) => break Err(error.into()),
                    None => break Ok(()),
                },
                Some(exited) = self.exits.recv() => self.exited(exited),
                _ = tick.tick() => {}
            }
            self.tell_recovered();
            if self.synced {
                let round = beat.round();
                self.reconcile().await;
                round.succeeded();
            }
        };
        self.stop().await;
        result
    }

    fn agent(&mut self, change: WatchAgentsResponse) {
        use watch_agents_response::Kind;
        match change.kind {
            Some(Kind::Agent(agent)) => {
                let pool = self.pools.entry(agent.name.clone()).or_default();
                pool.set_agent(&agent);
                pool.set_demand(self.told.get(&agent.name).cloned().unwrap_or_default());
            }
            Some(Kind::Deleted(name)) => {
                if let Some(pool) = self.pools.get_mut(&name) {
                    pool.forget_agent();
                }
            }
            Some(Kind::Synced(_)) => self.synced = true,
            None => {}
        }
    }

    fn demand(&mut self, told: WatchDemandResponse) {
        self.told = told.demands.into_iter().map(|one| (one.agent.clone(), one)).collect();
        for (name, pool) in &mut self.pools {
            // An agent that is not named has neither demand nor workers.
            pool.set_demand(self.told.get(name).cloned().unwrap_or_default());
        }
    }

    fn exited(&mut self, exited: Exited) {
        let member = self.pools.get_mut(&exited.agent).and_then(|pool| {
            let ours = pool.members.get(&exited.worker)?.child.instance == exited.instance;
            ours.then(|| pool.members.remove(&exited.worker)).flatten().map(|member| (pool, member))
        });
        let status = match &exited.status {
            Ok(status) => status.to_string(),
            Err(error) => format!("it could not be waited for: {error}"),
        };
        if let Some((pool, member)) = member {
            if member.drained || member.child.is_stopping() {
                tracing::info!(worker = exited.worker, %status, "a worker has ended");
            } else {
                let wait = pool.backoff.crashed(Instant::now(), exited.lived);
                let log = self.logs.join(log_name(&exited.agent, &exited.worker));
                tracing::warn!(
                    worker = exited.worker,
                    %status,
                    lived = ?exited.lived,
                    last_words = exited.last_words,
                    log = %log.display(),
                    "a worker ended by itself; the next one may start in {wait:?}"
                );
                if !member.connected {
                    let words: String = exited.last_words.chars().take(LAST_WORDS).collect();
                    let worker = &exited.worker;
                    self.tell(
                        &exited.agent,
                        format!("{worker} ended before it connected ({status}) {words}"),
                    );
                }
            }
        }
        self.report(&exited, status);
    }

    /// Tells why no worker of an agent can start, for whoever asks why its tasks wait. Empty: nothing is wrong.
    fn tell(&mut self, agent: &str, message: String) {
        if let Some(pool) = self.pools.get_mut(agent) {
            pool.trouble = !message.is_empty();
        }
        let request = ReportAgentRequest { name: agent.to_owned(), message: message.trim_end().to_owned() };
        let client = self.options.client.clone();
        spawn("report agent", OnExit::Done, async move {
            if let Err(error) = client.report_agent(request).await {
                tracing::debug!(%error, "how a pool fares could not be told");
            }
        });
    }

    fn tell_recovered(&mut self) {
        let recovered =
            self.pools.iter_mut().filter_map(|(name, pool)| pool.recovered().then(|| name.clone()));
        for agent in recovered.collect::<Vec<_>>() {
            self.tell(&agent, String::new());
        }
    }

    /// Tells that a process is certainly gone, which frees whatever it had at once.
    fn report(&self, exited: &Exited, status: String) {
        let namespace = names::parse(&exited.agent, "agents").map_or("", |(namespace, _)| namespace);
        let request = ReportWorkerDeathRequest {
            name: names::worker(namespace, &exited.worker),
            // It names this process: a later one of the same name is not meant.
            instance: exited.instance.clone(),
            message: status,
        };
        let client = self.options.client.clone();
        spawn("report worker death", OnExit::Done, async move {
            match client.report_worker_death(request).await {
                Ok(answer) if answer.freed_tasks > 0 => {
                    tracing::info!(
                        tasks = answer.freed_tasks,
                        "the tasks of a worker that is gone go to others"
                    );
                }
                // A worker that ended in order is known no more. If nobody can be told, its lease ends.
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "a worker's end could not be told"),
            }
        });
    }

    async fn reconcile(&mut self) {
        let (now, wall) = (Instant::now(), clock::now());
        let wanted: Vec<_> =
            self.pools.iter().map(|(name, pool)| (name.clone(), pool.wanted(now, wall))).collect();
        for (agent, wanted) in wanted {
            for worker in wanted.give_up {
                tracing::warn!(worker, "a worker did not connect in time and is ended");
                self.tell(&agent, format!("{worker} did not connect in time"));
                self.stop_member(&agent, &worker);
            }
            for worker in wanted.stop {
                self.stop_member(&agent, &worker);
            }
            for worker in wanted.drain {
                self.drain(&agent, &worker).await;
            }
            for _ in 0..wanted.start {
                if !self.start(&agent) {
                    break;
                }
            }
        }
        self.pools.retain(|_, pool| !pool.is_over());
    }

    fn stop_member(&mut self, agent: &str, worker: &str) {
        if let Some(member) = self.pools.get_mut(agent).and_then(|pool| pool.members.get_mut(worker)) {
            member.child.stop();
        }
    }

    /// Asks the control plane to give a worker nothing more, if it still has nothing, and only then
    /// ends it. The control plane decides: what we see is a moment old.
    async fn drain(&mut self, agent: &str, worker: &str) {
        let request =
            DrainAgentRequest { name: agent.to_owned(), worker: worker.to_owned(), only_idle: true };
        match self.options.client.drain_agent(request).await {
            Ok(answer) if answer.workers.iter().any(|one| names::last(one) == worker) => {
                tracing::info!(worker, "an idle worker is not needed any more");
                if let Some(member) = self.pools.get_mut(agent).and_then(|pool| pool.members.get_mut(worker))
                {
                    member.drained = true;
                    member.child.stop();
                }
            }
            Ok(_) => tracing::debug!(worker, "a worker was not idle any more"),
            Err(error) => tracing::debug!(worker, %error, "a worker could not be drained"),
        }
    }

    fn start(&mut self, agent: &str) -> bool {
        let Some((namespace, id)) = names::parse(agent, "agents") else { return false };
        let Some(pool) = self.pools.get_mut(agent) else { return false };
        let (worker, slots) = (pool.free_name(id), pool.slots());
        let instance = uuid::Uuid::new_v4().to_string();
        let mut arguments = self.options.arguments.clone();
        let state_dir = self.options.state_dir.join("workers");
        for (flag, value) in [
            ("--namespace", OsString::from(namespace)),
            ("--agent", id.into()),
            ("--worker", (&worker).into()),
            ("--instance", (&instance).into()),
            ("--slots", slots.to_string().into()),
            ("--state-dir", state_dir.into_os_string()),
        ] {
            arguments.extend([OsString::from(flag), value]);
        }
        arguments.push("--exit-with-parent".into());
        let start = Start {
            program: self.options.program.clone(),
            arguments,
            log: self.logs.join(log_name(agent, &worker)),
            agent: agent.to_owned(),
            worker: worker.clone(),
            instance,
            grace: self.options.stop_grace,
        };
        match child::start(start, self.exit.clone()) {
            Ok(child) => {
                tracing::info!(worker, "a worker is starting");
                let member = Member { child, since: Instant::now(), slots, connected: false, drained: false };
                pool.members.insert(worker, member);
                true
            }
            Err(error) => {
                let wait = pool.backoff.crashed(Instant::now(), Duration::ZERO);
                tracing::warn!(worker, %error, "a worker could not be started; trying again in {wait:?}");
                self.tell(agent, format!("{worker} could not be started: {error}"));
                false
            }
        }
    }

    /// Ends every worker and waits for all of them; each is killed when its grace is over.
    async fn stop(&mut self) {
        for pool in self.pools.values_mut() {
            pool.members.values_mut().for_each(|member| member.child.stop());
        }
        while self.pools.values().any(|pool| !pool.members.is_empty()) {
            let Some(exited) = self.exits.recv().await else { return };
            self.exited(exited);
        }
    }
}

/// One log a worker; the namespace is in its name, since agents of two may be called the same.
fn log_name(agent: &str, worker: &str) -> String {
    let namespace = names::parse(agent, "agents").map_or("", |(namespace, _)| namespace);
    format!("{namespace}.{worker}.log")
}
