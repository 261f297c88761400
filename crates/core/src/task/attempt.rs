//! Attempts: the assignment of a task to a worker, and the facts of one that has ended. Knows no rules; `run` has them.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::release::RELEASED;
use super::{AttemptRef, State, StateChange, Stopping, Storing, Task};
use crate::failure::Failure;
use crate::quota::ModelAccess;
use crate::spending::MAX_LIMIT_MICRO_USD;
use crate::usage::Usage;
use crate::{AgentName, Epoch, Fence, Timestamp, WorkerName};

/// Reports of one attempt that the log takes, so that no task fills the disk of all others.
pub const MAX_LOGGED_REPORTS: u64 = 250_000;
/// Bytes of one attempt's reports that the log takes.
pub const MAX_LOGGED_BYTES: u64 = 256 << 20;
/// Bytes of the reports of all of a task's attempts that the log takes.
pub const MAX_LOGGED_BYTES_OF_TASK: u64 = 1 << 30;

/// Prefixes of environment variables that select the model or carry its credentials.
const MODEL_VARIABLES: [&str; 6] = ["ANTHROPIC_", "AWS_", "AZURE_", "CLAUDE_CODE_", "CLOUD_ML_", "GOOGLE_"];

/// Prefixes of other variables that lead model calls elsewhere: of the runtime of Claude Code, and of the loader.
const ROUTE_VARIABLES: [&str; 6] = ["BUN_", "LD_", "NODE_", "PATH", "SSL_", "HOME"];

/// Parts of an attempt that come from the task instead of its agent. Failures of these are not the agent's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Own {
    /// The task's spec names a runtime, hence the program that runs.
    pub program: bool,
    /// The task brings model credentials: secrets, or variables that select the model.
    pub credentials: bool,
    /// The task chooses the model, or which of the agent's secrets it gets: its choice may be what the model API rejects.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub choice: bool,
    /// The task sets variables that may lead model calls to another API than the agent's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub endpoint: bool,
}

impl Own {
    /// Derives the task's own parts from its spec. `is_credential`: whether a variable holds a credential for the model, and does
    /// nothing else.
    pub fn of<'a>(
        runtime: bool,
        choice: bool,
        is_credential: fn(&str) -> bool,
        secrets: impl IntoIterator<Item = &'a str>,
        variables: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let selects_model = |name: &str| MODEL_VARIABLES.iter().any(|prefix| name.starts_with(prefix));
        let mut own = Self { program: runtime, choice, ..Self::default() };
        for (name, secret) in secrets
            .into_iter()
            .map(|name| (name, true))
            .chain(variables.into_iter().map(|name| (name, false)))
        {
            own.credentials |= secret || selects_model(name);
            own.endpoint |= leads_elsewhere(name, selects_model(name) && !is_credential(name));
        }
        own
    }

    /// Whether the agent is to blame if the model API rejects its credentials.
    pub fn authenticates_as_agent(&self) -> bool {
        !self.credentials && !self.choice
    }

    /// Whether everything comes from the agent.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a variable may lead model calls to another API.
fn leads_elsewhere(name: &str, of_model: bool) -> bool {
    let routes = || ROUTE_VARIABLES.iter().any(|prefix| name.starts_with(prefix));
    let proxy = || name.to_ascii_uppercase().ends_with("_PROXY");
    of_model || routes() || proxy() || name == "CLAUDE_CONFIG_DIR"
}

