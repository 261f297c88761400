//! Step of a script: the content of one answer, its timing, and the faults that precede it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fault::{self, Fault};
use super::{MAX_WAIT, fault::Times};

/// One answer of the model.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Step {
    /// Text of the thinking block, which comes first.
    pub(crate) thinking: Option<String>,
    /// Text; `{{tool_result}}` is replaced by the last tool result.
    pub(crate) text: Option<String>,
    /// Number of repetitions of `text`, for long answers.
    pub(crate) repeat: Option<u32>,
    /// Tool calls, all in one turn.
    pub(crate) tools: Vec<ToolCall>,
    /// Stop reason; by default `tool_use` with tools, otherwise `end_turn`.
    pub(crate) stop: Option<StopReason>,
    /// Reported usage; absent fields are estimated.
    pub(crate) usage: Usage,
    pub(crate) delay_ms: u64,
    pub(crate) pause: Option<Pause>,
    pub(crate) slow: Option<Slow>,
    /// Faults before the answer, in order.
    #[serde(deserialize_with = "fault::one_or_many")]
    pub(crate) fail: Vec<Fault>,
}

/// Tool call of a step.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolCall {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) input: serde_json::Map<String, Value>,
    /// Id of the call; generated if absent.
    pub(crate) id: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pause {
    /// Number of events before the pause.
    #[serde(default)]
    pub(crate) after: usize,
    pub(crate) ms: u64,
}

/// Speed of a slow stream.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slow {
    /// Wait before each delta, in milliseconds.
    pub(crate) every_ms: u64,
    #[serde(default = "Slow::default_chars")]
    pub(crate) chars: usize,
}

impl Slow {
    pub(crate) fn default_chars() -> usize {
        40
    }
}

/// Tokens reported by an answer. Absent ones are estimated by size, cached tokens are 0.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Usage {
    /// Uncached tokens of the request.
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) cache_read_input_tokens: Option<u64>,
    pub(crate) cache_creation_input_tokens: Option<u64>,
}

/// Stop reason of an answer, as in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StopReason {
    EndTurn,
    ToolUse,
    MaxTokens,
    StopSequence,
    PauseTurn,
    Refusal,
    ModelContextWindowExceeded,
}

impl Step {
    /// Returns the fault of an attempt, counted from 0.
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

    /// Whether the step has nothing but faults: no answer, no timing.
    pub(super) fn only_fails(&self) -> bool {
        !self.fail.is_empty()
            && self.is_silent()
            && self.delay_ms == 0
            && self.pause.is_none()
            && self.slow.is_none()
    }

    /// Whether the step has no answer.
    pub(crate) fn is_silent(&self) -> bool {
        self.thinking.is_none() && self.text.is_none() && self.tools.is_empty() && self.stop.is_none()
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.is_silent() && self.fail.is_empty() {
            return Err("the step is empty; it needs one of text, thinking, tools, stop, fail");
        }
        let waits = [self.delay_ms, self.pause.map_or(0, |p| p.ms), self.slow.map_or(0, |s| s.every_ms)];
        if waits.into_iter().any(|ms| Duration::from_millis(ms) > MAX_WAIT) {
            return Err("no wait may exceed an hour");
        }
        if self.slow.is_some_and(|slow| slow.chars == 0) {
            return Err("chars of a slow stream must be at least 1");
        }
        Ok(())
    }
}
