//! What was spent, as the API has it: sums of hours by the day of UTC, by agent and by model.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rota_core::Timestamp;
use rota_proto::{names, num, v1};

use super::DAY;
use super::period::Period;
use super::query::Query;
use super::row::{self, Row};
use crate::metrics::{NONE, OTHER};
use crate::wire::time;

/// Agents and models with an entry of their own: those that cost most. Further ones share one.
const MAX_ENTRIES: usize = 200;
/// Length of a time without a begin, in seconds.
pub(super) const USUAL_LENGTH: i64 = 7 * DAY;

/// Sums of the periods of a query.
#[derive(Debug, Default)]
pub(super) struct Spending {
    total: v1::SpendingEntry,
    /// By the number of the day since 1970.
    days: BTreeMap<i64, v1::SpendingEntry>,
    agents: BTreeMap<String, v1::SpendingEntry>,
    models: BTreeMap<String, v1::SpendingEntry>,
}

impl Spending {
    /// Adds what the query asks for of an hour, or of hours of one day.
    pub(super) fn add(&mut self, query: &Query, period: &Period) {
        for row in period.rows.iter().filter(|row| query.matches(row)) {
            let entry = entry(row);
            // Hours also have agents that only waited.
            if entry == v1::SpendingEntry::default() {
                continue;
            }
            add(&mut self.total, &entry);
            add(self.days.entry(period.start.div_euclid(DAY)).or_default(), &entry);
            add(self.agents.entry(agent(row)).or_default(), &entry);
            // A task may have used several models, and counts for none.
            let used = v1::SpendingEntry { succeeded_tasks: 0, failed_tasks: 0, ..entry };
            if used != v1::SpendingEntry::default() {
                add(self.models.entry(model(row)).or_default(), &used);
            }
        }
    }

    pub(super) fn into_wire(self) -> v1::Spending {
        let days = self.days.into_iter().rev();
        let days = days.map(|(day, entry)| v1::SpendingEntry { name: date(day), ..entry }).collect();
        let (agents, other_agents) = largest(self.agents);
        let (models, other_models) = largest(self.models);
        v1::Spending { total: Some(self.total), days, agents, other_agents, models, other_models }
    }
}

fn entry(row: &Row) -> v1::SpendingEntry {
    let count = |at| num::to_i64(row.counter(at));
    v1::SpendingEntry {
        name: String::new(),
        cost_micro_usd: count(row::COST),
        input_tokens: count(row::INPUT),
        output_tokens: count(row::OUTPUT),
        succeeded_tasks: count(row::SUCCEEDED),
        failed_tasks: count(row::FAILED),
    }
}

/// Adds the numbers of an entry.
fn add(to: &mut v1::SpendingEntry, from: &v1::SpendingEntry) {
    for (to, from) in [
        (&mut to.cost_micro_usd, from.cost_micro_usd),
        (&mut to.input_tokens, from.input_tokens),
        (&mut to.output_tokens, from.output_tokens),
        (&mut to.succeeded_tasks, from.succeeded_tasks),
        (&mut to.failed_tasks, from.failed_tasks),
    ] {
        *to = to.saturating_add(from);
    }
}

/// Returns the name of the agent of a row; empty for tasks that name none.
fn agent(row: &Row) -> String {
    match row.agent.as_str() {
        NONE => String::new(),
        OTHER => OTHER.to_owned(),
        agent => names::agent(&row.namespace, agent),
    }
}

/// Returns the model of a row; empty if it is unknown.
fn model(row: &Row) -> String {
    if row.model == NONE { String::new() } else { row.model.clone() }
}

/// Returns the date of a day of UTC.
fn date(day: i64) -> String {
    let mut date = time::rfc3339(Timestamp(day.saturating_mul(DAY * 1_000_000)));
    date.truncate("2026-01-01".len());
    date
}

