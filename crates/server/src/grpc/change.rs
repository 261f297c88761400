//! `ChangeTasks`: one action on all tasks that match a filter, some per call. Decides nothing that the call for one task does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rota_core::TaskKey;
use rota_core::rank::Priority;
use rota_core::task::{self, Desired, State, Task};
use rota_proto::{num, v1};
use rota_store::{Command, Filter};
use tokio::time::Instant;
use tonic::Status;

use super::managed::Scope;
use super::tasks::Tasks;
use super::{managed, task_filter};
use crate::store_client::no_reply;
use crate::wire::check;
use crate::wire::status::{error, invalid, refused, store};

/// Time after which a call returns, to be called again.
const CALL_TIME: Duration = Duration::from_secs(2);
/// Tasks that one commit changes: few, so that other commands hardly wait.
const MAX_CHANGED: i32 = 100;
/// Different reasons of failures that a response has.
const MAX_ERRORS: usize = 10;
/// Length of a key, which the id of each task is added to.
const MAX_KEY: usize = 64;

/// What is done to each task.
enum Action {
    Update { priority: Option<Priority>, desired: Option<Desired>, reason: String },
    Retry { key: String },
}

/// A call, and how far it is.
pub(super) struct Change<'a> {
    tasks: &'a Tasks,
    action: Action,
    filter: Filter,
    trace: task::Trace,
    scope: Scope,
    /// Number of tasks that the whole change may concern; `None` only counts.
    expected: Option<u64>,
    /// Those of the calls so far.
    attempted: u64,
    count: u64,
    failed: u64,
    errors: BTreeSet<String>,
}

impl<'a> Change<'a> {
    pub(super) fn new(
        tasks: &'a Tasks,
        request: v1::ChangeTasksRequest,
        trace: task::Trace,
        scope: Scope,
    ) -> Result<Self, Status> {
        let expected = match (request.validate_only, u64::try_from(request.expected_count)) {
            (true, _) => None,
            (false, Ok(count)) if count > 0 => Some(count),
            _ => return Err(invalid("expected_count", "is required: the number of tasks that were counted")),
        };
        let (page_token, attempted) = match request.page_token.split_once('.') {
            None => (request.page_token.clone(), 0),
            Some((page, attempted)) => {
                let attempted = attempted.parse();
                let attempted =
                    attempted.map_err(|_| invalid("page_token", "is not a token of an earlier call"))?;
                (page.to_owned(), attempted)
            }
        };
        let action = Action::new(&request)?;
        let list = v1::ListTasksRequest {
            parent: request.parent,
            filter: request.filter,
            page_token,
            page_size: MAX_CHANGED,
        };
        let mut filter = task_filter::of(&list)?;
        let wanted = action.states();
        filter.states = match filter.states.is_empty() {
            true => wanted.to_vec(),
            false => filter.states.into_iter().filter(|state| wanted.contains(state)).collect(),
        };
        let (count, failed, errors) = (0, 0, BTreeSet::new());
        Ok(Self { tasks, action, filter, trace, scope, expected, attempted, count, failed, errors })
    }

    pub(super) async fn run(mut self) -> Result<v1::ChangeTasksResponse, Status> {
        let began = Instant::now();
        let (mut start, mut next) = (None, None);
        // Without a state there is no task, and with no filter by state there would be all.
        while !self.filter.states.is_empty() {
            let page = self.tasks.store.reads().list(self.filter.clone()).await.map_err(store)?;
            let fits = |task: &Task| self.scope.contains(task) && self.action.fits(task);
            let found: Vec<_> = page.tasks.into_iter().filter(fits).collect();
            // Tasks that are created later are newer than the first one.
            start = start.or_else(|| found.first().map(|newest| TaskKey(newest.key.0 + 1)));
            next = page.next;
            self.attempt(found).await?;
            self.filter.before = next;
            if next.is_none() || began.elapsed() >= CALL_TIME {
                break;
            }
        }
        let token = |key: Option<TaskKey>, attempted| {
            key.map(|key| format!("{:x}.{attempted}", key.0)).unwrap_or_default()
        };
        Ok(v1::ChangeTasksResponse {
            count: num::to_i64(self.count),
            failed_count: num::to_i64(self.failed),
            errors: self.errors.into_iter().collect(),
            start_token: if self.expected.is_none() { token(start, 0) } else { String::new() },
            next_page_token: token(next, self.attempted),
        })
    }

