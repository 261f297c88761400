//! `rota dead-letters`: tasks and workflows that have failed for good and were not run again. Must not know retry policies: what the
//! control plane would retry is not failed yet.

mod tasks;
mod workflows;

use std::collections::VecDeque;

use clap::{Args, Subcommand};
use rota_client::Code;
use rota_crds::HumanDuration;
use rota_proto::names;
use rota_proto::v1::{FailureClass, GetTaskRequest, GetWorkflowRequest, Task, Workflow};
use serde::Serialize;

use self::workflows::Inputs;
use super::pairs::{self, Pair};
use super::task_filter::class;
use super::{artifacts, worst};
use crate::context::Context;
use crate::exit::{self, Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  rota dead-letters list
  rota dead-letters list --class overload --since 1d -o json
  rota describe 0198b6a2-6c1e-7f5e-9d3a-5f2d8c1b7e40
  rota dead-letters replay 0198b6a2-6c1e-7f5e-9d3a-5f2d8c1b7e40
  rota dead-letters replay nightly --edit
  rota dead-letters replay --class overload --agent coder --dry-run
  rota dead-letters replay --all --limit 500
  rota dead-letters replay release -p region=eu
  rota dead-letters replay --template deploy-app --since 1d

A dead letter is a task or a workflow that has failed, whose retries are used up, and which was not run again. A replay of a task creates a \
copy, as `rota retry` does; one of a workflow runs it again from the steps that have failed, as `rota workflow rerun --failed` does. \
Repeating an interrupted command continues it: no dead letter is replayed twice.";

/// List tasks and workflows that have failed for good, and run them again
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
    /// Ids or names of failed tasks or workflows; workflow/NAME if a task has the name, too
    #[arg(value_name = "TASK|WORKFLOW", conflicts_with_all = ["all", "class", "agent", "label", "kind", "owner", "since", "template"])]
    pub names: Vec<String>,
    #[command(flatten)]
    pub which: Which,
    /// All dead letters of the namespace
    #[arg(long)]
    pub all: bool,
    /// Include tasks and workflows that have taken the place of others, and have failed again
    #[arg(long)]
    pub again: bool,
    /// Maximum number of tasks and workflows that one command creates
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// Edit the specification of the task, or the inputs of the workflow, in $VISUAL or $EDITOR before it runs again
    #[arg(long, conflicts_with = "dry_run")]
    pub edit: bool,
    /// Secret environment variable, taken from the environment of this command, since secrets of finished tasks are deleted; may be repeated
    #[arg(long, value_name = "NAME")]
    pub secret_env: Vec<String>,
    /// Input of the workflows in place of the one with the same name, as JSON or as text; may be repeated
    #[arg(long = "parameter", short, value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// File in place of the input of the workflows with this name, or with that of the file; may be repeated
    #[arg(long = "input", value_name = "[NAME=]FILE")]
    pub inputs: Vec<String>,
    /// List what would run again, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Which dead letters a command is about.
#[derive(Debug, Args)]
pub struct Which {
    /// Only tasks that have failed with this comma-separated class, such as overload; may be repeated
    #[arg(long, value_name = "CLASS", value_delimiter = ',', value_parser = class)]
    pub class: Vec<FailureClass>,
    /// Only tasks of this agent
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Only tasks and workflows with this label; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pairs::pair)]
    pub label: Vec<Pair>,
    /// Only tasks of this kind
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Only tasks and workflows of this owner
    #[arg(long, value_name = "TEXT")]
    pub owner: Option<String>,
    /// Only tasks and workflows that were created in this time up to now, such as 1d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub since: Option<HumanDuration>,
    /// Only workflows of this template, or of one version of it
    #[arg(long, value_name = "NAME[@VERSION]", conflicts_with_all = ["class", "agent", "kind"])]
    pub template: Option<String>,
}

/// Entries of a page of a list.
const PAGE_SIZE: i32 = 1000;

/// Which dead letters a command takes.
#[derive(Debug, Clone, Copy)]
enum Take {
    /// The newest ones, also those that were run again if `replayed` is set.
    Newest { replayed: bool },
    /// The oldest ones, also those that have taken the place of others if `again` is set.
    Oldest { again: bool },
}

