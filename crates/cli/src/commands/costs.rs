//! `rota costs`: what was spent by day, agent and model, from the history of the metrics.

use clap::Args;
use pbjson_types::Timestamp;
use rota_crds::Usd;
use rota_proto::names;
use rota_proto::v1::{GetSpendingRequest, Spending, SpendingEntry};
use rota_telemetry::clock;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::Table;

const EXAMPLES: &str = "\
Examples:
  rota costs
  rota costs --agent coder --days 30
  rota costs -A -o json

A cost counts on the day of UTC on which it is reported. Budgets are shown by: rota admin budgets";

/// Show what was spent in the past, up to 30 days, by day, agent and model
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Costs {
    /// Name of the only agent whose costs are shown
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// How many days of 24 hours before now the costs begin, at most 30
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(i64).range(1..=30))]
    pub days: i64,
    /// Add up the costs of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
}

impl Costs {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let seconds = clock::unix_micros() / 1_000_000 - self.days * 24 * 3600;
        let request = GetSpendingRequest {
            parent: context.parent(self.all_namespaces),
            agent: self.agent.unwrap_or_default(),
            start_time: Some(Timestamp { seconds, nanos: 0 }),
            end_time: None,
        };
        let spending = context.client.get_spending(request).await?;
        if !context.out.is_human() {
            context.out.value(&spending)?;
            return Ok(Exit::Ok);
        }
        if spending.days.is_empty() {
            context.reporter.line("nothing was spent, and no task has ended, in this time");
        }
        let tables = tables(&spending, self.all_namespaces);
        for (index, table) in tables.iter().filter(|table| !table.is_empty()).enumerate() {
            if index > 0 {
                context.out.line("")?;
            }
            context.out.table(table)?;
        }
        Ok(Exit::Ok)
    }
}

fn tables(spending: &Spending, all: bool) -> [Table; 3] {
    let mut days = Table::new(&["DAY", "COST", "INPUT", "OUTPUT", "SUCCEEDED", "FAILED"]);
    for one in &spending.days {
        days.row(row(&one.name, one));
    }
    if let Some(total) = spending.total.as_ref().filter(|_| !days.is_empty()) {
        days.row(row("total", total));
    }
    let mut agents = Table::new(&["AGENT", "COST", "INPUT", "OUTPUT", "SUCCEEDED", "FAILED"]);
    for one in &spending.agents {
        let name = match names::parse(&one.name, "agents") {
            Some((namespace, agent)) if all => format!("{namespace}/{agent}"),
            Some((_, agent)) => agent.to_owned(),
            None => "none".to_owned(),
        };
        agents.row(row(&name, one));
    }
    if let Some(others) = &spending.other_agents {
        agents.row(row("others", others));
    }
    let mut models = Table::new(&["MODEL", "COST", "INPUT", "OUTPUT"]);
    for one in &spending.models {
        let name = if one.name.is_empty() { "unknown" } else { &one.name };
        models.row(row(name, one).into_iter().take(4));
    }
    if let Some(others) = &spending.other_models {
        models.row(row("others", others).into_iter().take(4));
    }
    [days, agents, models]
}

fn row(name: &str, one: &SpendingEntry) -> [String; 6] {
    [
        name.to_owned(),
        format!("${}", Usd { micro: one.cost_micro_usd }),
        one.input_tokens.to_string(),
        one.output_tokens.to_string(),
        one.succeeded_tasks.to_string(),
        one.failed_tasks.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, cost_micro_usd: i64) -> SpendingEntry {
        SpendingEntry { name: name.to_owned(), cost_micro_usd, succeeded_tasks: 2, ..Default::default() }
    }

    fn first_columns(tables: &[Table; 3]) -> Vec<Vec<String>> {
        let column = |table: &Table| {
            let text = table.render(false);
            text.lines()
                .filter_map(|line| line.split_whitespace().next())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        tables.iter().map(column).collect()
    }

    #[test]
    fn tables_end_with_the_total_and_what_is_left() {
        let spending = Spending {
            total: Some(entry("", 3)),
            days: vec![entry("2026-01-02", 2), entry("2026-01-01", 1)],
            agents: vec![entry("namespaces/n/agents/coder", 2), entry("", 0)],
            other_agents: Some(entry("", 1)),
            models: vec![entry("large", 2), entry("", 1)],
            other_models: None,
        };
        let columns = first_columns(&tables(&spending, false));
        assert_eq!(columns[0], ["DAY", "2026-01-02", "2026-01-01", "total"]);
        assert_eq!(columns[1], ["AGENT", "coder", "none", "others"]);
        assert_eq!(columns[2], ["MODEL", "large", "unknown"]);
        assert_eq!(first_columns(&tables(&spending, true))[1][1], "n/coder");
        assert!(tables(&Spending { total: Some(entry("", 0)), ..Default::default() }, false)[0].is_empty());
    }
}
