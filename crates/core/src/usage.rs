//! Usage of attempts: tokens, turns and cost.

use serde::{Deserialize, Serialize};

/// Total of tokens, turns and cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens read by the model, without those from the prompt cache.
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cache_read_tokens: i64,
    pub cache_write_tokens: i64,
    /// Cost in millionths of a US dollar.
    pub cost_micro_usd: i64,
    pub turns: i32,
    /// Model with the largest share.
    pub model: String,
}

impl Usage {
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Whether every number is zero.
    pub fn adds_nothing(&self) -> bool {
        Self { model: String::new(), ..self.clone() }.is_zero()
    }

    /// Returns the maximum of each number: consecutive totals of an attempt never decrease.
    #[must_use]
    pub fn at_least(&self, other: &Self) -> Self {
        Self {
            input_tokens: self.input_tokens.max(other.input_tokens),
            output_tokens: self.output_tokens.max(other.output_tokens),
            cache_read_tokens: self.cache_read_tokens.max(other.cache_read_tokens),
            cache_write_tokens: self.cache_write_tokens.max(other.cache_write_tokens),
            cost_micro_usd: self.cost_micro_usd.max(other.cost_micro_usd),
            turns: self.turns.max(other.turns),
            model: if other.model.is_empty() { self.model.clone() } else { other.model.clone() },
        }
    }

    /// Returns the difference from an earlier total, under this total's model.
    #[must_use]
    pub fn minus(&self, earlier: &Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_sub(earlier.input_tokens),
            output_tokens: self.output_tokens.saturating_sub(earlier.output_tokens),
            cache_read_tokens: self.cache_read_tokens.saturating_sub(earlier.cache_read_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_sub(earlier.cache_write_tokens),
            cost_micro_usd: self.cost_micro_usd.saturating_sub(earlier.cost_micro_usd),
            turns: self.turns.saturating_sub(earlier.turns),
            model: self.model.clone(),
        }
    }

    /// Returns the sum, under the other's model if it has one.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cache_read_tokens: self.cache_read_tokens.saturating_add(other.cache_read_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_add(other.cache_write_tokens),
            cost_micro_usd: self.cost_micro_usd.saturating_add(other.cost_micro_usd),
            turns: self.turns.saturating_add(other.turns),
            model: if other.model.is_empty() { self.model.clone() } else { other.model.clone() },
        }
    }
}

/// Formats millionths of a US dollar, with two decimals at least.
pub fn usd(micro: i64) -> String {
    let (whole, part) = (micro / 1_000_000, micro.rem_euclid(1_000_000));
    let digits = format!("{part:06}");
    let (cents, rest) = digits.split_at(2);
    format!("${whole}.{cents}{}", rest.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_keep_their_digits() {
        let amounts = [(0, "$0.00"), (40, "$0.00004"), (1_250_000, "$1.25"), (2_300_100, "$2.3001")];
        for (micro, text) in amounts {
            assert_eq!(usd(micro), text);
        }
    }
}
