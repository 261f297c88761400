//! `ChangeTasks`: one action on all tasks that match a filter, some per call. Decides nothing that the call for one task does not.

mod retries;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rota_core::TaskKey;
use rota_core::rank::Priority;
use rota_core::task::{self, Desired, State, Task};
use rota_proto::{num, v1};
use rota_store::{Command, Filter};
use tokio::time::Instant;
use tonic::Status;

use super::task_filter;
use super::tasks::Tasks;
use crate::creation::{Scope, managed};
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

/// How far the calls of a change or a count are, as their tokens have it.
#[derive(Default)]
struct Position {
    /// Only older tasks are left.
    before: Option<TaskKey>,
    /// Tasks that were changed, or could not be.
    attempted: u64,
    /// Newest and oldest task that was counted. A change leaves all others alone.
    counted: Option<(TaskKey, TaskKey)>,
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
    position: Position,
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
        let position = Position::parse(&request.page_token)?;
        let action = Action::new(&request)?;
        let list = v1::ListTasksRequest {
            parent: request.parent,
            filter: request.filter,
            page_token: String::new(),
            page_size: MAX_CHANGED,
        };
        let mut filter = task_filter::of(&list)?;
        filter.before = position.before;
        let wanted = action.states();
        filter.states = match filter.states.is_empty() {
            true => wanted.to_vec(),
            false => filter.states.into_iter().filter(|state| wanted.contains(state)).collect(),
        };
        let (count, failed, errors) = (0, 0, BTreeSet::new());
        Ok(Self { tasks, action, filter, trace, scope, expected, position, count, failed, errors })
    }

    pub(super) async fn run(mut self) -> Result<v1::ChangeTasksResponse, Status> {
        let began = Instant::now();
        // Without a state there is no task, and with no filter by state there would be all.
        let mut is_over = self.filter.states.is_empty();
        while !is_over {
            match self.page().await {
                // What was changed is reported. The next call begins here, and fails by itself.
                Err(_) if self.count + self.failed > 0 => break,
                page => is_over = page?,
            }
            if began.elapsed() >= CALL_TIME {
                break;
            }
        }
        let start = match (&self.expected, self.position.counted) {
            // Tasks that are created later are newer than the first one.
            (None, Some((newest, _))) => {
                let before = Some(TaskKey(newest.0.saturating_add(1)));
                Position { before, attempted: 0, ..self.position }.token()
            }
            _ => String::new(),
        };
        let next = Position { before: self.filter.before, ..self.position };
        Ok(v1::ChangeTasksResponse {
            count: num::to_i64(self.count),
            failed_count: num::to_i64(self.failed),
            errors: self.errors.into_iter().collect(),
            start_token: start,
            next_page_token: if is_over { String::new() } else { next.token() },
        })
    }

    /// Counts or changes a page of tasks. Returns whether it was the last one.
    async fn page(&mut self) -> Result<bool, Status> {
        let page = self.tasks.store.reads().list(self.filter.clone()).await.map_err(store)?;
        let oldest = self.position.counted.filter(|_| self.expected.is_some()).map(|(_, oldest)| oldest);
        let fits =
            |task: &Task| Some(task.key) >= oldest && self.scope.contains(task) && self.action.fits(task);
        let found: Vec<_> = page.tasks.into_iter().filter(fits).collect();
        self.attempt(found).await?;
        self.filter.before = page.next;
        Ok(page.next.is_none_or(|next| Some(next) <= oldest))
    }

    /// Counts or changes some tasks.
    async fn attempt(&mut self, found: Vec<Task>) -> Result<(), Status> {
        let number = found.len() as u64;
        let Some(expected) = self.expected else {
            self.count += number;
            if let (Some(first), Some(last)) = (found.first(), found.last()) {
                let newest = self.position.counted.map_or(first.key, |(newest, _)| newest);
                self.position.counted = Some((newest, last.key));
            }
            return Ok(());
        };
        if self.position.attempted.saturating_add(number) > expected {
            let text = format!("more tasks match than the {expected} that were expected: count them again");
            return Err(error("MORE_TASKS_MATCH", text));
        }
        if number == 0 {
            return Ok(());
        }
        let results = match &self.action {
            Action::Update { .. } => self.update(&found).await?,
            Action::Retry { key } => self.retry(&found, key).await?,
        };
        self.position.attempted += number;
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
}

impl Position {
    fn parse(token: &str) -> Result<Self, Status> {
        if token.is_empty() {
            return Ok(Self::default());
        }
        let numbers: Result<Vec<_>, _> = token.split('.').map(|part| u64::from_str_radix(part, 16)).collect();
        match numbers.as_deref() {
            Ok(&[before, attempted, newest, oldest]) => Ok(Self {
                before: Some(TaskKey(before)),
                attempted,
                counted: (newest > 0).then_some((TaskKey(newest), TaskKey(oldest))),
            }),
            _ => Err(invalid("page_token", "is not a token of an earlier call")),
        }
    }

    /// Returns its token; empty where nothing is left.
    fn token(&self) -> String {
        let Some(before) = self.before else { return String::new() };
        let (newest, oldest) = self.counted.unwrap_or_default();
        format!("{:x}.{:x}.{:x}.{:x}", before.0, self.attempted, newest.0, oldest.0)
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
