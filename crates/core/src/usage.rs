//! What attempts use: tokens, turns, money.

use serde::{Deserialize, Serialize};

/// Tokens, turns and money, in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens read by the model, without cached ones.
    pub input_tokens: i64,
    /// Tokens written by the model.
    pub output_tokens: i64,
    /// Tokens read from the prompt cache.
    pub cache_read_tokens: i64,
    /// Tokens written to the prompt cache.
    pub cache_write_tokens: i64,
    /// Cost in millionths of a US dollar.
    pub cost_micro_usd: i64,
    /// Turns between model and tools.
    pub turns: i32,
    /// The model that did most of it.
    pub model: String,
}

impl Usage {
    /// Whether nothing was used.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// The greater of each number: totals that an attempt tells one after the other never fall.
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

    /// This and `other` together; the later model's name stays.
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
