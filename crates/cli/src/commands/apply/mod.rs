//! `rota apply`: makes or changes what manifests say. Everything is read and checked before
//! anything is sent.

mod agent;
mod load;
mod progress;
mod task;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use rota_client::watch::is_final;
use rota_crds::Object;
use rota_proto::names;
use rota_proto::v1::{CreateTaskRequest, Task, TaskState};

use super::{pairs, state_of};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Format;

const EXAMPLES: &str = "\
Examples:
  rota apply -f agents.yaml -f tasks.yaml
  rota apply -f deploy/ --wait
  rota apply -f deploy/ --dry-run
  rota apply -f publish.yaml --secret-env PUBLISH_TOKEN
  kubectl get task build -o yaml | rota apply -f -

The manifests are those that `kubectl apply -f` takes on a cluster. Applying a task again gives the
task that exists: only its priority, labels and desired state can be changed. A task whose
metadata has `generateName` instead of `name` is a new one each time.";

/// Make or change what manifests say
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Apply {
    /// A file, a folder (its .yaml, .yml and .json files), or `-` for standard input
    #[arg(long = "filename", short, value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
    /// Say what would be done, as the server sees it, and do nothing
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// Secret environment of every task, taken from this command's own
    #[arg(long, value_name = "NAME")]
    pub secret_env: Vec<String>,
    /// Follow the tasks until all have ended, and exit by how they did
    #[arg(long, short)]
    pub wait: bool,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Created,
    Configured,
    Unchanged,
}

/// An object, and what became of it.
#[derive(Debug)]
struct Applied {
    kind: &'static str,
    namespace: String,
    name: String,
    outcome: Outcome,
    /// What is changed of one that was there before.
    fields: Vec<String>,
    task: Option<Task>,
}

/// Calls at a time: enough to fill the server's commits, not so many that others wait.
const AT_ONCE: usize = 16;

/// Tasks that are rehearsed together, as many as the server takes, and bytes of them.
const TOGETHER: usize = 1000;
const TOGETHER_BYTES: usize = 4 << 20;

impl Apply {
    /// Only files.
    pub fn of(files: Vec<PathBuf>) -> Self {
        Self { files, dry_run: false, secret_env: Vec::new(), wait: false }
    }

    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let objects = load::load(&self.files, &context.namespace)?;
        let of_clusters: BTreeSet<_> = objects.iter().flat_map(Object::of_clusters).collect();
        if !of_clusters.is_empty() {
            let fields = of_clusters.into_iter().collect::<Vec<_>>().join(", ");
            context.talk.warn(&format!(
                "only a cluster's operator looks at {fields}; sent from here it means nothing"
            ));
        }
        let secrets = pairs::from_environment(&self.secret_env)?;
        let (mut agents, mut tasks) = (Vec::new(), Vec::new());
        for object in &objects {
            match object {
                Object::Agent(agent) => agents.push(agent),
                Object::Task(task) => tasks.push(task::request(context, task, &secrets)),
            }
        }
        let mut all = Vec::new();
        // Agents first: it is all the same to most tasks, but nobody needs to see them wait.
        let calls = agents.iter().map(|manifest| agent::apply(context, manifest, self.dry_run));
        let mut answers = futures::stream::iter(calls).buffered(AT_ONCE);
        while let Some(applied) = answers.try_next().await? {
            self.report(context, &applied)?;
        }
        if self.dry_run {
            let agents = agents.iter().map(|agent| agent.to_api(&context.namespace).name).collect();
            self.rehearse(context, tasks, agents).await?;
            return Ok(Exit::Ok);
        }
        // Whatever a strict one depends on must be there before it.
        let strict = |request: &CreateTaskRequest| {
            let spec = request.task.as_ref().and_then(|task| task.spec.as_ref());
            spec.is_some_and(|spec| spec.strict && !spec.depends_on.is_empty())
        };
        let at_once = if tasks.iter().any(strict) { 1 } else { AT_ONCE };
        let calls = tasks.into_iter().map(|request| Box::pin(task::apply(context, request)));
        let mut answers = futures::stream::iter(calls).buffered(at_once);
        while let Some(applied) = answers.try_next().await? {
            self.report(context, &applied)?;
            all.extend(applied.task);
        }
        if self.wait { progress::wait(context, all).await } else { Ok(Exit::Ok) }
    }

    async fn rehearse(
        &self,
        context: &Context,
        mut tasks: Vec<CreateTaskRequest>,
        agents: Vec<String>,
    ) -> anyhow::Result<()> {
        tasks.sort_by(|one, other| one.parent.cmp(&other.parent));
        let mut rest = &tasks[..];
        while let Some(first) = rest.first() {
            let mut bytes = 0;
            let fits = |(index, request): &(usize, &CreateTaskRequest)| {
                bytes += request.encoded_len();
                *index == 0
                    || (*index < TOGETHER && bytes <= TOGETHER_BYTES && request.parent == first.parent)
            };
            let count = rest.iter().enumerate().take_while(fits).count();
            let (now, later) = rest.split_at(count);
            let here = |name: &&String| name.starts_with(&format!("{}/", first.parent));
            let expected = agents.iter().filter(here).map(|name| names::last(name).to_owned());
            let expected: Vec<_> = expected.take(TOGETHER).collect();
            for applied in Box::pin(task::rehearse(context, now, &expected)).await? {
                self.report(context, &applied?)?;
            }
            rest = later;
        }
        Ok(())
    }

    fn report(&self, context: &Context, applied: &Applied) -> anyhow::Result<()> {
        if context.out.for_eyes() {
            return Ok(context.out.line(&self.line(applied))?);
        }
        let mut out = context.out.clone();
        if out.format == Format::Json {
            out.format = Format::Jsonl;
        }
        let made = applied.task.as_ref().filter(|_| !self.dry_run || applied.outcome != Outcome::Created);
        out.value(&serde_json::json!({
            "kind": applied.kind,
            "namespace": applied.namespace,
            "name": applied.name,
            "outcome": applied.outcome,
            "fields": applied.fields,
            "dryRun": self.dry_run,
            "id": made.map(|task| &task.uid),
        }))
    }

    fn line(&self, applied: &Applied) -> String {
        let Applied { kind, name, outcome, .. } = applied;
        let would = if self.dry_run { "would be " } else { "" };
        let (state, failure) = match &applied.task {
            Some(task) => (state_of(task), task.status.as_ref().and_then(|status| status.failure.as_ref())),
            None => (TaskState::Unspecified, None),
        };
        match (outcome, failure) {
            (Outcome::Created, Some(failure)) if self.dry_run => {
                format!("{kind}/{name} would be created, and fail at once: {}", failure.message)
            }
            (Outcome::Created, _) => format!("{kind}/{name} {would}created"),
            (Outcome::Configured, _) if self.dry_run => {
                format!("{kind}/{name} would be configured: {}", applied.fields.join(", "))
            }
            (Outcome::Configured, _) => format!("{kind}/{name} configured"),
            (Outcome::Unchanged, _) if is_final(state) => {
                let state = crate::output::state(state).to_lowercase();
                format!("{kind}/{name} unchanged ({state}; `rota retry {name}` runs it once more)")
            }
            (Outcome::Unchanged, _) => format!("{kind}/{name} unchanged"),
        }
    }
}
