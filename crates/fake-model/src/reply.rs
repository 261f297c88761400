//! What the model answers, before it is put on the wire: blocks, the reason for its end, usage.
//! Must not know about HTTP, streams or faults.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::conversation::{Conversation, Running};
use crate::script::{Step, StopReason, Usage};

/// The longest text of one answer, in bytes; `repeat` is cut to it.
const MAX_TEXT: usize = 4 * 1024 * 1024;
/// How much of a tool result an answer may quote, in characters.
const MAX_QUOTE: usize = 10_000;
const QUOTE: &str = "{{tool_result}}";

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
    /// What a step says.
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

    /// What is said where no script says anything: a short account of the prompt, the same for the same prompt.
    pub(crate) fn summary(conversation: &Conversation<'_>, model: &str, input_tokens: u64) -> Self {
        let over = |running: &Running<'_>| !conversation.asked || running.text == conversation.prompt;
        let text = match &conversation.tool_result {
            _ if conversation.running.as_ref().is_some_and(over) => "The script is over.".to_owned(),
            Some(result) if !conversation.asked => format!("The tool answered: {}", account(result)),
            _ => format!("You said: {}", account(conversation.prompt)),
        };
        Self::new(vec![Block::Text(text)], StopReason::EndTurn, model, Usage::default(), input_tokens)
    }

    fn new(blocks: Vec<Block>, stop: StopReason, model: &str, usage: Usage, input_tokens: u64) -> Self {
        let said: usize = blocks.iter().map(Block::len).sum();
        let usage = Tokens {
            input: usage.input_tokens.unwrap_or(input_tokens),
            output: usage.output_tokens.unwrap_or(estimate(said)),
            cache_read: usage.cache_read_input_tokens.unwrap_or(0),
            cache_creation: usage.cache_creation_input_tokens.unwrap_or(0),
        };
        Self { id: format!("msg_{}", Uuid::new_v4().simple()), model: model.to_owned(), blocks, stop, usage }
    }

    /// The message as JSON, as a request without `stream` gets it.
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
            Self::Thinking(text) => json!({"type": "thinking", "thinking": text, "signature": SIGNATURE}),
            Self::Text(text) => json!({"type": "text", "text": text}),
            Self::Tool { id, name, input } => {
                json!({"type": "tool_use", "id": id, "name": name, "input": input})
            }
        }
    }
}

/// Stands where the real API proves that a thought is its own.
pub(crate) const SIGNATURE: &str = "fake";

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

/// The tokens of so many bytes: the same rough count for requests, answers and `count_tokens`.
pub(crate) fn estimate(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(4)
}

fn expand(text: &str, repeat: Option<u32>, conversation: &Conversation<'_>) -> String {
    let quote = || -> String {
        conversation.tool_result.as_deref().unwrap_or_default().trim_end().chars().take(MAX_QUOTE).collect()
    };
    let text = if text.contains(QUOTE) { text.replacen(QUOTE, &quote(), 1) } else { text.to_owned() };
    let most = (MAX_TEXT / text.len().max(1)).max(1);
    text.repeat((repeat.unwrap_or(1).max(1) as usize).min(most))
}

fn account(text: &str) -> String {
    let text = text.trim();
    let first: String = text.lines().next().unwrap_or_default().chars().take(120).collect();
    format!("{first} ({} characters, {} lines)", text.chars().count(), text.lines().count())
}
