//! Entries of a task's log: what a runtime without a transcript has left, and what came after a checkpoint. Knows no files.

use std::collections::BTreeMap;

use rota_proto::v1::{Event, MessageRole, ToolCall, event};
use serde_json::Value;

use super::model::{Author, Call, Entry, Message, Outcome, Text, known};
use super::session::readable;
use crate::output::time;

/// Returns the events of an attempt that are not in its transcript yet: those after the last one that is.
pub(super) fn after<'a>(events: &'a [Event], entries: &[Entry]) -> &'a [Event] {
    let (calls, results, texts) = known(entries);
    let is_known = |event: &Event| match &event.kind {
        Some(event::Kind::ToolCall(call)) => calls.contains(call.call_id.as_str()),
        Some(event::Kind::ToolResult(result)) => results.contains(result.call_id.as_str()),
        Some(event::Kind::Message(message)) => texts.contains(message.text.as_str()),
        _ => false,
    };
    let from = events.iter().rposition(is_known).map_or(0, |last| last + 1);
    events.get(from..).unwrap_or_default()
}

/// Adds events to entries. Returns whether there were any of interest.
pub(super) fn add(events: &[Event], entries: &mut Vec<Entry>, full: bool) -> bool {
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if let Entry::Call(call) = entry {
            calls.insert(call.id.clone(), at);
        }
    }
    let (mut added, mut output) = (false, Output::default());
    // An agent with a transcript has its output there.
    let is_whole = entries.is_empty();
    for event in events {
        let time = time(event.time.as_ref());
        if let Some(event::Kind::Output(chunk)) = &event.kind {
            if is_whole {
                output.add(&chunk.data, time);
            }
            continue;
        }
        if matches!(
            event.kind,
            Some(event::Kind::Message(_) | event::Kind::InputReceived(_) | event::Kind::ToolCall(_))
        ) {
            added |= output.end(entries, full);
        }
        added |= match &event.kind {
            Some(event::Kind::Message(message)) => {
                let author = match message.role() {
                    MessageRole::Thinking => Author::Thinking,
                    MessageRole::User => Author::User,
                    _ => Author::Assistant,
                };
                entries.push(Entry::Message(Message {
                    author,
                    text: message.text.clone(),
                    time,
                    usage: None,
                }));
                true
            }
            Some(event::Kind::InputReceived(received)) => {
                let text = received.input.as_ref().map(|input| input.text.clone()).unwrap_or_default();
                let shown = !text.is_empty();
                if shown {
                    entries.push(Entry::Message(Message { author: Author::User, text, time, usage: None }));
                }
                shown
            }
            Some(event::Kind::ToolCall(call)) => {
                calls.insert(call.call_id.clone(), entries.len());
                entries.push(Entry::Call(of_call(call, time, full)));
                true
            }
            Some(event::Kind::ToolResult(result)) => {
                let at = calls.get(&result.call_id).and_then(|at| entries.get_mut(*at));
                if let Some(Entry::Call(call)) = at {
                    let text = Text::new(&result.output, full);
                    call.result = Some(Outcome { text, is_error: result.is_error, artifact: String::new() });
                }
                true
            }
            _ => false,
        };
    }
    output.end(entries, full) || added
}

/// What a program has written between other entries, which the log has in pieces.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    time: String,
}

impl Output {
    fn add(&mut self, data: &[u8], time: String) {
        if self.bytes.is_empty() {
            self.time = time;
        }
        self.bytes.extend_from_slice(data);
    }

    /// Makes an entry of it, if there is any. Returns whether there was.
    fn end(&mut self, entries: &mut Vec<Entry>, full: bool) -> bool {
        let Self { bytes, time } = std::mem::take(self);
        if bytes.is_empty() {
            return false;
        }
        let Text { mut text, cut } = Text::new(&String::from_utf8_lossy(&bytes), full);
        if cut > 0 {
            text.push_str(&format!("\n… {cut} more bytes: --full"));
        }
        entries.push(Entry::Message(Message { author: Author::Program, text, time, usage: None }));
        true
    }
}

fn of_call(call: &ToolCall, time: String, full: bool) -> Call {
    let input = serde_json::from_str::<Value>(&call.input_json);
    let input = input.map_or_else(|_| call.input_json.clone(), |input| readable(&input));
    Call {
        id: call.call_id.clone(),
        tool: call.tool.clone(),
        input: Text::new(&input, full),
        time,
        ..Call::default()
    }
}
