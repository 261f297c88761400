//! Creation of a task: its record before the first step, and that step.

use std::collections::BTreeMap;
use std::time::Duration;

use super::apply::Step;
use super::{Desired, Limits, Own, State, StateChange, Task, Trace, Transition};
use crate::rank::Priority;
use crate::target::Target;
use crate::usage::Usage;
use crate::{Fence, Namespace, TaskId, TaskKey, Timestamp, retry};

impl Task {
    /// Returns a record for [`create`], with defaults for everything that a caller may set.
    pub fn new(id: TaskId, namespace: Namespace, target: Target) -> Self {
        Self {
            key: TaskKey::default(),
            id,
            namespace,
            alias: None,
            title: String::new(),
            owner: String::new(),
            parent: None,
            thread: None,
            step: None,
            ttl: None,
            retry_of: None,
            labels: BTreeMap::new(),
            target,
            priority: Priority::default(),
            desired: Desired::default(),
            limits: Limits::default(),
            defaults: Limits::default(),
            retry: retry::Policy::default(),
            not_before: None,
            dependencies: Vec::new(),
            trace: Trace::default(),
            own: Own::default(),
            continues_other_agent: false,
            credential: None,
            agent_known: false,
            state: State::Pending,
            created_at: Timestamp::default(),
            ready_at: None,
            away: Duration::ZERO,
            cooled: Duration::ZERO,
            quota: None,
            budget_wait: None,
            queued_at: None,
            started_at: None,
            ended_at: None,
            retry_at: None,
            confirm_by: None,
            attempts: 0,
            fence: Fence::default(),
            stale_noted: Fence::default(),
            assignment: None,
            lost: None,
            last_worker: None,
            failures: 0,
            own_failures: 0,
            children: Vec::new(),
            acknowledged: false,
            waits: 0,
            worker_losses: 0,
            superseded: Vec::new(),
            losses: Vec::new(),
            unclear_losses: Vec::new(),
            hand_backs: 0,
            avoid: None,
            start_failed: false,
            unaccepted_losses: 0,
            logged_bytes: 0,
            worked: Duration::ZERO,
            refusals: 0,
            refusal: None,
            progress: None,
            usage: Usage::default(),
            failure: None,
            session: None,
            inputs: 0,
            answered: Vec::new(),
            granted: Vec::new(),
            questions: Vec::new(),
            nearly_spent: false,
            log_seq: 0,
            has_secrets: false,
            has_result: false,
            has_artifacts: false,
            checkpointed: 0,
            checkpointed_before: 0,
            last_failure: None,
            undelivered: None,
            concluded: 0,
            messages: Vec::new(),
            result_size: 0,
        }
    }
}

/// Creates a task from a record of [`Task::new`], whose dependencies and `agent_known` are as the store finds them now.
/// The task is PENDING or QUEUED, or has ended already: it was cancelled from the start, or a dependency has failed.
pub fn create(mut task: Task, now: Timestamp) -> (Task, Transition) {
    debug_assert_eq!(task.log_seq, 0, "the task has been created before");
    task.agent_known |= task.agent().is_none();
    task.created_at = now;
    let mut step = Step { task: &mut task, now, out: Transition::default() };
    step.go(StateChange::new(State::Pending, "created"));
    if let Some(super::Event { body: super::Body::State(change), .. }) = step.out.events.first_mut() {
        change.from = None;
    }
    step.settle();
    let out = step.out;
    (task, out)
}
