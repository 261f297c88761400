//! Sums up an attempt's usage from the CLI's result lines. Only these are exact: the usage in a message is
//! that of its start.

use std::collections::BTreeMap;

use rota_proto::v1::Usage;

use super::lines::{Finished, ModelUsage};

/// Usage of an attempt, over all turns, and over two processes if a session could not be resumed.
#[derive(Debug, Default)]
pub(super) struct UsageTotals {
    models: BTreeMap<String, ModelUsage>,
    turns: i32,
    any: bool,
    /// Usage of the rounds before.
    earlier: Usage,
}

impl UsageTotals {
    pub(super) fn after(earlier: Usage) -> Self {
        Self { any: earlier != Usage::default(), earlier, ..Self::default() }
    }

    pub(super) fn add(&mut self, line: &Finished) {
        self.any = true;
        self.turns = self.turns.saturating_add(line.num_turns.unwrap_or(0));
        match &line.model_usage_since_last_result {
            // Earlier costs of a resumed session belong to an earlier attempt.
            Some(new) => {
                for (model, usage) in new {
                    let sum = self.models.entry(model.clone()).or_default();
                    sum.input_tokens += usage.input_tokens;
                    sum.output_tokens += usage.output_tokens;
                    sum.cache_read_input_tokens += usage.cache_read_input_tokens;
                    sum.cache_creation_input_tokens += usage.cache_creation_input_tokens;
                    sum.cost_usd += usage.cost_usd;
                }
            }
            // A CLI that does not report the difference, or a failed start without usage.
            None if !line.model_usage.is_empty() => self.models.clone_from(&line.model_usage),
            None => {
                if let Some(cost) = line.total_cost_usd.filter(|cost| *cost > 0.0) {
                    self.models.entry(String::new()).or_default().cost_usd = cost;
                }
            }
        }
    }

    /// Returns the sums, once there was a result line.
    pub(super) fn usage(&self) -> Option<Usage> {
        if !self.any {
            return None;
        }
        let sum = |part: fn(&ModelUsage) -> f64| self.models.values().map(part).sum::<f64>();
        let main = self.models.iter().max_by(|a, b| a.1.cost_usd.total_cmp(&b.1.cost_usd));
        let earlier = &self.earlier;
        Some(Usage {
            input_tokens: earlier.input_tokens + sum(|usage| usage.input_tokens) as i64,
            output_tokens: earlier.output_tokens + sum(|usage| usage.output_tokens) as i64,
            cache_read_tokens: earlier.cache_read_tokens + sum(|usage| usage.cache_read_input_tokens) as i64,
            cache_write_tokens: earlier.cache_write_tokens
                + sum(|usage| usage.cache_creation_input_tokens) as i64,
            cost_micro_usd: earlier.cost_micro_usd + (sum(|usage| usage.cost_usd) * 1e6).round() as i64,
            turns: earlier.turns.saturating_add(self.turns),
            model: main.map_or_else(|| earlier.model.clone(), |(model, _)| model.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(line: serde_json::Value) -> Finished {
        serde_json::from_value(line).unwrap()
    }

    fn of(input: i64, cost: f64) -> serde_json::Value {
        json!({"inputTokens": input, "outputTokens": 7, "cacheReadInputTokens": 100, "cacheCreationInputTokens": 3, "costUSD": cost})
    }

    #[test]
    fn usage_is_unknown_without_result() {
        assert_eq!(UsageTotals::default().usage(), None);
    }

    #[test]
    fn results_add_up_without_earlier_attempts() {
        let mut usage_totals = UsageTotals::default();
        for cost in [0.25, 0.5] {
            usage_totals.add(&line(json!({
                "num_turns": 2, "total_cost_usd": 9.0,
                "modelUsage": {"big": of(1000, 9.0)},
                "model_usage_since_last_result": {"big": of(10, cost), "small": of(5, 0.000_001)},
            })));
        }
        let usage = usage_totals.usage().unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), (30, 28));
        assert_eq!((usage.cache_read_tokens, usage.cache_write_tokens), (400, 12));
        assert_eq!((usage.cost_micro_usd, usage.turns, usage.model.as_str()), (750_002, 4, "big"));
    }

    #[test]
    fn earlier_rounds_count() {
        let mut usage_totals = UsageTotals::default();
        usage_totals.add(&line(json!({"num_turns": 2, "modelUsage": {"big": of(10, 0.25)}})));
        let mut next = UsageTotals::after(usage_totals.usage().unwrap());
        assert_eq!(next.usage(), usage_totals.usage());
        next.add(&line(json!({"num_turns": 1, "modelUsage": {"big": of(5, 0.5)}})));
        let usage = next.usage().unwrap();
        assert_eq!((usage.input_tokens, usage.turns, usage.cost_micro_usd), (15, 3, 750_000));
    }

    #[test]
    fn cumulative_usage_replaces_earlier_usage() {
        let mut usage_totals = UsageTotals::default();
        for cost in [0.25, 0.5] {
            usage_totals.add(&line(json!({"num_turns": 1, "modelUsage": {"big": of(10, cost)}})));
        }
        assert_eq!(usage_totals.usage().unwrap().cost_micro_usd, 500_000);
    }
}
