//! `rota dead-letters`: tasks that have failed for good and were not run again. Must not know retry policies: what the control plane would
//! retry is not failed yet.

use std::collections::BTreeMap;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use pbjson_types::FieldMask;
use rota_crds::HumanDuration;
use rota_proto::labels::{CLUSTER, KIND, REPLAY_OF, REPLAYED};
use rota_proto::v1::{
    CreateTaskRequest, FailureClass, GetTaskRequest, ListTasksRequest, RetryTaskRequest, Task, TaskFilter,
    TaskSpec, TaskState, UpdateTaskRequest,
};

use super::pairs::{self, Pair};
use super::{editor, since, state_of, worst};
use crate::context::Context;
use crate::exit::{self, Exit, Failure};
use crate::output::{Paint, Table, age, first_line, target, word};

const EXAMPLES: &str = "\
Examples:
  rota dead-letters list
  rota dead-letters list --class overload --since 1d -o json
  rota describe 0198b6a2-6c1e-7f5e-9d3a-5f2d8c1b7e40
  rota dead-letters replay 0198b6a2-6c1e-7f5e-9d3a-5f2d8c1b7e40
  rota dead-letters replay nightly --edit
  rota dead-letters replay --class overload --agent coder --dry-run
  rota dead-letters replay --all --limit 500

A dead letter is a task that has failed, whose retries are used up, and which was not run again. A replay creates a copy, as `rota retry`
does. Repeating an interrupted command continues it: no dead letter is replayed twice. Steps of workflows are run again with `rota workflow
rerun --failed`.";

/// List tasks that have failed for good, and run them again
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct DeadLetters {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// List dead letters, newest first
    List {
        #[command(flatten)]
        which: Which,
        /// Include those that were run again
        #[arg(long)]
        replayed: bool,
        /// Maximum number of dead letters listed
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: usize,
        /// Include the dead letters of all namespaces
        #[arg(long, short = 'A')]
        all_namespaces: bool,
    },
    /// Run dead letters again, the oldest first: those that are named, or all that match the filters
    Replay(Box<Replay>),
}

#[derive(Debug, Args)]
pub struct Replay {
    /// Ids or names of failed tasks
    #[arg(conflicts_with_all = ["all", "class", "agent", "label", "kind", "owner", "since"])]
    pub tasks: Vec<String>,
    #[command(flatten)]
    pub which: Which,
    /// All dead letters of the namespace
    #[arg(long)]
    pub all: bool,
    /// Maximum number of tasks that one command creates
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// Edit the specification of the task in $VISUAL or $EDITOR before it runs again
    #[arg(long, conflicts_with = "dry_run")]
    pub edit: bool,
    /// Secret environment variable, taken from the environment of this command, since secrets of finished tasks are deleted; may be repeated
    #[arg(long, value_name = "NAME")]
    pub secret_env: Vec<String>,
    /// List what would run again, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Which dead letters a command is about.
#[derive(Debug, Args)]
pub struct Which {
    /// Only failures of this comma-separated class, such as overload; may be repeated
    #[arg(long, value_name = "CLASS", value_delimiter = ',', value_parser = class)]
    pub class: Vec<FailureClass>,
    /// Only tasks of this agent
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Only tasks with this label; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pairs::pair)]
    pub label: Vec<Pair>,
    /// Only tasks of this kind
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Only tasks of this owner
    #[arg(long, value_name = "TEXT")]
    pub owner: Option<String>,
    /// Only tasks that were created in this time up to now, such as 1d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub since: Option<HumanDuration>,
}

fn class(text: &str) -> Result<FailureClass, String> {
    let full = format!("FAILURE_CLASS_{}", text.replace(['-', ' '], "_").to_uppercase());
    let known = FailureClass::from_str_name(&full).filter(|class| *class != FailureClass::Unspecified);
    known.ok_or_else(|| format!("{text:?} is not a class of failures; docs/failures.md lists them"))
}

impl Which {
    fn is_empty(&self) -> bool {
        let Self { class, agent, label, kind, owner, since } = self;
        class.is_empty()
            && label.is_empty()
            && [agent, kind, owner].iter().all(|text| text.is_none())
            && since.is_none()
    }

    fn filter(&self) -> TaskFilter {
        let mut labels = pairs::map(&self.label);
        if let Some(kind) = &self.kind {
            labels.insert(KIND.to_owned(), kind.clone());
        }
        TaskFilter {
            states: vec![TaskState::Failed.into()],
            labels,
            agent: self.agent.clone().unwrap_or_default(),
            owner: self.owner.clone().unwrap_or_default(),
            created_after: self.since.as_ref().map(since),
            ..TaskFilter::default()
        }
    }