impl Take {
    fn replayed(self) -> bool {
        matches!(self, Self::Newest { replayed: true })
    }
}

/// Some of the dead letters of a kind, newest first.
struct Found<T> {
    letters: Vec<T>,
    /// Whether more entries match than were taken.
    more: bool,
    /// Number of those that have taken the place of others, and are left out.
    copies: usize,
}

/// Returns the entries that fit, at most `limit`. `page` returns those behind a token, newest first, with the next token, which is empty at the
/// end.
async fn find<T>(
    take: Take,
    limit: usize,
    fits: impl Fn(&T) -> bool,
    is_copy: impl Fn(&T) -> bool,
    mut page: impl AsyncFnMut(String) -> anyhow::Result<(Vec<T>, String)>,
) -> anyhow::Result<Found<T>> {
    let (mut letters, mut token) = (VecDeque::new(), String::new());
    let (mut more, mut copies) = (false, 0);
    loop {
        let (entries, next) = page(token).await?;
        for entry in entries.into_iter().filter(&fits) {
            if matches!(take, Take::Oldest { again: false }) && is_copy(&entry) {
                copies += 1;
                continue;
            }
            letters.push_back(entry);
            if letters.len() > limit {
                more = true;
                match take {
                    Take::Newest { .. } => letters.pop_back(),
                    Take::Oldest { .. } => letters.pop_front(),
                };
            }
        }
        if next.is_empty() || (more && matches!(take, Take::Newest { .. })) {
            return Ok(Found { letters: letters.into(), more, copies });
        }
        token = next;
    }
}

/// Returns the key of what takes the place of a dead letter: there is one, whichever command creates it.
fn key(uid: &str) -> String {
    format!("replay:{uid}")
}

impl Which {
    fn is_empty(&self) -> bool {
        let Self { class, agent, label, kind, owner, since, template } = self;
        class.is_empty()
            && label.is_empty()
            && [agent, kind, owner, template].iter().all(|text| text.is_none())
            && since.is_none()
    }
}

/// Tasks and workflows among dead letters, each in the order of their creation, newest first.
#[derive(Debug, Default)]
struct Letters {
    tasks: Vec<Task>,
    workflows: Vec<Workflow>,
    /// Whether more entries match than were taken.
    more: bool,
    /// Number of those that have taken the place of others, and are left out.
    copies: usize,
}

impl Letters {
    /// Finds dead letters, at most `limit` together.
    async fn find(
        context: &Context,
        which: &Which,
        parent: String,
        limit: usize,
        take: Take,
    ) -> anyhow::Result<Self> {
        let tasks = tasks::find(context, which, parent.clone(), limit, take).await?;
        let room = limit - tasks.letters.len();
        let workflows = workflows::find(context, which, parent, room, take).await?;
        Ok(Self {
            tasks: tasks.letters,
            workflows: workflows.letters,
            more: tasks.more || workflows.more,
            copies: tasks.copies + workflows.copies,
        })
    }

    fn len(&self) -> usize {
        self.tasks.len() + self.workflows.len()
    }

    fn print(&self, context: &Context) -> anyhow::Result<()> {
        if !context.out.is_human() {
            let tasks = self.tasks.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
            let workflows = self.workflows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
            return context.out.lists(vec![("tasks", tasks), ("workflows", workflows)]);
        }
        if self.len() == 0 {
            context.reporter.line("no dead letters");
        }
        context.out.table(&tasks::table(&self.tasks))?;
        context.out.table(&workflows::table(&self.workflows))?;
        Ok(())
    }
}

