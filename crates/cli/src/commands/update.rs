//! `rota update`: changes the mutable fields of a task.

use clap::Args;
use pbjson_types::FieldMask;
use rota_crds::Priority;
use rota_proto::v1::{DesiredState, GetTaskRequest, UpdateTaskRequest};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::name;

const EXAMPLES: &str = "\
Examples:
  rota update build --priority urgent
  rota update build --label team=web --label old-
  rota update build --suspend
  rota update build --resume";

/// Change a task's priority, labels or hold
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Update {
    /// Id or name of the task
    pub task: String,
    /// Priority: 0 to 10, or low, normal, high, urgent
    #[arg(long, short, value_name = "PRIORITY")]
    pub priority: Option<Priority>,
    /// Label to set, or to remove with a trailing `-`; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE|KEY-")]
    pub label: Vec<String>,
    /// Hold the task: it does not start until it is resumed
    #[arg(long, conflicts_with = "resume")]
    pub suspend: bool,
    /// Release the hold
    #[arg(long)]
    pub resume: bool,
}

impl Update {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let mut task = context.client.get_task(GetTaskRequest { name: context.task(&self.task)? }).await?;
        let mut paths = Vec::new();
        if let Some(priority) = self.priority {
            task.priority = Some(priority.0);
            paths.push("priority".to_owned());
        }
        for label in &self.label {
            match (label.split_once('='), label.strip_suffix('-')) {
                (Some((key, value)), _) if !key.is_empty() => {
                    task.labels.insert(key.to_owned(), value.to_owned());
                }
                (None, Some(key)) if !key.is_empty() => {
                    task.labels.remove(key);
                }
                _ => return Err(Failure::usage(format!("{label:?} is neither KEY=VALUE nor KEY-")).into()),
            }
        }
        if !self.label.is_empty() {
            paths.push("labels".to_owned());
        }
        if self.suspend || self.resume {
            task.set_desired_state(if self.suspend { DesiredState::Suspended } else { DesiredState::Run });
            paths.push("desired_state".to_owned());
        }
        if paths.is_empty() {
            return Err(Failure::usage("nothing to change")
                .hint("set --priority, --label, --suspend or --resume")
                .into());
        }
        let request = UpdateTaskRequest {
            task: Some(task),
            update_mask: Some(FieldMask { paths }),
            ..Default::default()
        };
        let task = context.client.update_task(request).await?;
        match context.out.is_human() {
            true => context.out.line(&format!("task/{} updated", name(&task)))?,
            false => context.out.value(&task)?,
        }
        Ok(Exit::Ok)
    }
}
