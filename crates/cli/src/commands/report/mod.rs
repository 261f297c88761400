//! `rota report`: statistics for one task, or for all tasks of a time range.

mod recent;
mod section;
mod single;

use std::time::{Duration, SystemTime};

use clap::Args;
use rota_crds::HumanDuration;
use rota_proto::v1::{GetTaskRequest, ListTasksRequest, TaskFilter};
use rota_telemetry::clock;
use serde::Serialize;

use self::section::Section;
use super::describe::flow::Flow;
use super::follow::log;
use crate::context::Context;
use crate::exit::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  rota report
  rota report --since 7d --agent coder
  rota report --markdown > report.md
  rota report build -o json";

/// Show statistics for one task or for recent tasks: outcomes, times, retries, tokens and cost
///
/// Without a task, covers the tasks created within --since.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Report {
    /// Id or name of the task [default: all tasks]
    pub task: Option<String>,
    /// Age of the oldest task to include
    #[arg(
        long,
        value_name = "TIME",
        default_value = "24h",
        allow_hyphen_values = true,
        conflicts_with = "task"
    )]
    pub since: HumanDuration,
    /// Only tasks of this agent
    #[arg(long, value_name = "NAME", conflicts_with = "task")]
    pub agent: Option<String>,
    /// Include all namespaces
    #[arg(long, short = 'A', conflicts_with = "task")]
    pub all_namespaces: bool,
    /// Maximum number of tasks, the latest first
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, conflicts_with = "task")]
    pub limit: usize,
    /// Print Markdown
    #[arg(long)]
    pub markdown: bool,
}

impl Report {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        if self.markdown && !context.out.is_human() {
            return Err(Failure::usage("--markdown and --output cannot be combined").into());
        }
        match &self.task {
            Some(given) => self.single(context, given).await,
            None => self.recent(context).await,
        }
    }

    async fn single(&self, context: &Context, given: &str) -> anyhow::Result<Exit> {
        let task = context.client.get_task(GetTaskRequest { name: context.task(given)? }).await?;
        let mut events = Vec::new();
        log(context, &task, |event| {
            if Flow::includes(&event) {
                events.push(event);
            }
        })
        .await?;
        let report = single::Report::of(&task, &events, clock::now());
        self.print(context, &report.title(), &report, &report.sections())
    }

    async fn recent(&self, context: &Context) -> anyhow::Result<Exit> {
        let now = clock::now();
        let from =
            now.checked_sub(self.since.0).unwrap_or(SystemTime::UNIX_EPOCH).max(SystemTime::UNIX_EPOCH);
        let since = from.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let filter = TaskFilter {
            agent: self.agent.clone().unwrap_or_default(),
            created_after: Some(pbjson_types::Timestamp {
                seconds: rota_proto::num::to_i64(since.as_secs()),
                nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
            }),
            ..TaskFilter::default()
        };
        let request = ListTasksRequest {
            parent: context.parent(self.all_namespaces),
            filter: Some(filter),
            ..ListTasksRequest::default()
        };
        // One more than the limit shows whether there are more.
        let mut tasks = context.client.all_tasks(request, Some(self.limit.saturating_add(1))).await?;
        let more = tasks.len() > self.limit;
        tasks.truncate(self.limit);
        let report = recent::Report::of(&tasks, from, now, more);
        self.print(context, &report.title(), &report, &report.sections())?;
        if more {
            let message =
                format!("only the latest {} tasks are included; raise --limit for more", self.limit);
            context.reporter.warn(&message);
        }
        Ok(Exit::Ok)
    }

    fn print(
        &self,
        context: &Context,
        title: &str,
        report: &impl Serialize,
        sections: &[Section],
    ) -> anyhow::Result<Exit> {
        if !context.out.is_human() {
            return context.out.value(report).map(|()| Exit::Ok);
        }
        context.out.line(&section::page(title, sections, self.markdown, context.out.colored()))?;
        Ok(Exit::Ok)
    }
}
