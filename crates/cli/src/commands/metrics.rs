//! `rota metrics`: the history of the metrics that the control plane keeps.

use clap::Args;
use pbjson_types::Timestamp;
use rota_crds::HumanDuration;
use rota_proto::v1::{DurationSummary, GetMetricsHistoryRequest, MetricsPoint};
use rota_telemetry::clock;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, Table};

const EXAMPLES: &str = "\
Examples:
  rota metrics
  rota metrics --agent coder --since 7d
  rota metrics -A --since 30d -o json

Up to 12 hours are by the minute, more are by the hour. Times and numbers of `-o json` are exact.";

/// Show what was done and what waited in the past, up to 30 days, by the minute or the hour
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Metrics {
    /// Name of the only agent whose metrics are shown
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// How long before now the metrics begin, at most 30 days
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "1h")]
    pub since: HumanDuration,
    /// Add up the metrics of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
}

impl Metrics {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let now = clock::unix_micros() / 1_000_000;
        let span = i64::try_from(self.since.0.as_secs()).unwrap_or(i64::MAX);
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let request = GetMetricsHistoryRequest {
            parent: context.parent(self.all_namespaces),
            agent: self.agent.unwrap_or_default(),
            start_time: at(now.saturating_sub(span).max(0)),
            end_time: at(now),
        };
        let history = context.client.get_metrics_history(request).await?;
        if !context.out.is_human() {
            context.out.value(&history)?;
            return Ok(Exit::Ok);
        }
        let mut table = Table::new(&[
            "TIME",
            "CREATED",
            "SUCCEEDED",
            "FAILED",
            "CANCELLED",
            "QUEUED",
            "WAIT",
            "RUN",
            "COST",
            "WORKERS",
            "SLOTS",
        ]);
        for point in &history.points {
            table.row(row(point));
        }
        if table.is_empty() {
            context.reporter.line("nothing has happened in this time");
        }
        context.out.table(&table)?;
        Ok(Exit::Ok)
    }
}

fn row(point: &MetricsPoint) -> [String; 11] {
    let median = |of: &Option<DurationSummary>| output::estimate(of.as_ref().and_then(|of| of.p50.as_ref()));
    [
        output::time(point.start_time.as_ref()),
        point.created_tasks.to_string(),
        point.succeeded_tasks.to_string(),
        point.failed_tasks.to_string(),
        point.cancelled_tasks.to_string(),
        format!("{:.1}, at most {}", point.queued_tasks, point.max_queued_tasks),
        median(&point.wait),
        median(&point.attempt),
        output::money(point.cost_micro_usd),
        format!("{:.1}", point.workers),
        format!("{:.1} of {:.1} used", point.used_slots, point.slots),
    ]
}
