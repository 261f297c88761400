//! `rota apply`: creates or updates agents, templates, workflows, schedules and tasks from manifests. All manifests are read and validated before
//! anything is sent.

mod agent;
mod load;
mod progress;
mod schedule;
mod task;
mod workflow;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use rota_crds::Object;
use rota_proto::names;
use rota_proto::v1::{CreateTaskRequest, Task, TaskState, Workflow};

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

The same manifests work with `kubectl apply -f` on a cluster. Applying a task again updates the existing \
one: only its priority, labels and desired state can change. A task with `generateName` instead of \
`name` in its metadata is created each time.";

/// Create or update agents, tasks, workflows, templates and schedules from manifests
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Apply {
    /// Manifest: a file, a directory (its .yaml, .yml and .json files), or `-` for standard input; may be repeated
    #[arg(long = "filename", short, value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
    /// Validate on the server and print what would change, without changing anything
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// Secret environment variable of every task and schedule, taken from the environment of this command; may be repeated
    #[arg(long, value_name = "NAME")]
    pub secret_env: Vec<String>,
    /// Wait until all tasks and workflows have ended, and exit with the code of the worst outcome
    #[arg(long, short)]
    pub wait: bool,
}

/// Outcome of applying an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Created,
    Configured,
    Unchanged,
}

/// Applied object with its outcome.
#[derive(Debug)]
struct Applied {
    kind: &'static str,
    namespace: String,
    name: String,
    outcome: Outcome,
    /// Changed fields of an existing object.
    fields: Vec<String>,
    task: Option<Task>,
    workflow: Option<Workflow>,
}

/// Maximum concurrent calls: enough to fill the server's commits, without delaying other clients.
const MAX_CONCURRENT_CALLS: usize = 16;

/// Maximum tasks of one dry run, a limit of the server.
const MAX_DRY_RUN_TASKS: usize = 1000;
/// Maximum bytes of one dry run.
const MAX_DRY_RUN_BYTES: usize = 4 << 20;

impl Apply {
    /// Returns the command for some files, with everything else unset.
    pub fn of(files: Vec<PathBuf>) -> Self {
        Self { files, dry_run: false, secret_env: Vec::new(), wait: false }
    }

    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let objects = load::load(&self.files, &context.namespace)?;
        let cluster_only: BTreeSet<_> = objects.iter().flat_map(Object::kubernetes_only_fields).collect();
        if !cluster_only.is_empty() {
            let fields = cluster_only.into_iter().collect::<Vec<_>>().join(", ");
            context
                .reporter
                .warn(&format!("{fields} have no effect here: only the Kubernetes operator reads them"));
        }
        for object in &objects {
            let (kind, name) = (object.kind().to_lowercase(), object.name());
            for field in object.fields_without_effect() {
                context.reporter.warn(&format!("{kind}/{name}: {field} has no effect with its runtime"));
            }
        }
        let secrets = pairs::from_environment(&self.secret_env)?;
        let (mut agents, mut tasks, mut schedules) = (Vec::new(), Vec::new(), Vec::new());
        let (mut templates, mut workflows) = (Vec::new(), Vec::new());
        for object in &objects {
            match object {
                Object::Agent(agent) => agents.push(agent),
                Object::Task(task) => tasks.push(task::request(context, task, &secrets)),
                Object::Schedule(schedule) => schedules.push(schedule::wanted(context, schedule, &secrets)?),
                Object::WorkflowTemplate(template) => templates.push(template),
                Object::Workflow(workflow) => workflows.push(workflow),
            }
        }
        let (mut all, mut all_workflows) = (Vec::new(), Vec::new());
        // Agents first, so that tasks do not report a missing agent.
        let calls = agents.iter().map(|manifest| agent::apply(context, manifest, self.dry_run));
        let mut answers = futures::stream::iter(calls).buffered(MAX_CONCURRENT_CALLS);
        while let Some(applied) = answers.try_next().await? {
            self.report(context, &applied)?;
        }
        let calls = templates.into_iter().map(|one| workflow::apply_template(context, one, self.dry_run));
        let mut answers = futures::stream::iter(calls).buffered(MAX_CONCURRENT_CALLS);
        while let Some(applied) = answers.try_next().await? {
            self.report(context, &applied)?;
        }
        let calls = workflows.into_iter().map(|one| Box::pin(workflow::apply(context, one, self.dry_run)));
        let mut answers = futures::stream::iter(calls).buffered(MAX_CONCURRENT_CALLS);
        while let Some(applied) = answers.try_next().await? {
            self.report(context, &applied)?;
            all_workflows.extend(applied.workflow);
        }
        let calls = schedules.into_iter().map(|wanted| schedule::apply(context, wanted, self.dry_run));
        let mut answers = futures::stream::iter(calls).buffered(MAX_CONCURRENT_CALLS);
        while let Some(applied) = answers.try_next().await? {
            self.report(context, &applied)?;
        }
        if self.dry_run {
            let agents = agents.iter().map(|agent| agent.to_api(&context.namespace).name).collect();
            self.dry_run_tasks(context, tasks, agents).await?;
            return Ok(Exit::Ok);
        }
        // The dependencies of a strict task must exist before it.
        let strict = |request: &CreateTaskRequest| {
            let spec = request.task.as_ref().and_then(|task| task.spec.as_ref());
            spec.is_some_and(|spec| spec.strict && !spec.depends_on.is_empty())
        };
        let concurrency = if tasks.iter().any(strict) { 1 } else { MAX_CONCURRENT_CALLS };
        let calls = tasks.into_iter().map(|request| Box::pin(task::apply(context, request)));
        let mut answers = futures::stream::iter(calls).buffered(concurrency);
        while let Some(applied) = answers.try_next().await? {
            self.report(context, &applied)?;
            all.extend(applied.task);
        }
        if self.wait { progress::wait(context, all, all_workflows).await } else { Ok(Exit::Ok) }
    }

    async fn dry_run_tasks(
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
                    || (*index < MAX_DRY_RUN_TASKS
                        && bytes <= MAX_DRY_RUN_BYTES
                        && request.parent == first.parent)
            };
            let count = rest.iter().enumerate().take_while(fits).count();
            let (now, later) = rest.split_at(count);
            let in_namespace = |name: &&String| name.starts_with(&format!("{}/", first.parent));
            let expected = agents.iter().filter(in_namespace).map(|name| names::last(name).to_owned());
            let expected: Vec<_> = expected.take(MAX_DRY_RUN_TASKS).collect();
            for applied in Box::pin(task::dry_run(context, now, &expected)).await? {
                self.report(context, &applied?)?;
            }
            rest = later;
        }
        Ok(())
    }

    fn report(&self, context: &Context, applied: &Applied) -> anyhow::Result<()> {
        if context.out.is_human() {
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
                format!("{kind}/{name} would be created and fail immediately: {}", failure.message)
            }
            (Outcome::Created, _) => format!("{kind}/{name} {would}created"),
            (Outcome::Configured, _) if self.dry_run => {
                format!("{kind}/{name} would be configured: {}", applied.fields.join(", "))
            }
            (Outcome::Configured, _) => format!("{kind}/{name} configured"),
            (Outcome::Unchanged, _) if state.is_final() => {
                let state = crate::output::state(state).to_lowercase();
                format!("{kind}/{name} unchanged ({state}; `rota retry {name}` runs it again)")
            }
            (Outcome::Unchanged, _) => format!("{kind}/{name} unchanged"),
        }
    }
}
