//! Background tasks: each runs as long as the control plane and is woken by what it needs, not by polling.

mod commits;
mod prune;
mod space;
mod timer;

use std::sync::Arc;
use std::time::Duration;

use rota_core::Timestamp;
use rota_telemetry::{BackgroundTasks, OnExit, spawn};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agents::AgentRegistry;
use crate::alerts::Alerts;
use crate::approvals::Approvals;
use crate::artifacts::{self, Artifacts};
use crate::attention::Attention;
use crate::breakers::{self, Breakers};
use crate::follow::{self, Follower};
use crate::grpc::SystemReport;
use crate::history::History;
use crate::indexer;
use crate::notify::Notifier;
use crate::scheduler::Scheduler;
use crate::schedules;
use crate::sessions::Heartbeats;
use crate::store_client::StoreClient;
use crate::watchers::Watchers;
use crate::workflows;

pub(crate) use commits::{Claimer, CommitLoop};

/// Longest time for which a worker is left out because all waiting tasks avoid it.
const HOLD_TIME: Duration = Duration::from_secs(5);

/// Handles of the background tasks, with the name of each for error messages.
pub(crate) struct BackgroundHandles(Vec<(&'static str, JoinHandle<()>)>);

impl BackgroundHandles {
    /// Waits until one exits. Returns its name.
    pub(crate) async fn first_exit(&mut self) -> &'static str {
        let exits = self.0.iter_mut().map(|(name, handle)| {
            Box::pin(async move {
                let _ = handle.await;
                *name
            })
        });
        let (name, at, _) = futures::future::select_all(exits).await;
        self.0.swap_remove(at);
        name
    }

    /// Waits for the others, up to `grace` for each. Returns whether all exited.
    pub(crate) async fn join(self, grace: Duration) -> bool {
        let mut all = true;
        for (_, handle) in self.0 {
            all &= tokio::time::timeout(grace, handle).await.is_ok();
        }
        all
    }
}

/// What the background tasks need besides the commits.
pub(crate) struct BackgroundDeps {
    pub(crate) monitors: BackgroundTasks,
    pub(crate) store: StoreClient,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) agents: Arc<AgentRegistry>,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) breakers: Arc<Breakers>,
    pub(crate) artifacts: Artifacts,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) follower: Option<Follower>,
    pub(crate) schedules: schedules::Driver,
    pub(crate) workflows: workflows::Driver,
    pub(crate) history: History,
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) system: Arc<SystemReport>,
    pub(crate) attention: Arc<Attention>,
    pub(crate) approvals: Arc<Approvals>,
    pub(crate) retention: Option<Duration>,
    /// How long nothing is judged after a failed write.
    pub(crate) write_grace: Duration,
    /// When the next task is due, by the clock of the store.
    pub(crate) due: watch::Receiver<Option<Timestamp>>,
    pub(crate) stop: CancellationToken,
}

/// Starts the background tasks. Each reports to its monitor, from which health is derived.
pub(crate) fn start(commits: CommitLoop, deps: BackgroundDeps) -> BackgroundHandles {
    let BackgroundDeps {
        monitors,
        store,
        scheduler,
        agents,
        watchers,
        heartbeats,
        breakers,
        artifacts,
        notifier,
        follower,
        schedules,
        workflows,
        history,
        alerts,
        system,
        attention,
        approvals,
        retention,
        write_grace,
        due,
        stop,
    } = deps;
    let monitor = |name, help| monitors.register(name, help);
    let commits = commits.run(monitor("commits", "Applies committed changes and dispatches ready tasks"));
    let help = "Admits a probe task when a circuit breaker's cooldown is over";
    let breakers = breakers::run(breakers, store.clone(), stop.clone(), monitor("breakers", help));
    let help = "Applies timeouts, start times and retries that are due";
    let (workers, stopped) = (Arc::clone(&scheduler), stop.clone());
    let timer = timer::run(store.clone(), workers, due, write_grace, stopped, monitor("timer", help));
    let help = "Removes records older than their retention";
    let prune = prune::run(store.clone(), retention, stop.clone(), monitor("prune", help));
    let notifications = notifier.run(store.clone(), stop.clone());
    let help = "Looks at the pull requests of tasks, which their checks and comments continue";
    let follower = follower.map(|follower| (follower, monitor("pull-requests", help)));
    let follow = follow::run(follower, stop.clone());
    let workflows = workflows.run(stop.clone());
    let feed = workflows::feed::relay(store.clone(), Arc::clone(&watchers), stop.clone());
    let help = "Adds the words of tasks to the search index";
    let indexer = indexer::run(store.clone(), stop.clone(), monitor("search-index", help));
    let reader = store.clone();
    let space = space::run(store, stop.clone(), monitor("space", "Measures the room of the store"));
    let help = "Removes parts of artifacts that no task refers to";
    let sweep = artifacts::sweep(artifacts, stop.clone(), monitor("artifacts", help));
    let help = "Starts and ends the runs of schedules";
    let schedules = schedules.run(stop.clone(), monitor("schedules", help));
    let alerts = alerts.run(stop.clone(), monitor("alerts", "Notices since when something is wrong"));
    let help = "Keeps what the metrics were";
    let history = history.run(stop.clone(), monitor("metrics-history", help));
    let beats = stop.clone();
    // A task of their own, so that nothing delays them.
    let heartbeats = async move { heartbeats.run(beats).await };
    let relay = async move {
        let (of_scheduler, of_agents) = (stop.clone(), stop.clone());
        let changes = scheduler.changed().run(of_scheduler);
        let held = release_held(&scheduler, stop.clone());
        let attention = attention.run(&reader, stop.clone());
        let approvals = approvals.run(&reader, stop.clone());
        let memory = reader.overload().keep_measuring(stop.clone());
        let system = system.run(stop.clone());
        tokio::join!(
            changes,
            agents.changed().run(of_agents),
            watchers.run(|| reader.now(), stop),
            feed,
            held,
            attention,
            approvals,
            memory,
            system
        );
    };
    BackgroundHandles(vec![
        ("commits", spawn("commits", OnExit::Done, commits)),
        ("breakers", spawn("breakers", OnExit::Done, breakers)),
        ("timer", spawn("timer", OnExit::Done, timer)),
        ("prune", spawn("prune", OnExit::Done, prune)),
        ("space", spawn("space", OnExit::Done, space)),
        ("artifacts", spawn("artifacts", OnExit::Done, sweep)),
        ("notifications", spawn("notifications", OnExit::Done, notifications)),
        ("pull-requests", spawn("pull-requests", OnExit::Done, follow)),
        ("schedules", spawn("schedules", OnExit::Done, schedules)),
        ("alerts", spawn("alerts", OnExit::Done, alerts)),
        ("metrics-history", spawn("metrics-history", OnExit::Done, history)),
        ("search-index", spawn("search-index", OnExit::Done, indexer)),
        ("workflows", spawn("workflows", OnExit::Done, workflows)),
        ("relay", spawn("relay", OnExit::Done, relay)),
        ("heartbeats", spawn("heartbeats", OnExit::Done, heartbeats)),
    ])
}

/// Lets workers that were left out look at the queues again: the tasks that avoided them do so no more, or have no other
/// worker now. Work is proportional to their number.
async fn release_held(scheduler: &Scheduler, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(HOLD_TIME)).await.is_some() {
        scheduler.release_held();
    }
}
