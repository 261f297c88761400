//! `rota schedule`: creates, shows, pauses, runs and deletes schedules.

mod create;
mod show;

use clap::{Args, Subcommand};
use pbjson_types::FieldMask;
use rota_proto::names;
use rota_proto::v1::{
    self, DeleteScheduleRequest, GetScheduleRequest, PreviewScheduleRequest, RunScheduleRequest,
    UpdateScheduleRequest,
};

use self::create::Create;
use super::follow::{Destination, View, to_end};
use super::{outcome, workflow};
use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  rota schedule create nightly --cron \"0 3 * * *\" --time-zone Europe/Berlin --agent coder \"Update the dependencies\"
  rota schedule create health --cron \"*/5 * * * *\" --concurrency forbid --agent shell --command -- ./check.sh
  rota schedule create release --cron \"0 9 * * MON\" --template deploy-app --parameter image=registry.example/app:1
  rota schedule list
  rota schedule get nightly
  rota schedule next nightly --count 5
  rota schedule next --cron \"0 9 * * MON-FRI\" --time-zone America/New_York
  rota schedule run nightly
  rota schedule pause nightly && rota schedule resume nightly
  rota schedule delete nightly

`rota apply` creates and updates schedules from manifests of kind Schedule. The tasks and workflows of a schedule have \
the label rota.dev/schedule: rota get tasks -l rota.dev/schedule=nightly";

/// Run tasks and workflows at recurring times: create, list, pause and run schedules
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Schedule {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// Create a schedule from the command line
    Create(Box<Create>),
    /// List schedules with their next times and last runs
    List {
        /// Include the schedules of all namespaces
        #[arg(long, short = 'A')]
        all_namespaces: bool,
    },
    /// Show a schedule: its next times, its runs, and why it does not run
    Get {
        /// Name of an existing schedule of the namespace
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Pause a schedule: no time starts a run, and what runs continues
    Pause {
        /// Name of an existing schedule of the namespace
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// End the pause of a schedule; times within it are not caught up
    Resume {
        /// Name of an existing schedule of the namespace
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Run a schedule now, also while it is paused
    Run {
        /// Name of an existing schedule of the namespace
        #[arg(value_name = "NAME")]
        name: String,
        /// Follow the task or workflow to its end
        #[arg(long, short)]
        wait: bool,
    },
    /// Delete a schedule; its tasks and workflows continue
    Delete {
        /// Name of an existing schedule of the namespace
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Print the next times of a schedule, or of an expression
    Next {
        /// Name of an existing schedule of the namespace
        #[arg(value_name = "NAME", required_unless_present = "cron", conflicts_with = "cron")]
        name: Option<String>,
        /// Cron expression in place of a schedule
        #[arg(long, value_name = "EXPRESSION")]
        cron: Option<String>,
        /// Time zone of the expression [default: UTC]
        #[arg(long, value_name = "ZONE", requires = "cron")]
        time_zone: Option<String>,
        /// Number of times to print
        #[arg(long, value_name = "COUNT", default_value_t = 10)]
        count: i32,
    },
}

impl Schedule {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let named = |name: &str| names::schedule(&context.namespace, name);
        match self.what {
            What::Create(create) => create.run(context).await,
            What::List { all_namespaces } => {
                let schedules = context.client.all_schedules(&context.parent(all_namespaces)).await?;
                show::list(context, &schedules, all_namespaces)
            }
            What::Get { name } => {
                let request = GetScheduleRequest { name: named(&name) };
                show::one(context, &context.client.get_schedule(request).await?)
            }
            What::Pause { name } => set_paused(context, named(&name), true).await,
            What::Resume { name } => set_paused(context, named(&name), false).await,
            What::Run { name, wait } => run_now(context, named(&name), wait).await,
            What::Delete { name } => {
                let request =
                    DeleteScheduleRequest { name: named(&name), allow_missing: false, ..Default::default() };
                context.client.delete_schedule(request).await?;
                context.reporter.line(&format!("schedule {name} deleted; what it has started continues"));
                Ok(Exit::Ok)
            }
            What::Next { name, cron, time_zone, count } => {
                let mut request = PreviewScheduleRequest { count, ..PreviewScheduleRequest::default() };
                match (name, cron) {
                    (Some(name), _) => request.name = named(&name),
                    (None, cron) => {
                        request.name = names::namespace(&context.namespace);
                        request.spec = Some(v1::ScheduleSpec {
                            cron: cron.unwrap_or_default(),
                            time_zone: time_zone.unwrap_or_default(),
                            ..v1::ScheduleSpec::default()
                        });
                    }
                }
                show::times(context, &context.client.preview_schedule(request).await?)
            }
        }
    }
}

async fn set_paused(context: &Context, name: String, paused: bool) -> anyhow::Result<Exit> {
    let spec = v1::ScheduleSpec { paused: Some(paused), ..v1::ScheduleSpec::default() };
    let request = UpdateScheduleRequest {
        schedule: Some(v1::Schedule { name, spec: Some(spec), ..v1::Schedule::default() }),
        update_mask: Some(FieldMask { paths: vec!["spec.paused".to_owned()] }),
        ..UpdateScheduleRequest::default()
    };
    let schedule = Box::pin(context.client.update_schedule(request)).await?;
    if !context.out.is_human() {
        context.out.value(&schedule)?;
        return Ok(Exit::Ok);
    }
    let (name, next) = (names::last(&schedule.name), show::next(&schedule));
    let text = match paused {
        true => format!("schedule {name} paused"),
        false => format!("schedule {name} resumed; next time: {next}"),
    };
    context.reporter.line(&text);
    Ok(Exit::Ok)
}

async fn run_now(context: &Context, name: String, wait: bool) -> anyhow::Result<Exit> {
    let request = RunScheduleRequest { name, idempotency_key: String::new() };
    let run = context.client.run_schedule(request).await?;
    if let Some(workflow) = run.workflow {
        if wait {
            context.reporter.line(&format!("workflow {}", workflow.uid));
            return Box::pin(workflow::follow(context, &workflow.name)).await;
        }
        if context.out.is_human() {
            context.out.line(&workflow.uid)?;
        } else {
            context.out.value(&workflow)?;
        }
        return Ok(Exit::Ok);
    }
    let task = run.task.unwrap_or_default();
    if !wait {
        if context.out.is_human() {
            context.out.line(&task.uid)?;
        } else {
            context.out.value(&task)?;
        }
        return Ok(Exit::Ok);
    }
    context.reporter.line(&format!("task {}", task.uid));
    let mut view = View::new(context, Destination::Stderr, false);
    let Some(ended) = to_end(context, &task.name, 0, &mut view).await? else {
        return Ok(Exit::Interrupted);
    };
    Box::pin(super::outcome::print_outcome(context, &ended, &view)).await?;
    Ok(outcome(&ended))
}
