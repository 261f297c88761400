//! The model's answer before it is encoded: content blocks, stop reason, usage. Must not know about HTTP, streams
//! or faults.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::conversation::{ActiveScript, Conversation};
use crate::script::{Step, StopReason, Usage};

/// Maximum size of a text; limits `repeat`.
const MAX_TEXT_BYTES: usize = 4 * 1024 * 1024;
/// Maximum number of characters of a quoted tool result.
const MAX_QUOTE_CHARS: usize = 10_000;
const TOOL_RESULT_PLACEHOLDER: &str = "{{tool_result}}";

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) blocks: Vec<Block>,
    pub(crate) stop: StopReason,
    pub(crate) usage: Tokens,
}

#[derive(Debug)]
pub(crate) enum Block {
    Thinking(String),
    Text(String),
    Tool { id: String, name: String, input: Map<String, Value> },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_creation: u64,
}

impl Reply {
    /// Builds the answer of a step.
    pub(crate) fn of_step(
        step: &Step,
        conversation: &Conversation<'_>,
        model: &str,
        input_tokens: u64,
    ) -> Self {
        if step.is_silent() {
            return Self::summary(conversation, model, input_tokens);
        }
        let mut blocks = Vec::new();
        blocks.extend(step.thinking.clone().map(Block::Thinking));
        blocks.extend(step.text.as_deref().map(|text| Block::Text(expand(text, step.repeat, conversation))));
        blocks.extend(step.tools.iter().map(|tool| Block::Tool {
            id: tool.id.clone().unwrap_or_else(|| format!("toolu_{}", Uuid::new_v4().simple())),
            name: tool.name.clone(),
            input: tool.input.clone(),
        }));
        let stop = step.stop.unwrap_or(if step.tools.is_empty() {
            StopReason::EndTurn
        } else {
            StopReason::ToolUse
        });
        Self::new(blocks, stop, model, step.usage, input_tokens)
    }

    /// Builds the answer without a script: a summary of the prompt, the same for the same prompt.
    pub(crate) fn summary(conversation: &Conversation<'_>, model: &str, input_tokens: u64) -> Self {
        let over = |running: &ActiveScript<'_>| !conversation.asked || running.text == conversation.prompt;
        let text = match &conversation.tool_result {
            _ if conversation.running.as_ref().is_some_and(over) => "The script is over.".to_owned(),
            Some(result) if !conversation.asked => format!("Tool result: {}", summarize(result)),
            _ => format!("Prompt: {}", summarize(conversation.prompt)),
        };
        Self::new(vec![Block::Text(text)], StopReason::EndTurn, model, Usage::default(), input_tokens)
    }

    fn new(blocks: Vec<Block>, stop: StopReason, model: &str, usage: Usage, input_tokens: u64) -> Self {
        let size: usize = blocks.iter().map(Block::len).sum();
        let usage = Tokens {
            input: usage.input_tokens.unwrap_or(input_tokens),
            output: usage.output_tokens.unwrap_or(estimate(size)),
            cache_read: usage.cache_read_input_tokens.unwrap_or(0),
            cache_creation: usage.cache_creation_input_tokens.unwrap_or(0),
        };
        Self { id: format!("msg_{}", Uuid::new_v4().simple()), model: model.to_owned(), blocks, stop, usage }
    }

    /// Encodes the message for a request without `stream`.
    pub(crate) fn to_json(&self) -> Value {
        let blocks: Vec<Value> = self.blocks.iter().map(Block::to_json).collect();
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": blocks,
            "stop_reason": self.stop, "stop_sequence": null, "usage": self.usage.to_json(),
        })
    }
}

impl Block {
    fn len(&self) -> usize {
        match self {
            Self::Thinking(text) | Self::Text(text) => text.len(),
            Self::Tool { name, input, .. } => name.len() + json!(input).to_string().len(),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Thinking(text) => {
                json!({"type": "thinking", "thinking": text, "signature": THINKING_SIGNATURE})
            }
            Self::Text(text) => json!({"type": "text", "text": text}),
            Self::Tool { id, name, input } => {
                json!({"type": "tool_use", "id": id, "name": name, "input": input})
            }
        }
    }
}

/// Placeholder for the signature that the real API adds to thinking blocks.
pub(crate) const THINKING_SIGNATURE: &str = "fake";

impl Tokens {
    pub(crate) fn to_json(self) -> Value {
        json!({
            "input_tokens": self.input, "output_tokens": self.output,
            "cache_read_input_tokens": self.cache_read, "cache_creation_input_tokens": self.cache_creation,
        })
    }

    pub(crate) fn output(self) -> u64 {
        self.output
    }
}

/// Estimates the tokens of a text by its size, for requests, answers and `count_tokens` alike.
pub(crate) fn estimate(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(4)
}

fn expand(text: &str, repeat: Option<u32>, conversation: &Conversation<'_>) -> String {
    let quote = || -> String {
        conversation
            .tool_result
            .as_deref()
            .unwrap_or_default()
            .trim_end()
            .chars()
            .take(MAX_QUOTE_CHARS)
            .collect()
    };
    let text = if text.contains(TOOL_RESULT_PLACEHOLDER) {
        text.replacen(TOOL_RESULT_PLACEHOLDER, &quote(), 1)
    } else {
        text.to_owned()
    };
    let most = (MAX_TEXT_BYTES / text.len().max(1)).max(1);
    text.repeat((repeat.unwrap_or(1).max(1) as usize).min(most))
}

fn summarize(text: &str) -> String {
    let text = text.trim();
    let first: String = text.lines().next().unwrap_or_default().chars().take(120).collect();
    format!("{first} ({} characters, {} lines)", text.chars().count(), text.lines().count())
}