impl DeadLetters {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        match self.what {
            What::List { which, replayed, limit, all_namespaces } => {
                let parent = context.parent(all_namespaces);
                let found = Letters::find(context, &which, parent, limit, Take::Newest { replayed }).await?;
                found.print(context)?;
                if found.more {
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
        let total = letters.len();
        if self.edit && total != 1 {
            return Err(Failure::usage("--edit is for one dead letter").hint("name it").into());
        }
        let changes_inputs = !self.parameters.is_empty() || !self.inputs.is_empty();
        if changes_inputs && !letters.tasks.is_empty() {
            return Err(Failure::usage("--parameter and --input are for workflows")
                .hint("change a task with --edit")
                .into());
        }
        // Dependencies are older than what depends on them.
        letters.tasks.reverse();
        letters.workflows.reverse();
        if self.dry_run || total == 0 {
            letters.print(context)?;
            return Ok(Exit::Ok);
        }
        let secrets = pairs::from_environment(&self.secret_env)?;
        let mut exits = Vec::new();
        for letter in &letters.tasks {
            let again = match self.edit {
                true => Box::pin(tasks::edited(context, letter, secrets.clone())).await,
                false => tasks::again(context, letter, secrets.clone()).await,
            };
            let made = again.map(|copy| (copy.uid.clone(), copy));
            exits.extend(replayed(context, ("task", &letter.uid), made, total)?);
        }
        if letters.workflows.is_empty() {
            return Ok(worst(exits));
        }
        let values = (!self.parameters.is_empty()).then(|| super::workflow::parameters(&self.parameters));
        let files = artifacts::upload_named(context, &self.inputs).await?;
        let inputs = Inputs { values: values.transpose()?, files };
        for letter in &letters.workflows {
            let inputs = match self.edit {
                true => Box::pin(workflows::edited(context, letter, inputs.clone())).await?,
                false => inputs.clone(),
            };
            let again = Box::pin(workflows::again(context, letter, inputs)).await;
            let made = again.map(|rerun| (rerun.uid.clone(), rerun));
            exits.extend(replayed(context, ("workflow", &letter.uid), made, total)?);
        }
        Ok(worst(exits))
    }

    /// Returns what to replay, newest first.
    async fn letters(&self, context: &Context) -> anyhow::Result<Letters> {
        if self.names.is_empty() {
            if self.which.is_empty() && !self.all {
                return Err(Failure::usage("no task, no workflow and no filter is given")
                    .hint("name tasks or workflows, filter them, or replay all dead letters with --all")
                    .into());
            }
            let limit = usize::from(self.limit);
            let parent = context.parent(false);
            let take = Take::Oldest { again: self.again };
            let found = Letters::find(context, &self.which, parent, limit, take).await?;
            if found.more {
                let text = format!("only the oldest {limit} are replayed; repeat the command for the others");
                context.reporter.line(&text);
            }
            if found.copies > 0 {
                let text =
                    format!("{} that have failed again are left out; --again includes them", found.copies);
                context.reporter.line(&text);
            }
            return Ok(found);
        }
        let mut letters = Letters::default();
        for given in self.names.iter().rev() {
            let workflow = given.strip_prefix("workflow/");
            let missing = match workflow {
                Some(_) => None,
                None => match context.client.get_task(GetTaskRequest { name: context.task(given)? }).await {
                    Ok(task) => {
                        tasks::check_named(given, &task)?;
                        letters.tasks.push(task);
                        continue;
                    }
                    Err(error) if error.code == Code::NotFound => Some(error),
                    Err(error) => return Err(error.into()),
                },
            };
            let name = names::workflow(&context.namespace, workflow.unwrap_or(given));
            let found = Box::pin(context.client.get_workflow(GetWorkflowRequest { name })).await;
            let found =
                found.map_err(|error| missing.filter(|_| error.code == Code::NotFound).unwrap_or(error))?;
            workflows::check_named(given, &found)?;
            letters.workflows.push(found);
        }
        Ok(letters)
    }
}

/// Reports what has taken the place of a dead letter. The failure of one of several does not keep the others from being replayed.
fn replayed<T: Serialize>(
    context: &Context,
    (kind, letter): (&str, &str),
    made: anyhow::Result<(String, T)>,
    total: usize,
) -> anyhow::Result<Option<Exit>> {
    match made {
        Ok((_, copy)) if !context.out.is_human() => context.out.value(&copy)?,
        Ok((uid, _)) => context.out.line(&format!("{kind}/{letter} replayed: {kind}/{uid}"))?,
        Err(error) if total == 1 => return Err(error),
        Err(error) => {
            context.reporter.error(&format!("{letter}: {error:#}"));
            return Ok(Some(error.downcast_ref().map_or(Exit::Failed, exit::of)));
        }
    }
    Ok(None)
}
