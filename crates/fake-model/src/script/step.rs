//! One step of a script: what one answer says, how fast, and how it goes wrong before it goes right.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fault::{self, Fault};
use super::{MAX_WAIT, fault::Times};

/// One answer of the model.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Step {
    /// What it thinks first.
    pub(crate) thinking: Option<String>,
    /// What it says; `{{tool_result}}` stands for the text of the last tool result.
    pub(crate) text: Option<String>,
    /// How often `text` is said, for long answers.
    pub(crate) repeat: Option<u32>,
    /// The tools it calls, all in one turn.
    pub(crate) tools: Vec<ToolCall>,
    /// Why it stops; by default `tool_use` with tools, else `end_turn`.
    pub(crate) stop: Option<StopReason>,
    /// The usage that it reports, where it shall not be estimated.
    pub(crate) usage: Usage,
    /// How long nothing comes, not even headers.
    pub(crate) delay_ms: u64,
    /// A pause in mid-stream.
    pub(crate) pause: Option<Pause>,
    /// How slowly it streams.
    pub(crate) slow: Option<Slow>,
    /// What goes wrong first, in this order; the answer comes once every fault has had its times.
    #[serde(deserialize_with = "fault::one_or_many")]
    pub(crate) fail: Vec<Fault>,
}

/// A tool call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolCall {
    /// The tool's name.
    pub(crate) name: String,
    /// Its input.
    #[serde(default)]
    pub(crate) input: serde_json::Map<String, Value>,
    /// The call's id; made up if absent.
    pub(crate) id: Option<String>,
}

/// A pause in mid-stream.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pause {
    /// After how many events of the stream.
    #[serde(default)]
    pub(crate) after: usize,
    /// For how long.
    pub(crate) ms: u64,
}

/// A slow stream.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slow {
    /// The wait before each piece.
    pub(crate) every_ms: u64,
    /// How many characters a piece has.
    #[serde(default = "Slow::default_chars")]
    pub(crate) chars: usize,
}

impl Slow {
    pub(crate) fn default_chars() -> usize {
        40
    }
}

/// The tokens that an answer reports. What is absent is estimated from the sizes; cached tokens are 0.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Usage {
    /// Tokens of the request that were not cached.
    pub(crate) input_tokens: Option<u64>,
    /// Tokens of the answer.
    pub(crate) output_tokens: Option<u64>,
    /// Tokens read from the cache.
    pub(crate) cache_read_input_tokens: Option<u64>,
    /// Tokens written to the cache.
    pub(crate) cache_creation_input_tokens: Option<u64>,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StopReason {
    /// It has said everything.
    EndTurn,
    /// It waits for tools.
    ToolUse,
    /// The limit of the request was met.
    MaxTokens,
    /// A stop sequence was met.
    StopSequence,
    /// The service wants to be asked to go on.
    PauseTurn,
    /// It declines to answer.
    Refusal,
    /// The conversation does not fit any more.
    ModelContextWindowExceeded,
}

impl Step {
    /// The fault of this attempt, counted from 0.
    pub(crate) fn fault(&self, attempt: u32) -> Option<&Fault> {
        let mut left = attempt;
        for fault in &self.fail {
            match fault.times {
                Times::Always => return Some(fault),
                Times::Count(count) if left < count => return Some(fault),
                Times::Count(count) => left -= count,
            }
        }
        None
    }

    /// Whether it has nothing but faults: no words, no pace.
    pub(super) fn only_fails(&self) -> bool {
        !self.fail.is_empty()
            && self.is_silent()
            && self.delay_ms == 0
            && self.pause.is_none()
            && self.slow.is_none()
    }

    /// Whether it has no answer.
    pub(crate) fn is_silent(&self) -> bool {
        self.thinking.is_none() && self.text.is_none() && self.tools.is_empty() && self.stop.is_none()
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.is_silent() && self.fail.is_empty() {
            return Err("it does nothing; it needs one of text, thinking, tools, stop, fail");
        }
        let waits = [self.delay_ms, self.pause.map_or(0, |p| p.ms), self.slow.map_or(0, |s| s.every_ms)];
        if waits.into_iter().any(|ms| Duration::from_millis(ms) > MAX_WAIT) {
            return Err("no wait may be longer than an hour");
        }
        if self.slow.is_some_and(|slow| slow.chars == 0) {
            return Err("a piece of a slow stream has at least one character");
        }
        Ok(())
    }
}