/// The assignment of a task to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub worker: WorkerName,
    /// The agent that the worker serves; `None` only in records written before this field existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// The worker's session when it was last known to have the attempt.
    pub epoch: Epoch,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    pub at: Timestamp,
    /// When the worker started it; `None` until then, and in running records written before this field existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Id of the attempt's trace span, and the source of jitter for a rejected assignment.
    pub span_id: [u8; 8],
    /// Parts that come from the task instead of the agent.
    #[serde(default, skip_serializing_if = "Own::is_none")]
    pub own: Own,
    /// What its model calls use, as far as it is known.
    #[serde(default, skip_serializing_if = "ModelAccess::is_unknown")]
    pub model: ModelAccess,
    /// Highest `attempt_seq` in the log.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub attempt_seq: u64,
    /// Bytes of its reports in the log.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub logged_bytes: u64,
    /// Whether its last reports are left out of the log, as an entry of the log states.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlogged: bool,
    /// What the attempt has reserved of the budgets of its agent and its namespace, in millionths of a US dollar.
    #[serde(default, skip_serializing_if = "no_cost")]
    pub reserved: i64,
    /// What the attempt has used so far.
    #[serde(default, skip_serializing_if = "Usage::is_zero")]
    pub usage: Usage,
    /// Inputs of the task when it was assigned: none of them is for this attempt.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub inputs_before: u64,
    /// Questions that wait for an answer: id and encoded `InputRequest`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_input: Vec<(String, Bytes)>,
    /// Since when it waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_at: Option<Timestamp>,
    /// Time since its start that does not count as work: it waited for a person.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub paused: Duration,
    /// When its worker last reported something about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<Timestamp>,
    /// Whether its programs have ended, and what they left is being stored: the clock stands.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub work_ended: bool,
    /// Set while that is done without a slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storing: Option<Storing>,
    /// When its worker last came back with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Timestamp>,
    /// The last jump of the clock that its times have moved with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jumped_at: Option<Timestamp>,
    /// Set while the control plane waits for the end that it has requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<Box<Stopping>>,
}

/// An attempt whose worker was lost. If the worker comes back before another one was assigned, it continues it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostAttempt {
    /// The assignment as it was at the loss.
    pub assignment: Assignment,
    /// What the attempt had added to the time on workers.
    pub worked: Duration,
    /// Whether the end was planned, hence is none of the task's worker losses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub planned: bool,
}

fn no_cost(micro_usd: &i64) -> bool {
    *micro_usd == 0
}

impl Task {
    /// Whether the attempt is the one that succeeded.
    pub(super) fn has_succeeded_by(&self, attempt: &AttemptRef) -> bool {
        self.state == State::Succeeded
            && attempt.fence == self.fence
            && self.last_worker.as_ref() == Some(&attempt.by.worker)
    }
}

impl Assignment {
    /// Returns what is left of its reservation: nothing once its programs have ended, which spend no more.
    pub fn unspent(&self) -> i64 {
        if self.work_ended {
            return 0;
        }
        // Sums of such amounts never overflow, also of records that were written before the bound existed.
        self.reserved.saturating_sub(self.usage.cost_micro_usd).clamp(0, MAX_LIMIT_MICRO_USD)
    }

    /// Returns a random number from 0 to 1, which came in with the assignment: decisions draw none themselves.
    pub fn jitter(&self) -> f64 {
        let [a, b, c, d, ..] = self.span_id;
        f64::from(u32::from_le_bytes([a, b, c, d])) / f64::from(u32::MAX)
    }

    /// Whether the log takes no more reports of the attempt, after those of `earlier` bytes of the task's other ones.
    pub(super) fn is_log_full(&self, earlier: u64) -> bool {
        self.attempt_seq > MAX_LOGGED_REPORTS
            || self.logged_bytes > MAX_LOGGED_BYTES
            || self.logged_bytes.saturating_add(earlier) > MAX_LOGGED_BYTES_OF_TASK
    }

    /// Returns the time that the worker has worked on it; zero before its start.
    pub(super) fn worked(&self, now: Timestamp) -> Duration {
        let Some(started) = self.started_at else { return Duration::ZERO };
        self.paused_at.unwrap_or(now).since(started).saturating_sub(self.paused)
    }

    /// Stops the clock at the last report, or when the worker was last `seen`. What became of the attempt after it is not
    /// known: the worker may have ended then, and the control plane may have been away ever since.
    pub(super) fn stop_when_last_known(&mut self, seen: Option<Timestamp>) {
        if let Some(started) = self.started_at {
            let known = [self.reported_at, seen].into_iter().flatten().fold(started, Ord::max);
            self.pause(true, known);
        }
    }

    /// Stops the clock at its start: nothing has worked since.
    pub(super) fn undo_work(&mut self) {
        (self.paused_at, self.paused) = (self.started_at, Duration::ZERO);
    }

