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
use rota_crds::Object;
use rota_proto::v1::Task;

use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  rota apply -f agents.yaml -f tasks.yaml
  rota apply -f deploy/ --wait
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
    /// Only check, here and on the server
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
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
    /// It would do.
    Valid,
}

/// An object, and what became of it.
#[derive(Debug)]
struct Applied {
    kind: &'static str,
    namespace: String,
    name: String,
    outcome: Outcome,
    task: Option<Task>,
}

/// Calls at a time: enough to fill the server's commits, not so many that others wait.
const AT_ONCE: usize = 16;

impl Apply {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let objects = load::load(&self.files, &context.namespace)?;
        let of_clusters: BTreeSet<_> = objects.iter().flat_map(Object::of_clusters).collect();
        if !of_clusters.is_empty() {
            let fields = of_clusters.into_iter().collect::<Vec<_>>().join(", ");
            context.talk.warn(&format!(
                "only a cluster's operator looks at {fields}; sent from here it means nothing"
            ));
        }
        let (agents, tasks): (Vec<_>, Vec<_>) =
            objects.into_iter().partition(|object| matches!(object, Object::Agent(_)));
        let mut all = Vec::new();
        // Agents first: it is all the same to the tasks, but nobody needs to see them wait.
        for batch in [agents, tasks] {
            let calls = batch.iter().map(|object| self.one(context, object));
            let mut answers = futures::stream::iter(calls).buffered(AT_ONCE);
            while let Some(applied) = answers.try_next().await? {
                report(context, &applied)?;
                all.push(applied);
            }
        }
        let tasks: Vec<_> = all.into_iter().filter_map(|applied| applied.task).collect();
        if self.wait { progress::wait(context, tasks).await } else { Ok(Exit::Ok) }
    }

    async fn one(&self, context: &Context, object: &Object) -> anyhow::Result<Applied> {
        match object {
            Object::Agent(manifest) => agent::apply(context, manifest, self.dry_run).await,
            Object::Task(manifest) => Box::pin(task::apply(context, manifest, self.dry_run)).await,
        }
    }
}

fn report(context: &Context, applied: &Applied) -> anyhow::Result<()> {
    if context.out.for_eyes() {
        let outcome = match applied.outcome {
            Outcome::Created => "created",
            Outcome::Configured => "configured",
            Outcome::Unchanged => "unchanged",
            Outcome::Valid => "valid (dry run)",
        };
        let ended = applied
            .task
            .as_ref()
            .filter(|task| {
                applied.outcome == Outcome::Unchanged && rota_client::watch::is_final(super::state_of(task))
            })
            .map(|task| {
                format!(
                    " ({}; `rota retry {}` runs it once more)",
                    crate::output::state(super::state_of(task)).to_lowercase(),
                    applied.name
                )
            });
        let line = format!("{}/{} {outcome}{}", applied.kind, applied.name, ended.unwrap_or_default());
        return Ok(context.out.line(&line)?);
    }
    let mut out = context.out.clone();
    if out.format == crate::output::Format::Json {
        out.format = crate::output::Format::Jsonl;
    }
    out.value(&serde_json::json!({
        "kind": applied.kind,
        "namespace": applied.namespace,
        "name": applied.name,
        "outcome": applied.outcome,
        "id": applied.task.as_ref().map(|task| &task.uid),
    }))
}
