//! Sums up an attempt's usage. The CLI's result lines are exact, and come at the end of a turn only; before it, the CLI
//! reports the totals of its session on request. A CLI that does not is followed by its messages, at list prices.

mod streamed;

use std::collections::{BTreeMap, BTreeSet};

use rota_proto::v1::Usage;

use self::streamed::Streamed;
use super::lines::{Finished, ModelUsage, StreamEvent};
use crate::prices::Prices;

type Models = BTreeMap<String, ModelUsage>;

/// Usage of an attempt, over all turns, and over two processes if a session could not be resumed.
#[derive(Debug, Default)]
pub(super) struct UsageTotals {
    prices: Prices,
    /// What result lines have confirmed.
    models: Models,
    turns: i32,
    any: bool,
    /// Usage of the rounds before.
    earlier: Usage,
    /// Totals of the session before what is not confirmed yet. Those of a resumed session begin with its earlier attempts.
    base: Option<Models>,
    /// Whether the CLI reports totals on request: its own costs are not mixed with estimates, since usage only grows.
    answers: bool,
    /// Not confirmed, as the CLI reports it.
    reported: Models,
    /// Not confirmed, according to its messages.
    streamed: Streamed,
    /// Models without a price that were noticed.
    unpriced: BTreeSet<String>,
}

impl UsageTotals {
    pub(super) fn after(earlier: Usage, prices: Prices) -> Self {
        Self { any: earlier != Usage::default(), earlier, prices, ..Self::default() }
    }

    /// Takes the totals of the session, which the CLI has reported on request. The first are those before the first turn.
    pub(super) fn session(&mut self, totals: Models) {
        self.answers = true;
        match &self.base {
            None => self.base = Some(totals),
            Some(base) => self.reported = difference(&totals, base),
        }
    }

    /// Takes in that the CLI answers no more requests: its messages are followed instead.
    pub(super) fn unanswered(&mut self) {
        self.answers = false;
    }

    /// Takes a part of a message, or its end. Returns whether a message has ended.
    pub(super) fn stream(&mut self, event: StreamEvent, agent: Option<&str>) -> bool {
        self.streamed.take(event, agent)
    }

