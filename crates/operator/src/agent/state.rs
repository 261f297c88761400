//! Per-agent state kept between reconciliations. Losing it costs at most a redundant API call.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use rota_core::scaling;
use rota_crds::resource::{AgentStatus, WorkerFailure};
use rota_proto::{names, v1};
use tokio::time::Instant;

use super::accepted::Accepted;
use super::demand::{DemandSnapshot, isolates};
use super::dereference::WorkerPod;
use super::history::PodHistory;
use super::origin::Creations;
use super::start_failure::{StartFailure, StartFailures};
use super::{REJECTION_RETRY_INTERVAL, network};
use crate::control_store::{Generation, Loss};

/// Pause of all starts for isolated tasks after one failed: a quota refuses the others too.
const ISOLATED_PAUSE: Duration = Duration::from_secs(1);
/// Interval at which workers that have not joined are announced again: a restarted control plane has forgotten them.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(5);
/// Interval at which a persisting start failure is reported again, for the same reason.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// Generation and hash of the labels of an agent.
pub(super) type Version = (Option<i64>, u64);

/// State of one agent between reconciliations.
#[derive(Debug, Default)]
pub(super) struct AgentState {
    /// Run of the control plane that everything reported to it belongs to.
    generation: Generation,
    /// Generation and hash of the labels that the control plane has accepted.
    pub registered: Option<Version>,
    /// Version that the control plane has rejected, and when.
    pub rejected: Option<(Version, StartFailure, Instant)>,
    pub accepted: Accepted,
    pub status_written: Option<Instant>,
    /// The last one, if older definitions took only a part of it: writing the rest again would be in vain.
    pub partial_status: Option<AgentStatus>,
    /// Last failure of a worker that this operator has observed.
    pub last_failure: Option<WorkerFailure>,
    /// Time since which every reconciliation has failed.
    pub failing_since: Option<Instant>,
    /// NetworkPolicy that was last written or found; `None` in it if the agent has none.
    network: Option<(Option<NetworkPolicy>, Instant)>,
    announced: Option<(Vec<v1::AnnouncedWorker>, Instant)>,
    reported: Option<(v1::ReportAgentRequest, Instant)>,
    /// Reason of the last published Event.
    published: Option<String>,
    pub creations: Creations,
    pub history: PodHistory,
    failures: StartFailures,
    /// Failed starts for isolated tasks, by task: one that cannot start must not stop the others.
    isolated: HashMap<String, StartFailures>,
    isolated_until: Option<Instant>,
    /// Age of the youngest shared pod of a template whose worker does not isolate its attempts, and when it had that age.
    last_try: Option<(String, Duration, Instant)>,
}