    /// Counts or changes some tasks.
    async fn attempt(&mut self, found: Vec<Task>) -> Result<(), Status> {
        let number = found.len() as u64;
        let Some(expected) = self.expected else {
            self.count += number;
            return Ok(());
        };
        if self.attempted + number > expected {
            let text = format!("more tasks match than the {expected} that were expected: count them again");
            return Err(error("MORE_TASKS_MATCH", text));
        }
        self.attempted += number;
        if number == 0 {
            return Ok(());
        }
        let results = match &self.action {
            Action::Update { .. } => self.update(&found).await?,
            Action::Retry { key } => self.retry(&found, key).await?,
        };
        for result in results {
            match result {
                Ok(()) => self.count += 1,
                Err(status) => {
                    self.failed += 1;
                    if self.errors.len() < MAX_ERRORS {
                        self.errors.insert(status.message().to_owned());
                    }
                }
            }
        }
        Ok(())
    }

    async fn update(&self, found: &[Task]) -> Result<Vec<Result<(), Status>>, Status> {
        let (mut batch, mut results) = (Vec::new(), Vec::new());
        for task in found {
            match self.action.command(task) {
                Ok(command) => {
                    batch.push(Command::Task { namespace: task.namespace.clone(), id: task.id, command });
                }
                Err(status) => results.push(Err(status)),
            }
        }
        let count = batch.len();
        let mut replies = self.tasks.store.apply(batch).await.map_err(store)?.into_iter();
        let reply = || replies.next().ok_or_else(no_reply)?.map(drop).map_err(refused);
        results.extend(std::iter::repeat_with(reply).take(count));
        Ok(results)
    }

    async fn retry(&self, found: &[Task], key: &str) -> Result<Vec<Result<(), Status>>, Status> {
        let creator = self.tasks.creator.of_batch();
        let (mut prepared, mut results) = (Vec::new(), Vec::new());
        for old in found {
            let trace = task::Trace { span_id: rand::random(), ..self.trace.clone() };
            let request =
                v1::RetryTaskRequest { idempotency_key: format!("{key}-{}", old.id), ..Default::default() };
            match self.tasks.prepare_copy(&creator, old, request, trace, self.scope).await {
                Ok(ready) => prepared.push(ready),
                Err(status) => results.push(Err(status)),
            }
        }
        let answers = self.tasks.creator.commit(prepared).await?;
        results.extend(answers.into_iter().map(|answer| answer.map(drop)));
        Ok(results)
    }
}

impl Action {
    fn new(request: &v1::ChangeTasksRequest) -> Result<Self, Status> {
        let update = |priority, desired| {
            let reason =
                if desired == Some(Desired::Cancelled) { request.reason.clone() } else { String::new() };
            Self::Update { priority, desired, reason }
        };
        check::length("reason", &request.reason, check::MAX_TITLE)?;
        Ok(match request.action() {
            v1::TaskAction::Unspecified => return Err(invalid("action", "is required")),
            v1::TaskAction::Cancel => update(None, Some(Desired::Cancelled)),
            v1::TaskAction::Suspend => update(None, Some(Desired::Suspended)),
            v1::TaskAction::Resume => update(None, Some(Desired::Run)),
            v1::TaskAction::SetPriority => {
                let priority = Priority::new(request.priority);
                update(Some(priority.ok_or_else(|| invalid("priority", "must be from 0 to 10"))?), None)
            }
            v1::TaskAction::Retry => {
                check::length("idempotency_key", &request.idempotency_key, MAX_KEY)?;
                if request.idempotency_key.is_empty() && !request.validate_only {
                    return Err(invalid(
                        "idempotency_key",
                        "is required, the same for all calls of a change",
                    ));
                }
                Self::Retry { key: request.idempotency_key.clone() }
            }
        })
    }

    /// Returns the states of the tasks that it applies to.
    fn states(&self) -> &'static [State] {
        match self {
            Self::Update { .. } => {
                &[State::Pending, State::Queued, State::Assigned, State::Running, State::InputRequired]
            }
            Self::Retry { .. } => &[State::Succeeded, State::Failed, State::Cancelled],
        }
    }

    /// Whether it changes something of a task in these states.
    fn fits(&self, task: &Task) -> bool {
        match self {
            Self::Update { desired: Some(desired @ (Desired::Cancelled | Desired::Suspended)), .. } => {
                task.desired != *desired && task.desired != Desired::Cancelled
            }
            Self::Update { desired: Some(Desired::Run), .. } => task.desired == Desired::Suspended,
            Self::Update { .. } | Self::Retry { .. } => true,
        }
    }

    fn command(&self, task: &Task) -> Result<task::Command, Status> {
        let Self::Update { priority, desired, reason } = self else {
            return Err(Status::internal("a retry is no update"));
        };
        if *desired != Some(Desired::Cancelled) {
            managed::check(&task.labels, &BTreeMap::new(), "a task", || {
                "change the resources with kubectl".to_owned()
            })?;
        }
        Ok(task::Command::Update {
            priority: *priority,
            labels: None,
            desired: *desired,
            reason: reason.clone(),
        })
    }
}
