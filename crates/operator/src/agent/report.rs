//! What is shown of an agent's pool: its status, and why workers do not start, for the tasks that wait for them.

use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::events::EventType;
use rota_core::text::prefix;
use rota_crds::resource::Agent;
use rota_proto::v1;
use tokio::time::Instant;

use super::dereference::WorkerPod;
use super::start_failure::StartFailure;
use super::state::AgentState;
use super::status::MAX_MESSAGE_BYTES;
use super::status::{self, StatusInput};
use super::{Agents, requeue};
use crate::error::ReconcileError;

/// Tasks with workers of their own that are reported, as many as the control plane accepts.
const MAX_ISOLATED: usize = 100;

impl Agents {
    /// Returns why the workers of a pool do not start, or are cut off.
    pub(super) fn start_failure(
        &self,
        state: &AgentState,
        pods: &[WorkerPod],
        hash: &str,
    ) -> Option<StartFailure> {
        let mut starting = pods.iter().filter(|pod| pod.task.is_none() && pod.is_starting());
        let failing = starting.find_map(|pod| pod.start_failure.as_ref());
        let failure = failing.or_else(|| state.start_failure(hash, Instant::now())).cloned();
        failure.or_else(|| state.history.disconnected(pods, &self.context.options.workers.endpoint))
    }

    /// Returns the minimum interval between status writes that change counters only.
    pub(super) fn status_interval(&self) -> Duration {
        requeue::status_interval(self.states.count())
    }

    /// Writes the status, if it is due.
    pub(super) async fn write_status(
        &self,
        agent: &Agent,
        state: &mut AgentState,
        input: &StatusInput<'_>,
        now: Timestamp,
    ) -> Result<(), ReconcileError> {
        let mut built = status::build(agent, input, now);
        built.last_failure = status::last_failure(agent, state.last_failure.as_ref(), now);
        built.accepted_spec = state.accepted.text();
        let old = state.partial_status.as_ref().or(agent.status.as_ref());
        let recent = state.status_written.is_some_and(|at| at.elapsed() < self.status_interval());
        if old != Some(&built) && (!recent || status::differs_beyond_counters(old, &built)) {
            let complete = self.context.write_status::<Agent>("agent", &agent.metadata, &built).await?;
            state.partial_status = (!complete).then_some(built);
            state.status_written = Some(Instant::now());
        }
        Ok(())
    }

    /// Reports why workers do not start, to users and to the control plane, which shows it on the tasks that wait for them.
    pub(super) async fn report_start_failures(
        &self,
        agent: &Agent,
        name: &str,
        state: &mut AgentState,
        pods: &[WorkerPod],
        failure: Option<&StartFailure>,
    ) -> Result<(), ReconcileError> {
        if let Some(failure) = failure.filter(|failure| state.event_due(&failure.reason)) {
            self.context.event(agent, EventType::Warning, &failure.reason, "Start", &failure.message).await;
        }
        let report = v1::ReportAgentRequest {
            name: name.to_owned(),
            message: failure.map(|failure| bounded(&failure.message)).unwrap_or_default(),
            isolated: isolated_failures(state, pods, Instant::now()),
        };
        if state.report_due(&report, Instant::now()) {
            self.context.control.report_agent(report).await?;
        }
        Ok(())
    }
}

/// Returns why the workers of isolated tasks do not start. Of each task only: its pod may need what those of others do not.
fn isolated_failures(state: &AgentState, pods: &[WorkerPod], now: Instant) -> Vec<v1::IsolatedStartFailure> {
    let starting = pods.iter().filter(|pod| pod.is_starting());
    let starting = starting.filter_map(|pod| Some((pod.task.as_deref()?, pod.start_failure.as_ref()?)));
    let mut failures: Vec<_> = starting.chain(state.isolated_failures(now)).collect();
    failures.sort_by_key(|(task, _)| *task);
    failures.dedup_by_key(|(task, _)| *task);
    let failures = failures.into_iter().take(MAX_ISOLATED);
    failures
        .map(|(task, failure)| v1::IsolatedStartFailure {
            task: task.to_owned(),
            message: bounded(&failure.message),
        })
        .collect()
}

fn bounded(message: &str) -> String {
    prefix(message, MAX_MESSAGE_BYTES).to_owned()
}