    /// Returns the newest dead letters, at most `limit`, page by page.
    async fn find(
        &self,
        context: &Context,
        parent: String,
        limit: usize,
        replayed: bool,
    ) -> anyhow::Result<Vec<Task>> {
        let mut request = ListTasksRequest {
            parent,
            page_size: 1000,
            filter: Some(self.filter()),
            ..ListTasksRequest::default()
        };
        let mut found = Vec::new();
        loop {
            let page = context.client.list_tasks(request.clone()).await?;
            let fits = |task: &Task| {
                task.step.is_none()
                    && (replayed || !task.labels.contains_key(REPLAYED))
                    && (self.class.is_empty()
                        || class_of(task).is_some_and(|class| self.class.contains(&class)))
            };
            found.extend(page.tasks.into_iter().filter(fits));
            if page.next_page_token.is_empty() || found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
            request.page_token = page.next_page_token;
        }
    }
}

fn class_of(task: &Task) -> Option<FailureClass> {
    Some(task.status.as_ref()?.failure.as_ref()?.class())
}

impl DeadLetters {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        match self.what {
            What::List { which, replayed, limit, all_namespaces } => {
                // One more than the limit shows whether there are more.
                let parent = context.parent(all_namespaces);
                let mut found = which.find(context, parent, limit.saturating_add(1), replayed).await?;
                let more = found.len() > limit;
                found.truncate(limit);
                list(context, &found)?;
                if more {
                    context
                        .reporter
                        .line(&format!("more than {limit} dead letters; raise --limit to list them"));
                }
                Ok(Exit::Ok)
            }
            What::Replay(replay) => Box::pin(replay.run(context)).await,
        }
    }
}

impl Replay {
    async fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        let mut letters = self.letters(context).await?;
        if self.edit && letters.len() != 1 {
            return Err(Failure::usage("--edit is for one task").hint("name the task").into());
        }
        // Dependencies are older than what depends on them.
        letters.reverse();
        if self.dry_run || letters.is_empty() {
            list(context, &letters)?;
            return Ok(Exit::Ok);
        }
        let secrets = pairs::from_environment(&self.secret_env)?;
        let (total, mut exits) = (letters.len(), Vec::new());
        for letter in letters {
            let again = match self.edit {
                true => Box::pin(edited(context, &letter, secrets.clone())).await,
                false => again(context, &letter, secrets.clone()).await,
            };
            match again {
                Ok(copy) if !context.out.is_human() => context.out.value(&copy)?,
                Ok(copy) => {
                    context.out.line(&format!("task/{} replayed: task/{}", letter.uid, copy.uid))?;
                }
                Err(error) if total == 1 => return Err(error),
                Err(error) => {
                    // The others are replayed all the same.
                    context.reporter.error(&format!("{}: {error:#}", letter.uid));
                    exits.push(error.downcast_ref().map_or(Exit::Failed, exit::of));
                }
            }
        }
        Ok(worst(exits))
    }

    /// Returns what to replay, newest first.
    async fn letters(&self, context: &Context) -> anyhow::Result<Vec<Task>> {
        if self.tasks.is_empty() {
            if self.which.is_empty() && !self.all {
                return Err(Failure::usage("no task and no filter is given")
                    .hint("name tasks, filter them, or replay all dead letters with --all")
                    .into());
            }
            let limit = usize::from(self.limit);
            let mut found = self.which.find(context, context.parent(false), limit + 1, false).await?;
            if found.len() > limit {
                found.truncate(limit);
                let text = format!("only the newest {limit} are replayed; repeat the command for the others");
                context.reporter.line(&text);
            }
            return Ok(found);
        }
        let mut letters = Vec::new();
        for given in self.tasks.iter().rev() {
            let task = context.client.get_task(GetTaskRequest { name: context.task(given)? }).await?;
            check_named(given, &task)?;
            letters.push(task);
        }
        Ok(letters)
    }
}

