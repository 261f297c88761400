//! Entries of a session of Claude Code: its file, and those of its subagents. Only lines with messages count; unknown ones are skipped, since
//! every version adds some. Knows nothing of tasks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::BufRead;

use rota_worker::runtimes::claude::{Block, Content};
use rota_worker::{Prices, Tokens};
use serde::Deserialize;
use serde_json::Value;

use super::model::{Author, Call, Entry, Message, Outcome, Subagent, Text, Usage};

/// Bytes of a line; workers keep none that is longer.
const MAX_LINE_BYTES: usize = 16 << 20;
/// Subagents of subagents at most.
const MAX_DEPTH: usize = 16;

#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    message: Option<Body>,
    #[serde(default)]
    timestamp: String,
    /// Set for texts of the CLI itself.
    #[serde(default, rename = "isMeta")]
    is_meta: bool,
}

#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default)]
    id: String,
    #[serde(default)]
    model: String,
    content: Option<Content>,
    usage: Option<Counts>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Counts {
    input_tokens: u64,
    output_tokens: u64,
    cache_read_input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_creation: CacheCreation,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct CacheCreation {
    ephemeral_1h_input_tokens: u64,
}

/// File next to the transcript of a subagent, with the call that started it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Meta {
    agent_type: String,
    tool_use_id: String,
}

/// Reads entries of one file.
pub(super) struct Reader<'a> {
    pub(super) prices: &'a Prices,
    pub(super) full: bool,
    /// Artifacts with outputs of tools, by the end of their path.
    pub(super) outputs: &'a BTreeMap<String, String>,
}

impl Reader<'_> {
    pub(super) fn read(&self, mut file: impl BufRead) -> std::io::Result<Vec<Entry>> {
        let (mut entries, mut calls, mut counted) = (Vec::new(), HashMap::new(), HashSet::new());
        let mut line = Vec::new();
        loop {
            line.clear();
            let limited = &mut std::io::Read::take(&mut file, MAX_LINE_BYTES as u64 + 1);
            if limited.read_until(b'\n', &mut line)? == 0 {
                return Ok(entries);
            }
            if let Ok(line) = serde_json::from_slice::<Line>(&line) {
                self.line(line, &mut entries, &mut calls, &mut counted);
            }
        }
    }

    fn line(
        &self,
        line: Line,
        entries: &mut Vec<Entry>,
        calls: &mut HashMap<String, usize>,
        counted: &mut HashSet<String>,
    ) {
        let (kind, time) = (line.kind.as_str(), line.timestamp);
        let Some(body) = line.message.filter(|_| matches!(kind, "user" | "assistant") && !line.is_meta)
        else {
            return;
        };
        let author = if kind == "user" { Author::User } else { Author::Assistant };
        // Every block of an answer repeats its usage.
        let mut usage = body
            .usage
            .filter(|_| counted.insert(body.id.clone()))
            .map(|counts| self.usage(&body.model, counts));
        let blocks = match body.content {
            Some(Content::Text(text)) => vec![Block::Text { text }],
            Some(Content::Blocks(blocks)) => blocks,
            _ => vec![],
        };
        for block in blocks {
            let message =
                |author, text, usage| Entry::Message(Message { author, text, time: time.clone(), usage });
            match block {
                Block::Text { text } if text.is_empty() => {}
                Block::Text { text } => entries.push(message(author, text, usage.take())),
                Block::Thinking { thinking } if thinking.is_empty() => {}
                Block::Thinking { thinking } => {
                    entries.push(message(Author::Thinking, thinking, usage.take()))
                }
                Block::ToolUse { id, name, input } => {
                    calls.insert(id.clone(), entries.len());
                    let input = Text::new(&readable(&input), self.full);
                    let (time, usage) = (time.clone(), usage.take());
                    entries.push(Entry::Call(Call { id, tool: name, input, time, usage, ..Call::default() }));
                }
                Block::ToolResult { tool_use_id, content, is_error } => {
                    let text = content.as_ref().map(Content::text).unwrap_or_default();
                    let outcome = Outcome {
                        artifact: self.artifact(&text),
                        text: Text::new(&text, self.full),
                        is_error: is_error.unwrap_or(false),
                    };
                    if let Some(Entry::Call(call)) =
                        calls.get(&tool_use_id).and_then(|at| entries.get_mut(*at))
                    {
                        call.result = Some(outcome);
                    }
                }
                Block::Other => entries.push(message(author, "[not text]".to_owned(), usage.take())),
            }
        }
    }

    fn usage(&self, model: &str, counts: Counts) -> Usage {
        let hour = counts.cache_creation.ephemeral_1h_input_tokens;
        let tokens = Tokens {
            input: counts.input_tokens as f64,
            output: counts.output_tokens as f64,
            cache_read: counts.cache_read_input_tokens as f64,
            cache_write_5m: counts.cache_creation_input_tokens.saturating_sub(hour) as f64,
            cache_write_1h: hour as f64,
        };
        Usage {
            model: model.to_owned(),
            input_tokens: counts.input_tokens,
            output_tokens: counts.output_tokens,
            cache_read_tokens: counts.cache_read_input_tokens,
            cache_write_tokens: counts.cache_creation_input_tokens,
            cost_usd: self.prices.of(model).map(|_| self.prices.cost_usd(model, &tokens)),
        }
    }

    /// Returns the artifact with the output that the CLI has left out of the conversation.
    fn artifact(&self, text: &str) -> String {
        let Some((_, path)) = text.split_once("Full output saved to: ") else { return String::new() };
        let path = path.lines().next().unwrap_or_default().trim();
        let found = self.outputs.iter().find(|(end, _)| path.ends_with(end.as_str()));
        found.map(|(_, name)| name.clone()).unwrap_or_default()
    }
}

/// Puts subagents below the calls that have started them. Those of unknown calls come last.
pub(super) fn attach(entries: &mut Vec<Entry>, mut subagents: Vec<(Meta, Vec<Entry>)>) {
    for _ in 0..MAX_DEPTH {
        let before = subagents.len();
        subagents.retain_mut(|(meta, own)| {
            let Some(call) = find(entries, &meta.tool_use_id) else { return true };
            let (kind, entries) = (std::mem::take(&mut meta.agent_type), std::mem::take(own));
            call.subagent = Some(Subagent { kind, entries });
            false
        });
        if subagents.is_empty() || subagents.len() == before {
            break;
        }
    }
    entries.extend(subagents.into_iter().map(|(meta, entries)| {
        let subagent = Some(Subagent { kind: meta.agent_type, entries });
        Entry::Call(Call { id: meta.tool_use_id, tool: "subagent".to_owned(), subagent, ..Call::default() })
    }));
}

fn find<'a>(entries: &'a mut [Entry], id: &str) -> Option<&'a mut Call> {
    for entry in entries {
        let Entry::Call(call) = entry else { continue };
        if call.id == id && call.subagent.is_none() {
            return Some(call);
        }
        if let Some(found) = call.subagent.as_mut().and_then(|subagent| find(&mut subagent.entries, id)) {
            return Some(found);
        }
    }
    None
}

/// Formats the input of a tool: a single text as it is, others as JSON.
pub(super) fn readable(input: &Value) -> String {
    match input {
        Value::Object(fields) if fields.len() == 1 => match fields.values().next() {
            Some(Value::String(text)) => text.clone(),
            _ => pretty(input),
        },
        other => pretty(other),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