    pub(super) fn add(&mut self, line: &Finished) {
        self.any = true;
        self.turns = self.turns.saturating_add(line.num_turns.unwrap_or(0));
        match &line.model_usage_since_last_result {
            // Earlier costs of a resumed session belong to an earlier attempt.
            Some(new) => {
                for (model, usage) in new {
                    self.models.entry(model.clone()).or_default().add(usage);
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
        let confirms = line.model_usage_since_last_result.is_some() || !line.model_usage.is_empty();
        if confirms {
            self.base = Some(line.model_usage.clone());
            self.reported.clear();
            self.streamed = Streamed::default();
        }
    }

    /// Returns the sums, once there is something to count.
    pub(super) fn usage(&self) -> Option<Usage> {
        let since = self.since();
        let partial = !since.is_empty();
        if !self.any && !partial {
            return None;
        }
        let mut models = self.models.clone();
        for (model, usage) in since {
            models.entry(model.clone()).or_default().add(usage);
        }
        let sum = |part: fn(&ModelUsage) -> f64| models.values().map(part).sum::<f64>();
        // Apart: the CLI's own costs, and tokens that have none yet.
        let parts = [&self.models, since];
        let cost = |model: &String| {
            let usages = parts.iter().filter_map(|part| part.get(model));
            usages.map(|usage| self.cost_usd(model, usage)).sum::<f64>()
        };
        let main = models.keys().max_by(|a, b| cost(a).total_cmp(&cost(b)));
        let earlier = &self.earlier;
        let plus = |earlier: i64, sum: f64| earlier.saturating_add(sum as i64);
        let turns = if partial { self.streamed.turns() } else { 0 };
        Some(Usage {
            input_tokens: plus(earlier.input_tokens, sum(|usage| usage.input_tokens)),
            output_tokens: plus(earlier.output_tokens, sum(|usage| usage.output_tokens)),
            cache_read_tokens: plus(earlier.cache_read_tokens, sum(|usage| usage.cache_read_input_tokens)),
            cache_write_tokens: plus(
                earlier.cache_write_tokens,
                sum(|usage| usage.cache_creation_input_tokens),
            ),
            cost_micro_usd: plus(
                earlier.cost_micro_usd,
                (models.keys().map(cost).sum::<f64>() * 1e6).round(),
            ),
            turns: earlier.turns.saturating_add(self.turns).saturating_add(turns),
            model: main.map_or_else(|| earlier.model.clone(), Clone::clone),
            partial,
        })
    }

    /// Returns the models without a price, of which the CLI reports no cost either, each once.
    pub(super) fn unpriced(&mut self) -> Vec<String> {
        let all = self.models.iter().chain(self.since());
        let unknown = all.filter(|(model, usage)| !usage.is_priced() && self.prices.of(model).is_none());
        let unknown: BTreeSet<_> = unknown.map(|(model, _)| model.clone()).collect();
        let new: Vec<_> = unknown.difference(&self.unpriced).cloned().collect();
        self.unpriced.extend(new.iter().cloned());
        new
    }

    /// Returns what is not confirmed. Once the CLI does not answer any more, its messages count as soon as they exceed its last
    /// answer: the two may name the models differently, and are not mixed.
    fn since(&self) -> &Models {
        let (reported, streamed) = (&self.reported, self.streamed.models());
        if self.answers || self.cost_of(reported) > self.cost_of(streamed) { reported } else { streamed }
    }

    fn cost_of(&self, models: &Models) -> f64 {
        models.iter().map(|(model, usage)| self.cost_usd(model, usage)).sum()
    }

    /// Returns the cost of a model: by the user's own price, else as the CLI reports it, else by the list.
    fn cost_usd(&self, model: &str, usage: &ModelUsage) -> f64 {
        if self.prices.own(model).is_some() || !usage.is_priced() {
            return self.prices.cost_usd(model, &usage.tokens());
        }
        usage.cost_usd
    }
}

/// Returns what has come to totals since earlier ones.
fn difference(totals: &Models, earlier: &Models) -> Models {
    let since = |(model, total): (&String, &ModelUsage)| {
        let mut since = total.clone();
        if let Some(earlier) = earlier.get(model) {
            since.subtract(earlier);
        }
        (!since.is_zero()).then(|| (model.clone(), since))
    };
    totals.iter().filter_map(since).collect()
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
        let mut next = UsageTotals::after(usage_totals.usage().unwrap(), Prices::default());
        assert_eq!(next.usage(), usage_totals.usage());
        next.add(&line(json!({"num_turns": 1, "modelUsage": {"big": of(5, 0.5)}})));
        let usage = next.usage().unwrap();
        assert_eq!((usage.input_tokens, usage.turns, usage.cost_micro_usd), (15, 3, 750_000));
    }

    fn session(models: serde_json::Value) -> Models {
        serde_json::from_value(models).unwrap()
    }

    #[test]
    fn resumed_session_begins_with_what_others_have_used() {
        let mut totals = UsageTotals::default();
        totals.session(session(json!({"big": of(1000, 9.0)})));
        assert_eq!(totals.usage(), None, "that is an earlier attempt's");
        totals.session(session(json!({"big": of(1010, 9.5), "small": of(5, 0.25)})));
        let live = totals.usage().unwrap();
        assert_eq!((live.input_tokens, live.cost_micro_usd, live.partial), (15, 750_000, true));
        totals.add(&line(json!({
            "num_turns": 2, "modelUsage": {"big": of(1012, 9.75), "small": of(5, 0.25)},
            "model_usage_since_last_result": {"big": of(12, 0.75), "small": of(5, 0.25)},
        })));
        let confirmed = totals.usage().unwrap();
        assert_eq!(
            (confirmed.input_tokens, confirmed.cost_micro_usd, confirmed.partial),
            (17, 1_000_000, false)
        );
        totals.session(session(json!({"big": of(1012, 9.75), "small": of(5, 0.25)})));
        assert_eq!(totals.usage().unwrap(), confirmed, "nothing counts twice");
        totals.session(session(json!({"big": of(1013, 10.0), "small": of(5, 0.25)})));
        assert_eq!(totals.usage().unwrap().cost_micro_usd, 1_250_000);
    }

    #[test]
    fn messages_count_once_where_the_cli_reports_nothing() {
        let event = |event: serde_json::Value| serde_json::from_value::<StreamEvent>(event).unwrap();
        let mut totals = UsageTotals::default();
        for _ in 0..2 {
            let message = json!({"id": "m1", "model": "claude-opus-5-5", "usage": {"input_tokens": 1000, "output_tokens": 1}});
            totals.stream(event(json!({"type": "message_start", "message": message})), None);
        }
        let usage = |output| {
            json!({"type": "message_delta", "usage": {"input_tokens": 1000, "output_tokens": output,
            "cache_creation_input_tokens": 300, "cache_creation": {"ephemeral_1h_input_tokens": 100}}})
        };
        totals.stream(event(usage(200)), None);
        totals.stream(event(usage(500)), None);
        assert!(totals.stream(event(json!({"type": "message_stop"})), None));
        let live = totals.usage().unwrap();
        assert_eq!((live.output_tokens, live.cache_write_tokens, live.turns), (500, 300, 1));
        assert_eq!(live.cost_micro_usd, 4000 + 10_000 + 200 * 5 + 100 * 8);
        assert!(totals.unpriced().is_empty());
        // A subagent's, at the same time.
        let message = json!({"id": "m2", "model": "else", "usage": {"output_tokens": 10}});
        totals.stream(event(json!({"type": "message_start", "message": message})), Some("t1"));
        totals.stream(event(usage(500)), Some("t1"));
        assert!(totals.usage().unwrap().cost_micro_usd > 2 * live.cost_micro_usd, "an unknown model is dear");
        assert_eq!((totals.unpriced(), totals.unpriced()), (vec!["else".to_owned()], vec![]));
        totals.add(&line(json!({"num_turns": 1, "modelUsage": {"big": of(5, 0.5)}})));
        assert_eq!(totals.usage().unwrap().cost_micro_usd, 500_000, "the result is exact");
    }

    #[test]
    fn message_in_progress_is_not_estimated_where_the_cli_reports_costs() {
        let event = |event: serde_json::Value| serde_json::from_value::<StreamEvent>(event).unwrap();
        let mut totals = UsageTotals::default();
        totals.session(session(json!({"big": of(1000, 9.0)})));
        let message = json!({"id": "m1", "model": "unheard-of", "usage": {"output_tokens": 100}});
        totals.stream(event(json!({"type": "message_start", "message": message})), None);
        totals.session(session(json!({"big": of(1000, 9.0)})));
        assert_eq!((totals.usage(), totals.unpriced()), (None, vec![]), "it would be the dearest price");
        totals.unanswered();
        assert!(totals.usage().unwrap().cost_micro_usd > 0);
        assert_eq!(totals.unpriced(), ["unheard-of"]);
    }

    #[test]
    fn messages_are_followed_once_the_cli_stops_answering() {
        let mut totals = UsageTotals::default();
        let message = |totals: &mut UsageTotals, id: &str| {
            let usage = json!({"input_tokens": 100_000, "output_tokens": 10_000});
            let message = json!({"id": id, "model": "claude-opus-5-5", "usage": usage});
            for event in
                [json!({"type": "message_start", "message": message}), json!({"type": "message_stop"})]
            {
                totals.stream(serde_json::from_value(event).unwrap(), None);
            }
            totals.usage().map_or(0, |usage| usage.cost_micro_usd)
        };
        totals.session(session(json!({"claude-opus-5-5": of(10, 1.0)})));
        message(&mut totals, "m1");
        totals.session(session(json!({"claude-opus-5-5": of(100_010, 1.1)})));
        totals.unanswered();
        let mut cost = totals.usage().unwrap().cost_micro_usd;
        assert!(cost >= 100_000, "it never falls");
        for id in ["m2", "m3"] {
            let next = message(&mut totals, id);
            assert!(next > cost, "{next} after {cost}");
            cost = next;
        }
        // Late answers, then nothing again.
        totals.session(session(json!({"claude-opus-5-5": of(100_010, 1.1)})));
        totals.unanswered();
        let totals_of_turn = json!({"num_turns": 1, "modelUsage": {"claude-opus-5-5": of(300_010, 9.0)}});
        totals.add(&line(totals_of_turn));
        let confirmed = totals.usage().unwrap().cost_micro_usd;
        assert!(message(&mut totals, "m4") > confirmed, "the next turn counts as well");
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