/// Returns the entries that cost most, and the sum of the others, if there are any.
fn largest(
    mut all: BTreeMap<String, v1::SpendingEntry>,
) -> (Vec<v1::SpendingEntry>, Option<v1::SpendingEntry>) {
    let mut others = all.remove(OTHER);
    let named = all.into_iter().map(|(name, entry)| v1::SpendingEntry { name, ..entry });
    let mut named: Vec<_> = named.collect();
    named.sort_by_key(|entry| Reverse(entry.cost_micro_usd));
    for entry in named.iter().skip(MAX_ENTRIES) {
        add(others.get_or_insert_default(), entry);
    }
    named.truncate(MAX_ENTRIES);
    (named, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Begin of 2026-01-02, in seconds.
    const MIDNIGHT: i64 = 1_767_312_000;

    fn query(namespace: Option<&str>, agent: Option<&str>) -> Query {
        Query {
            namespace: namespace.map(|namespace| namespace.parse().unwrap()),
            agent: agent.map(|agent| agent.parse().unwrap()),
            start: 0,
            end: 2 * MIDNIGHT,
        }
    }

    fn row(key: (&str, &str, &str), cost: u64, succeeded: u64) -> Row {
        let mut row = Row::of((key.0.to_owned(), key.1.to_owned(), key.2.to_owned()));
        row.counters = vec![0, succeeded, 0, 0, cost, 2 * cost, 3 * cost];
        row
    }

    fn spending(query: &Query, hours: Vec<(i64, Vec<Row>)>) -> v1::Spending {
        let mut spending = Spending::default();
        for (start, rows) in hours {
            spending.add(query, &Period { start, readings: 1, rows });
        }
        spending.into_wire()
    }

    fn costs(entries: &[v1::SpendingEntry]) -> Vec<(&str, i64, i64)> {
        let costs = entries.iter().map(|one| (one.name.as_str(), one.cost_micro_usd, one.succeeded_tasks));
        costs.collect()
    }

    #[test]
    fn hours_are_added_up_by_day_agent_and_model() {
        let hours = || {
            let idle = Row { gauges: vec![1], ..row(("n", "idle", ""), 0, 0) };
            let first = vec![row(("n", "a", ""), 0, 2), row(("n", "a", "large"), 5, 0), idle];
            let before_models = row(("n", "b", ""), 1, 1);
            let last = vec![row(("n", "a", "small"), 2, 0), before_models, row(("m", "a", "small"), 7, 0)];
            vec![(MIDNIGHT - 3600, first), (MIDNIGHT, last)]
        };
        let found = spending(&query(Some("n"), None), hours());
        let total = found.total.unwrap();
        assert_eq!((total.cost_micro_usd, total.input_tokens, total.output_tokens), (8, 16, 24));
        assert_eq!((total.succeeded_tasks, total.failed_tasks), (3, 0));
        assert_eq!(costs(&found.days), [("2026-01-02", 3, 1), ("2026-01-01", 5, 2)]);
        assert_eq!(costs(&found.agents), [("namespaces/n/agents/a", 7, 2), ("namespaces/n/agents/b", 1, 1)]);
        assert_eq!(costs(&found.models), [("large", 5, 0), ("small", 2, 0), ("", 1, 0)]);
        assert_eq!((found.other_agents, found.other_models), (None, None));

        let found = spending(&query(Some("n"), Some("b")), hours());
        assert_eq!(costs(&found.agents), [("namespaces/n/agents/b", 1, 1)]);
        let found = spending(&query(None, None), hours());
        let agents = ["namespaces/m/agents/a", "namespaces/n/agents/a", "namespaces/n/agents/b"];
        assert_eq!(found.agents.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), agents);
        assert_eq!(spending(&query(Some("none"), None), hours()).days, []);
    }

    #[test]
    fn entries_beyond_the_limit_share_one() {
        let names: Vec<_> = (0..MAX_ENTRIES + 10).map(|number| format!("a{number}")).collect();
        let mut rows: Vec<_> =
            (1..).zip(&names).map(|(cost, name)| row(("n", name.as_str(), name.as_str()), cost, 1)).collect();
        rows.push(row((OTHER, OTHER, OTHER), 1000, 1));
        rows.push(row((NONE, NONE, NONE), 0, 1));
        let found = spending(&query(None, None), vec![(0, rows)]);
        for (entries, others, tasks) in
            [(found.agents, found.other_agents, 12), (found.models, found.other_models, 0)]
        {
            assert_eq!(entries.len(), MAX_ENTRIES);
            assert_eq!(entries[0].cost_micro_usd, 210);
            // The ten that cost least, and what has no label of its own.
            let others = others.unwrap();
            assert_eq!((others.cost_micro_usd, others.name.as_str()), (1055, ""));
            assert_eq!(others.succeeded_tasks, tasks);
        }
    }
}
