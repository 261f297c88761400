//! `rota bulk`: one action on all tasks that match a filter.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use rota_crds::HumanDuration;
use rota_proto::v1::{ChangeTasksRequest, TaskAction, TaskFilter};
use serde_json::json;

use super::get::State;
use super::pairs::{self, Pair};
use super::since;
use crate::context::Context;
use crate::exit::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  rota bulk cancel --agent coder --state queued
  rota bulk cancel --agent coder --state queued --yes
  rota bulk priority --priority 8 --label team=payments --yes
  rota bulk retry --state failed --since 1d --yes

Without --yes, the tasks are counted and nothing is changed. With it they are counted too, and no more than that are changed; tasks that \
are created meanwhile are left alone. Repeating an interrupted command continues it, but for `retry`, which would copy tasks again.";

/// Cancel, suspend, resume or retry all tasks that match a filter, or set their priority
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Bulk {
    /// What is done to each task that it applies to
    pub action: Action,
    /// All tasks of the namespace
    #[arg(long)]
    pub all: bool,
    /// Only tasks in this comma-separated state; may be repeated
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub state: Vec<State>,
    /// Only tasks of this agent
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Only tasks with this label; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pairs::pair)]
    pub label: Vec<Pair>,
    /// Only tasks of this owner
    #[arg(long, value_name = "TEXT")]
    pub owner: Option<String>,
    /// Only tasks that were created in this time up to now, such as 1d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub since: Option<HumanDuration>,
    /// New priority, from 0 to 10
    #[arg(long, value_name = "NUMBER", required_if_eq("action", "priority"))]
    pub priority: Option<i32>,
    /// Reason of a cancellation, recorded in the tasks' logs
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Change the tasks, instead of only counting them
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    Cancel,
    Suspend,
    Resume,
    /// Set the priority to that of --priority
    Priority,
    Retry,
}

impl From<Action> for TaskAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Cancel => Self::Cancel,
            Action::Suspend => Self::Suspend,
            Action::Resume => Self::Resume,
            Action::Priority => Self::SetPriority,
            Action::Retry => Self::Retry,
        }
    }
}

/// What all calls of a change or a count have done.
#[derive(Debug, Default)]
struct Done {
    count: i64,
    failed: i64,
    errors: BTreeSet<String>,
    start: String,
}

impl Bulk {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let filter = self.filter();
        if filter == TaskFilter::default() && !self.all {
            let failure = Failure::usage("no filter is given".to_owned());
            return Err(failure
                .hint("name tasks by --state, --agent, --label, --owner or --since, or --all".to_owned())
                .into());
        }
        let request = ChangeTasksRequest {
            parent: context.parent(false),
            filter: Some(filter),
            action: TaskAction::from(self.action).into(),
            priority: self.priority.unwrap_or_default(),
            reason: self.reason.clone().unwrap_or_default(),
            idempotency_key: format!("bulk-{}", uuid::Uuid::new_v4()),
            ..ChangeTasksRequest::default()
        };
        let mut counted = Done::default();
        all(context, ChangeTasksRequest { validate_only: true, ..request.clone() }, &mut counted).await?;
        let action =
            self.action.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        if counted.count == 0 || !self.yes {
            match context.out.is_human() {
                true => context.out.line(&format!("{action}: {} tasks match", counted.count))?,
                false => context.out.value(&json!({"action": action, "matched": counted.count}))?,
            }
            if counted.count > 0 {
                context.reporter.line("repeat the command with --yes to change them");
            }
            return Ok(Exit::Ok);
        }
        let (expected_count, page_token) = (counted.count, counted.start);
        let mut done = Done::default();
        let request = ChangeTasksRequest { expected_count, page_token, ..request };
        let result = all(context, request, &mut done).await;
        // Also of a change that has failed in the middle.
        let (matched, changed) = (counted.count, done.count);
        if context.out.is_human() {
            context.out.line(&format!("{action}: {changed} of {matched} tasks changed"))?;
        } else {
            let failed = done.failed;
            let value = json!({"action": action, "matched": matched, "changed": changed, "failed": failed});
            context.out.value(&value)?;
        }
        result?;
        if done.failed == 0 {
            return Ok(Exit::Ok);
        }
        context.reporter.error(&format!("{} tasks could not be changed", done.failed));
        for error in &done.errors {
            context.reporter.cause(error);
        }
        Ok(Exit::Failed)
    }

    fn filter(&self) -> TaskFilter {
        TaskFilter {
            states: self.state.iter().map(|state| state.to_api().into()).collect(),
            labels: pairs::map(&self.label),
            agent: self.agent.clone().unwrap_or_default(),
            owner: self.owner.clone().unwrap_or_default(),
            created_after: self.since.as_ref().map(since),
            ..TaskFilter::default()
        }
    }
}

/// Makes all calls of a change or a count, and adds up what they have done.
async fn all(context: &Context, mut request: ChangeTasksRequest, done: &mut Done) -> anyhow::Result<()> {
    loop {
        let answer = context.client.change_tasks(request.clone()).await?;
        done.count += answer.count;
        done.failed += answer.failed_count;
        done.errors.extend(answer.errors);
        // The last one: it has the oldest task that was counted, too.
        if !answer.start_token.is_empty() {
            done.start = answer.start_token;
        }
        if answer.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = answer.next_page_token;
    }
}