    /// Stops the clock while it waits for a person, or lets it run again.
    pub(super) fn pause(&mut self, pause: bool, now: Timestamp) {
        if pause {
            self.paused_at.get_or_insert(now);
        } else if let Some(since) = self.paused_at.take() {
            self.paused = self.paused.saturating_add(now.since(since));
        }
    }
}

/// Reasons of the steps by which a task loses its worker.
pub(super) const WORKER_LOST: &str = "worker_lost";
pub(super) const HANDED_BACK: &str = "handed_back";
pub(super) const QUARANTINED: &str = "quarantined";

/// The result of an attempt, independent of what becomes of its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The attempt produced the task's result.
    Succeeded,
    /// The attempt failed, was rejected by its worker, or ran out of time.
    Failed,
    Cancelled,
    /// The worker was lost or ended the attempt unasked.
    Lost,
    /// Another attempt continues once a person has answered.
    Released,
}

/// An attempt that has left its worker, with the facts that its task's record no longer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedAttempt {
    /// The assignment as it was at the end, with the usage of this attempt alone.
    pub assignment: Assignment,
    pub fence: Fence,
    /// When a worker started it; `None` if none did.
    pub started_at: Option<Timestamp>,
    pub at: Timestamp,
    pub outcome: AttemptOutcome,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

impl EndedAttempt {
    /// Derives the end of an attempt from the step that takes the task off its worker.
    pub(super) fn new(
        from: State,
        step: &StateChange,
        assignment: Assignment,
        fence: Fence,
        at: Timestamp,
    ) -> Self {
        let started = matches!(from, State::Running | State::InputRequired);
        let outcome = match step.to {
            State::Succeeded => AttemptOutcome::Succeeded,
            State::Cancelled => AttemptOutcome::Cancelled,
            _ if matches!(&*step.reason, WORKER_LOST | HANDED_BACK | QUARANTINED) => AttemptOutcome::Lost,
            _ if step.reason == RELEASED => AttemptOutcome::Released,
            _ => AttemptOutcome::Failed,
        };
        Self {
            fence,
            started_at: started.then(|| assignment.started_at.unwrap_or(assignment.at)),
            at,
            outcome,
            failure: step.failure.clone(),
            assignment,
        }
    }
}

/// A stay in the queue that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueWait {
    /// When the task joined the queue.
    pub since: Timestamp,
    /// When it left the queue.
    pub until: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_key(name: &str) -> bool {
        name == "ANTHROPIC_API_KEY"
    }

    #[test]
    fn own_parts_follow_from_the_spec() {
        let of = |runtime, secrets: bool, variables: &[&'static str]| {
            let secrets = secrets.then_some("TOKEN");
            let own = Own::of(runtime, false, is_key, secrets, variables.iter().copied());
            assert_eq!(own.authenticates_as_agent(), !own.credentials);
            (own.program, own.credentials)
        };
        assert!(!Own::of(false, true, is_key, [], []).authenticates_as_agent());
        assert_eq!(of(false, false, &["PATH", "MY_ANTHROPIC_KEY"]), (false, false));
        assert_eq!(of(true, false, &[]), (true, false));
        assert_eq!(of(false, true, &[]), (false, true));
        assert_eq!(of(false, false, &["ANTHROPIC_BASE_URL"]), (false, true));
        assert_eq!(of(false, false, &["CLAUDE_CODE_USE_BEDROCK"]), (false, true));
        for name in ["AWS_BEARER_TOKEN_BEDROCK", "GOOGLE_APPLICATION_CREDENTIALS", "CLAUDE_CODE_OAUTH_TOKEN"]
        {
            assert_eq!(of(false, false, &[name]), (false, true), "{name}");
        }
    }

    #[test]
    fn endpoints_are_no_credentials() {
        for (name, elsewhere) in [
            ("ANTHROPIC_BASE_URL", true),
            ("CLAUDE_CODE_USE_BEDROCK", true),
            ("https_proxy", true),
            ("NODE_OPTIONS", true),
            ("ANTHROPIC_API_KEY", false),
            ("GITHUB_TOKEN", false),
        ] {
            assert_eq!(Own::of(false, false, is_key, [], [name]).endpoint, elsewhere, "{name}");
            assert_eq!(Own::of(false, false, is_key, [name], []).endpoint, elsewhere, "{name}");
        }
    }
}
