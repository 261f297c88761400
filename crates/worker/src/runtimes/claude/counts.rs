//! Counts of tokens, and costs, in the CLI's lines: by model, and of a message as it is streamed. Knows no prices.

use rota_proto::v1::MessageRole;
use serde::Deserialize;

use crate::prices::Tokens;

/// Tokens and cost of one model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ModelUsage {
    pub(super) input_tokens: f64,
    pub(super) output_tokens: f64,
    pub(super) cache_read_input_tokens: f64,
    pub(super) cache_creation_input_tokens: f64,
    #[serde(rename = "cacheCreationEphemeral1hInputTokens")]
    pub(super) cache_creation_1h_input_tokens: f64,
    #[serde(rename = "costUSD")]
    pub(super) cost_usd: f64,
    /// `unknown` if the CLI has only guessed the cost.
    pub(super) cost_basis: Option<String>,
}

/// A streamed part of a message. Most parts are of no interest here.
#[derive(Debug, Default, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum StreamEvent {
    MessageStart {
        message: MessageStart,
    },
    MessageDelta {
        #[serde(default)]
        usage: MessageUsage,
    },
    MessageStop,
    ContentBlockStart {
        content_block: BlockStart,
    },
    ContentBlockDelta {
        delta: BlockDelta,
    },
    #[default]
    #[serde(other)]
    Other,
}

/// Kind of a block that begins.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum BlockStart {
    Text,
    Thinking,
    #[serde(other)]
    Other,
}

/// Part of a block, of which only texts are streamed.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum BlockDelta {
    TextDelta {
        text: String,
    },
    ThinkingDelta {
        thinking: String,
    },
    #[serde(other)]
    Other,
}

impl BlockStart {
    /// Returns the author of the message that the block becomes, if it becomes one.
    pub(super) fn role(&self) -> Option<MessageRole> {
        match self {
            Self::Text => Some(MessageRole::Assistant),
            Self::Thinking => Some(MessageRole::Thinking),
            Self::Other => None,
        }
    }
}

impl BlockDelta {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::TextDelta { text } | Self::ThinkingDelta { thinking: text } => text,
            Self::Other => "",
        }
    }
}

/// Reads a part that may have any form.
pub(super) fn known_or_other<'de, D: serde::Deserializer<'de>>(from: D) -> Result<StreamEvent, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Lenient {
        Known(StreamEvent),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Lenient::deserialize(from)? {
        Lenient::Known(event) => event,
        Lenient::Other(_) => StreamEvent::Other,
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MessageStart {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) usage: MessageUsage,
}

/// Usage of one message so far.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MessageUsage {
    input_tokens: Option<f64>,
    output_tokens: Option<f64>,
    cache_read_input_tokens: Option<f64>,
    cache_creation_input_tokens: Option<f64>,
    cache_creation: Option<CacheCreation>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CacheCreation {
    ephemeral_1h_input_tokens: f64,
}

impl From<&MessageUsage> for ModelUsage {
    fn from(usage: &MessageUsage) -> Self {
        Self {
            input_tokens: usage.input_tokens.unwrap_or_default(),
            output_tokens: usage.output_tokens.unwrap_or_default(),
            cache_read_input_tokens: usage.cache_read_input_tokens.unwrap_or_default(),
            cache_creation_input_tokens: usage.cache_creation_input_tokens.unwrap_or_default(),
            cache_creation_1h_input_tokens: (usage.cache_creation.as_ref())
                .map_or(0.0, |created| created.ephemeral_1h_input_tokens),
            ..Self::default()
        }
    }
}

impl ModelUsage {
    fn zip(&mut self, other: &Self, with: impl Fn(f64, f64) -> f64) {
        for (own, other) in [
            (&mut self.input_tokens, other.input_tokens),
            (&mut self.output_tokens, other.output_tokens),
            (&mut self.cache_read_input_tokens, other.cache_read_input_tokens),
            (&mut self.cache_creation_input_tokens, other.cache_creation_input_tokens),
            (&mut self.cache_creation_1h_input_tokens, other.cache_creation_1h_input_tokens),
            (&mut self.cost_usd, other.cost_usd),
        ] {
            *own = with(*own, other);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.zip(other, |own, other| own + other);
        if other.cost_basis.is_some() {
            self.cost_basis.clone_from(&other.cost_basis);
        }
    }

    pub(super) fn subtract(&mut self, earlier: &Self) {
        self.zip(earlier, |own, earlier| (own - earlier).max(0.0));
    }

    pub(super) fn at_least(&self, other: &Self) -> Self {
        let mut most = self.clone();
        most.zip(other, f64::max);
        most
    }

    pub(super) fn is_zero(&self) -> bool {
        *self == Self { cost_basis: self.cost_basis.clone(), ..Self::default() }
    }

    /// Whether the cost is one that the CLI knows.
    pub(super) fn is_priced(&self) -> bool {
        self.cost_usd > 0.0 && self.cost_basis.as_deref() != Some("unknown")
    }

    pub(super) fn tokens(&self) -> Tokens {
        let hour = self.cache_creation_1h_input_tokens;
        Tokens {
            input: self.input_tokens,
            output: self.output_tokens,
            cache_read: self.cache_read_input_tokens,
            cache_write_5m: (self.cache_creation_input_tokens - hour).max(0.0),
            cache_write_1h: hour,
        }
    }
}