/// What a worker was started for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start<'a> {
    /// The pool, with the hash of its template.
    Shared(&'a str),
    /// A task with `isolation: Pod`, by its id.
    Isolated(&'a str),
}

impl<'a> Start<'a> {
    pub(super) fn of(pod: &'a WorkerPod) -> Self {
        pod.task.as_deref().map_or(Self::Shared(&pod.hash), Self::Isolated)
    }
}

impl AgentState {
    /// Forgets what the control plane has received, if it was started again since. Returns what happened to its store, if it
    /// had accepted this agent before and may have lost it. `was_known` is whether an earlier operator had registered it.
    pub(super) fn begin_generation(&mut self, generation: Generation, was_known: bool) -> Option<Loss> {
        if self.generation == generation {
            return None;
        }
        let had_registered = self.registered.take().is_some() || was_known;
        (self.rejected, self.announced, self.reported) = (None, None, None);
        self.history.control_plane_unavailable();
        let before = std::mem::replace(&mut self.generation, generation);
        generation.loss_since(before).filter(|_| had_registered)
    }

    /// Records that a worker did not start, or failed soon after. Pauses further starts of its template, or for its task.
    pub(super) fn start_failed(&mut self, start: Start<'_>, failure: StartFailure, now: Instant) {
        match start {
            Start::Shared(hash) => self.failures.failed(hash, failure, now),
            Start::Isolated(task) => {
                if !failure.is_of_its_spec() {
                    self.isolated_until = Some(now + ISOLATED_PAUSE);
                }
                self.isolated.entry(task.to_owned()).or_default().failed("", failure, now);
            }
        }
    }

    /// Records that a worker has connected for the first time.
    pub(super) fn worker_joined(&mut self, start: Start<'_>, now: Instant) {
        let recovered = match start {
            Start::Shared(hash) => self.failures.joined(hash, now),
            Start::Isolated(task) => self.isolated.remove(task).is_some(),
        };
        if recovered {
            self.published = None;
        }
    }

    /// Returns how long no shared worker of a template may be started; zero if one may.
    pub(super) fn start_delay(&self, hash: &str, now: Instant) -> Duration {
        self.failures.delay(hash, now)
    }

    /// Hides the demand of isolated tasks whose workers may not be started now. Forgets the failures of tasks that are
    /// over.
    pub(super) fn pause_isolated(&mut self, demand: &mut DemandSnapshot, now: Instant) {
        let is_wanted =
            |task: &String| demand.isolated.iter().any(|wanted| names::last(&wanted.task) == task);
        self.isolated.retain(|task, _| is_wanted(task));
        for task in &mut demand.isolated {
            task.queued &= self.isolated_start_delay(names::last(&task.task), now).is_zero();
        }
    }

    /// Returns the age of the youngest shared pod of a template whose worker does not isolate its attempts, also of one that has ended: it
    /// shows that for the next ones. `None` once a younger one isolates and takes tasks.
    pub(super) fn observe_isolation(
        &mut self,
        hash: &str,
        pods: &[WorkerPod],
        now: Instant,
    ) -> Option<Duration> {
        let known = self.last_try.take().filter(|(template, ..)| template == hash);
        let known = known.map(|(_, age, at)| age + (now - at));
        let shared = pods.iter().filter(|pod| pod.task.is_none() && pod.hash == hash);
        let shown = shared.filter_map(|pod| Some((pod.age, isolates(pod.worker.as_ref()?)?)));
        let last_try = scaling::last_try(shown.chain(known.map(|age| (age, false))));
        self.last_try = last_try.map(|age| (hash.to_owned(), age, now));
        last_try
    }

    /// Returns the age that was last observed.
    pub(super) fn last_try(&self) -> Option<Duration> {
        self.last_try.as_ref().map(|(_, age, _)| *age)
    }

    /// Returns how long no worker may be started for a task; zero if one may.
    fn isolated_start_delay(&self, task: &str, now: Instant) -> Duration {
        let all = self.isolated_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let own = self.isolated.get(task).map_or(Duration::ZERO, |failures| failures.delay("", now));
        all.max(own)
    }

    /// Returns when the next worker of an isolated task may be started; zero if none is paused.
    pub(super) fn next_isolated_start(&self, now: Instant) -> Duration {
        let delays = self.isolated.keys().map(|task| self.isolated_start_delay(task, now));
        delays.filter(|delay| !delay.is_zero()).min().unwrap_or_default()
    }

    /// Returns the last failed start of a pool's template.
    pub(super) fn start_failure(&self, hash: &str, now: Instant) -> Option<&StartFailure> {
        self.failures.last(hash, now)
    }

    /// Returns the last failed starts for isolated tasks, by task.
    pub(super) fn isolated_failures(&self, now: Instant) -> impl Iterator<Item = (&str, &StartFailure)> {
        self.isolated
            .iter()
            .filter_map(move |(task, failures)| Some((task.as_str(), failures.last("", now)?)))
    }

    /// Returns why the control plane has rejected this version a moment ago.
    pub(super) fn recent_rejection(&self, version: Version, now: Instant) -> Option<&StartFailure> {
        let (rejected, failure, at) = self.rejected.as_ref()?;
        (*rejected == version && now - *at < REJECTION_RETRY_INTERVAL).then_some(failure)
    }

    /// Returns whether the cluster had this policy, or none, a moment ago.
    pub(super) fn network_is_current(&self, wanted: Option<&NetworkPolicy>, now: Instant) -> bool {
        let current = |(known, at): &(Option<NetworkPolicy>, Instant)| {
            known.as_ref() == wanted && now - *at < network::CHECK_INTERVAL
        };
        self.network.as_ref().is_some_and(current)
    }

    pub(super) fn network_published(&mut self, policy: Option<NetworkPolicy>, now: Instant) {
        self.network = Some((policy, now));
    }

    /// Returns whether these workers should be announced now: when they changed, and repeatedly while some have not
    /// joined.
    pub(super) fn announcement_due(
        &mut self,
        workers: &[v1::AnnouncedWorker],
        all_joined: bool,
        now: Instant,
    ) -> bool {
        let due = match &self.announced {
            Some((old, at)) => old != workers || !all_joined && now - *at >= ANNOUNCE_INTERVAL,
            None => true,
        };
        if due {
            self.announced = Some((workers.to_vec(), now));
        }
        due
    }

    /// Records a failed announcement: it is unknown what the control plane received.
    pub(super) fn announcement_failed(&mut self) {
        self.announced = None;
    }

    /// Returns whether an Event with this reason should be published: once until workers start again.
    pub(super) fn event_due(&mut self, reason: &str) -> bool {
        self.published.replace(reason.to_owned()).as_deref() != Some(reason)
    }

    /// Returns whether this report should be made to the control plane now; an empty one withdraws the last.
    pub(super) fn report_due(&mut self, report: &v1::ReportAgentRequest, now: Instant) -> bool {
        let is_empty = report.message.is_empty() && report.isolated.is_empty();
        let due = match &self.reported {
            Some((old, at)) => old != report || !is_empty && now - *at >= REPORT_INTERVAL,
            None => !is_empty,
        };
        if due {
            self.reported = Some((report.clone(), now));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_store::ControlStore;

    fn failure() -> StartFailure {
        StartFailure::new("Error", "x")
    }

    fn report(message: &str) -> v1::ReportAgentRequest {
        v1::ReportAgentRequest { message: message.into(), ..Default::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn ended_pods_still_show_lack_of_isolation() {
        let (mut state, begin) = (AgentState::default(), Instant::now());
        let pod = |isolated, seconds| WorkerPod {
            hash: "h".into(),
            age: Duration::from_secs(seconds),
            worker: Some(v1::WorkerDemand { connected: true, isolated, ..Default::default() }),
            ..Default::default()
        };
        let mut observe = |hash, pods: &[WorkerPod], seconds| {
            let age = state.observe_isolation(hash, pods, begin + Duration::from_secs(seconds));
            age.map(|age| age.as_secs())
        };
        assert_eq!(observe("h", &[pod(true, 50)], 0), None);
        assert_eq!(observe("h", &[pod(true, 50), pod(false, 30), pod(false, 20)], 0), Some(20));
        assert_eq!(observe("h", &[], 100), Some(120));
        assert_eq!(observe("h", &[pod(false, 121), pod(true, 3)], 101), None, "a younger one isolates");
        assert_eq!(observe("h", &[], 121), None, "and that is all that is known");
        assert_eq!(observe("h", &[pod(false, 7)], 130), Some(7));
        let mut sick = pod(true, 1);
        sick.worker.as_mut().unwrap().unavailable = true;
        assert_eq!(observe("h", &[sick], 130), Some(7), "it takes no tasks");
        let own = WorkerPod { task: Some("t".into()), ..pod(true, 1) };
        assert_eq!(observe("h", &[own], 130), Some(7));
        assert_eq!(
            observe("new", &[pod(false, 8)], 131),
            None,
            "pods of another template may be on other machines"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failing_task_does_not_stop_others() {
        let mut state = AgentState::default();
        let now = Instant::now();
        (0..9).for_each(|_| state.start_failed(Start::Isolated("bad"), failure(), now));
        assert_eq!(state.start_delay("h", now), Duration::ZERO);
        assert_eq!(state.isolated_start_delay("good", now), ISOLATED_PAUSE);
        assert_eq!(state.isolated_start_delay("good", now + ISOLATED_PAUSE), Duration::ZERO);
        assert!(state.isolated_start_delay("bad", now) > Duration::from_secs(60));
        assert_eq!(state.start_failure("h", now), None, "the pool is not to blame");
        assert_eq!(state.isolated_failures(now).collect::<Vec<_>>(), [("bad", &failure())]);
        state.pause_isolated(&mut DemandSnapshot::default(), now);
        assert_eq!(state.isolated_failures(now).count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn pod_that_cannot_be_built_pauses_its_own_task() {
        let (mut state, now) = (AgentState::default(), Instant::now());
        state.start_failed(Start::Isolated("invalid"), StartFailure::invalid_spec("a volume"), now);
        assert!(state.isolated_start_delay("invalid", now) > Duration::ZERO);
        assert_eq!(
            state.isolated_start_delay("good", now),
            Duration::ZERO,
            "the cluster has refused nothing"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rejected_version_is_not_submitted_again() {
        let (mut state, now) = (AgentState::default(), Instant::now());
        state.rejected = Some(((Some(2), 0), failure(), now));
        assert_eq!(state.recent_rejection((Some(2), 0), now), Some(&failure()));
        assert_eq!(state.recent_rejection((Some(3), 0), now), None);
        assert_eq!(state.recent_rejection((Some(2), 0), now + REJECTION_RETRY_INTERVAL), None);
    }

    #[tokio::test(start_paused = true)]
    async fn new_store_is_given_everything_again() {
        let (store, mut state, now) = (ControlStore::default(), AgentState::default(), Instant::now());
        let observe = |id: &str, run: &str, revision| {
            store.observe(v1::StoreVersion {
                id: id.into(),
                run: run.into(),
                revision,
                ..Default::default()
            });
            store.generation()
        };
        let workers = [v1::AnnouncedWorker { worker: "a".into(), ..Default::default() }];
        let report_all = |state: &mut AgentState| {
            assert!(state.announcement_due(&workers, true, now) && state.report_due(&report("broken"), now));
            state.registered = Some((Some(1), 0));
        };
        assert_eq!(state.begin_generation(observe("s", "1", 5), false), None);
        report_all(&mut state);
        assert_eq!(state.begin_generation(observe("s", "1", 6), false), None);
        assert!(state.registered.is_some(), "the control plane still runs");
        assert_eq!(state.begin_generation(observe("s", "2", 6), false), None);
        report_all(&mut state);
        assert_eq!(state.begin_generation(observe("s", "3", 2), false), Some(Loss::Restored));
        report_all(&mut state);
        assert_eq!(state.begin_generation(observe("t", "4", 9), false), Some(Loss::Replaced));
        assert_eq!(state.registered, None);
        assert_eq!(AgentState::default().begin_generation(store.generation(), true), Some(Loss::Replaced));
        // One that has not been registered lost nothing.
        assert_eq!(AgentState::default().begin_generation(store.generation(), false), None);
    }

    #[tokio::test(start_paused = true)]
    async fn announcements_repeat_until_all_joined() {
        let mut state = AgentState::default();
        let now = Instant::now();
        let workers = [v1::AnnouncedWorker { worker: "a".into(), ..Default::default() }];
        assert!(state.announcement_due(&workers, false, now));
        assert!(!state.announcement_due(&workers, false, now));
        assert!(state.announcement_due(&workers, false, now + ANNOUNCE_INTERVAL));
        assert!(!state.announcement_due(&workers, true, now + 9 * ANNOUNCE_INTERVAL), "all have joined");
        assert!(state.announcement_due(&[], true, now));
    }

    #[tokio::test(start_paused = true)]
    async fn unchanged_failures_are_reported_once() {
        let mut state = AgentState::default();
        let now = Instant::now();
        assert!(!state.report_due(&report(""), now), "there was no failure");
        assert!(state.report_due(&report("broken"), now) && !state.report_due(&report("broken"), now));
        assert!(state.report_due(&report("broken"), now + REPORT_INTERVAL));
        assert!(state.report_due(&report(""), now));
        assert!(state.event_due("ErrImagePull") && !state.event_due("ErrImagePull"));
        state.start_failed(Start::Shared("h"), failure(), now);
        state.worker_joined(Start::Shared("h"), now);
        assert!(state.event_due("ErrImagePull"));
    }
}