/// Fails if a task that was named is no dead letter, which filters leave out.
fn check_named(given: &str, task: &Task) -> Result<(), Failure> {
    if state_of(task) != TaskState::Failed {
        let text = format!("task {given} has not failed");
        return Err(Failure::usage(text).hint(format!("see `rota describe {given}`")));
    }
    if let Some(copy) = task.labels.get(REPLAYED) {
        let text = format!("task {given} was already replayed, or taken from the list: {REPLAYED} is {copy}");
        return Err(Failure::usage(text).hint(format!("run it once more with `rota retry {given}`")));
    }
    if task.step.is_some() {
        let text = format!("task {given} is a step of a workflow");
        return Err(Failure::usage(text).hint("run it again with `rota workflow rerun --failed`"));
    }
    Ok(())
}

/// Returns the key of the task that takes the place of a dead letter: there is one, whichever command creates it.
fn key(letter: &Task) -> String {
    format!("replay:{}", letter.uid)
}

/// Creates a copy of a dead letter. Repeating the call returns the same copy.
async fn again(context: &Context, letter: &Task, secrets: BTreeMap<String, String>) -> anyhow::Result<Task> {
    let request = RetryTaskRequest { name: letter.name.clone(), idempotency_key: key(letter), secrets };
    let copy = context.client.retry_task(request).await?;
    mark(context, letter, &copy).await?;
    Ok(copy)
}

/// Creates a task in place of a dead letter, with the specification that a person has edited.
async fn edited(context: &Context, letter: &Task, secrets: BTreeMap<String, String>) -> anyhow::Result<Task> {
    let whole = context.client.get_task(GetTaskRequest { name: letter.name.clone() }).await?;
    let mut spec = whole.spec.unwrap_or_default();
    spec.start_time = None;
    pairs::require(&spec.secret_names, &secrets)?;
    spec.secret_names.clear();
    let text = serde_saphyr::to_string(&serde_json::to_value(&spec)?)?;
    let value: serde_json::Value = serde_saphyr::from_str(&editor::edit(&text).await?)?;
    let spec: TaskSpec =
        serde_json::from_value(value).context("the file is not the specification of a task")?;
    let mut labels = whole.labels;
    // It has no resource: the operator would cancel it.
    labels.remove(CLUSTER);
    labels.remove(REPLAYED);
    labels.insert(REPLAY_OF.to_owned(), letter.uid.clone());
    let task = Task {
        alias: whole.alias,
        spec: Some(TaskSpec { secrets, ..spec }),
        priority: whole.priority,
        labels,
        ..Task::default()
    };
    let parent = letter.name.rsplit_once("/tasks/").map_or("", |(parent, _)| parent).to_owned();
    let idempotency_key = key(letter);
    let request =
        CreateTaskRequest { parent, task: Some(task), idempotency_key, ..CreateTaskRequest::default() };
    let made = Box::pin(context.client.create_task(request)).await?;
    mark(context, letter, &made).await?;
    Ok(made)
}

/// Records which task took the place of a dead letter, which thereby ceases to be one.
async fn mark(context: &Context, letter: &Task, copy: &Task) -> anyhow::Result<()> {
    let mut labels = letter.labels.clone();
    labels.insert(REPLAYED.to_owned(), copy.uid.clone());
    let task = Task { name: letter.name.clone(), labels, ..Task::default() };
    let update_mask = Some(FieldMask { paths: vec!["labels".to_owned()] });
    let request = UpdateTaskRequest { task: Some(task), update_mask, ..UpdateTaskRequest::default() };
    context.client.update_task(request).await.context("failed to mark the task as replayed")?;
    Ok(())
}

fn list(context: &Context, letters: &[Task]) -> anyhow::Result<()> {
    if !context.out.is_human() {
        return context.out.list("tasks", letters);
    }
    if letters.is_empty() {
        context.reporter.line("no dead letters");
        return Ok(());
    }
    let mut table =
        Table::new(&["ID", "NAME", "AGENT", "CLASS", "ATTEMPTS", "FAILED", "REPLAYED BY", "MESSAGE"]);
    for task in letters {
        let status = task.status.clone().unwrap_or_default();
        let failure = status.failure.clone().unwrap_or_default();
        let class = word(failure.class().as_str_name(), "FAILURE_CLASS_");
        let cells = [
            task.uid.clone(),
            task.alias.clone(),
            target(task),
            class,
            status.attempt.to_string(),
            age(status.end_time.as_ref()),
            task.labels.get(REPLAYED).map_or_else(String::new, |uid| first_line(uid, 36)),
            first_line(&failure.message, 80),
        ];
        table.row(cells.map(|cell| (cell, Paint::Plain)));
    }
    context.out.table(&table)?;
    Ok(())
}
