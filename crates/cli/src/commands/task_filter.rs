//! Flags that choose tasks, of all commands that list some. Knows no output.

use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use pbjson_types::Timestamp;
use rota_crds::{HumanDuration, Usd};
use rota_proto::v1::{FailureClass, GetWorkflowRequest, TaskFilter};
use rota_proto::{labels, names};

use super::get::State;
use super::pairs::{self, Pair};
use super::{id_of, since};
use crate::context::Context;

#[derive(Debug, Default, Args)]
pub struct TaskFilterArgs {
    /// Only tasks in these comma-separated states; may be repeated
    #[arg(long, value_name = "STATES", value_delimiter = ',', value_enum, ignore_case = true)]
    pub state: Vec<State>,
    /// Only tasks or agents with this label; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pairs::pair)]
    pub label: Vec<Pair>,
    /// Only tasks or workers of this agent
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Only tasks of this thread
    #[arg(long, value_name = "NAME")]
    pub thread: Option<String>,
    /// Only tasks of this kind
    #[arg(long = "kind", value_name = "KIND")]
    pub task_kind: Option<String>,
    /// Only tasks of this owner
    #[arg(long, value_name = "TEXT")]
    pub owner: Option<String>,
    /// Only tasks whose parent is this task: id or name
    #[arg(long, value_name = "TASK")]
    pub parent: Option<String>,
    /// Only tasks of the steps of this workflow: id or name
    #[arg(long, value_name = "WORKFLOW")]
    pub workflow: Option<String>,
    /// Only tasks that need the attention of a person: they have failed three times, and continue
    #[arg(long)]
    pub attention: bool,
    /// Only tasks that have failed with these comma-separated classes, such as overload, or whose last attempt has; may be repeated
    #[arg(long, value_name = "CLASSES", value_delimiter = ',', value_parser = class)]
    pub failure: Vec<FailureClass>,
    /// Only tasks whose current or last worker is this one
    #[arg(long, value_name = "NAME")]
    pub worker: Option<String>,
    /// Only tasks of at least this priority, from 0 to 10
    #[arg(long, value_name = "NUMBER")]
    pub min_priority: Option<i32>,
    /// Only tasks of at most this priority, from 0 to 10
    #[arg(long, value_name = "NUMBER")]
    pub max_priority: Option<i32>,
    /// Only tasks that were created at this time or later: 2026-01-31, 2026-01-31T12:00:00Z, or a time up to now such as 7d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = moment)]
    pub since: Option<Timestamp>,
    /// Only tasks that were created before this time, given as for --since
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = moment)]
    pub until: Option<Timestamp>,
    /// Only tasks that have ended at this time or later, given as for --since
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = moment)]
    pub ended_since: Option<Timestamp>,
    /// Only tasks that have ended before this time, given as for --since
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = moment)]
    pub ended_until: Option<Timestamp>,
    /// Only tasks whose attempts have cost at least this, in US dollars
    #[arg(long, value_name = "USD")]
    pub min_cost_usd: Option<Usd>,
    /// Only tasks with at least this number of attempts
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    pub min_attempts: Option<i32>,
}

impl TaskFilterArgs {
    /// Returns the filter of the API, with the ids of the objects that are named.
    pub async fn to_api(&self, context: &Context) -> anyhow::Result<TaskFilter> {
        let mut labels = pairs::map(&self.label);
        if let Some(kind) = &self.task_kind {
            labels.insert(labels::KIND.to_owned(), kind.clone());
        }
        let parent_task = match &self.parent {
            Some(parent) => id_of(context, parent).await?,
            None => String::new(),
        };
        let workflow = match &self.workflow {
            Some(workflow) => {
                let name = names::workflow(&context.namespace, workflow);
                Box::pin(context.client.get_workflow(GetWorkflowRequest { name })).await?.uid
            }
            None => String::new(),
        };
        Ok(TaskFilter {
            states: self.state.iter().map(|state| state.to_api().into()).collect(),
            agent: self.agent.clone().unwrap_or_default(),
            labels,
            owner: self.owner.clone().unwrap_or_default(),
            parent_task,
            workflow,
            thread: self.thread.clone().unwrap_or_default(),
            needs_attention: self.attention,
            failure_classes: self.failure.iter().map(|class| (*class).into()).collect(),
            worker: self.worker.clone().unwrap_or_default(),
            min_priority: self.min_priority,
            max_priority: self.max_priority,
            created_after: self.since,
            created_before: self.until,
            ended_after: self.ended_since,
            ended_before: self.ended_until,
            min_cost_micro_usd: self.min_cost_usd.unwrap_or_default().micro,
            min_attempts: self.min_attempts.unwrap_or_default(),
            ..TaskFilter::default()
        })
    }
}

/// Parses the name of a class of failures, in any case of its letters.
pub fn class(text: &str) -> Result<FailureClass, String> {
    let full = format!("FAILURE_CLASS_{}", text.replace(['-', ' '], "_").to_uppercase());
    let known = FailureClass::from_str_name(&full).filter(|class| *class != FailureClass::Unspecified);
    known.ok_or_else(|| format!("{text:?} is not a class of failures; docs/failures.md lists them"))
}

/// Parses a point in time, a day in UTC, or a time span that ends now.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(span) = text.parse::<HumanDuration>() {
        return Ok(since(&span));
    }
    let at = text.parse::<jiff::Timestamp>().or_else(|_| {
        let day: Date = text.parse()?;
        Ok::<_, jiff::Error>(day.to_zoned(TimeZone::UTC)?.timestamp())
    });
    let at = at.map_err(|_| {
        format!(
            "{text:?} is neither a time such as 2026-01-31T12:00:00Z, nor a day, nor a time span such as 7d"
        )
    })?;
    Ok(Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_days_and_spans() {
        let seconds = |text| moment(text).map(|at| at.seconds);
        assert_eq!(seconds("1970-01-02"), Ok(86_400));
        assert_eq!(seconds("1970-01-01T01:00:00Z"), Ok(3600));
        assert_eq!(seconds("1970-01-01T01:00:00+01:00"), Ok(0));
        let hour = seconds("1h").unwrap();
        assert!(seconds("2h").unwrap() < hour && hour > 1_600_000_000);
        assert!(moment("yesterday").unwrap_err().contains("such as 7d"));
    }
}
