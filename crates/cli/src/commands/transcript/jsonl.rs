//! A transcript as JSON lines: one for each message, call and result. Entries of subagents name the call that has started theirs.

use serde::Serialize;

use super::model::{Author, Call, Entry, Transcript, Usage};
use crate::output::escaped_json;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Kind<'a> {
    Message { author: Author, text: &'a str },
    ToolCall { call_id: &'a str, tool: &'a str, input: &'a str, cut_bytes: usize },
    ToolResult { call_id: &'a str, text: &'a str, is_error: bool, cut_bytes: usize, artifact: &'a str },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    attempt: i32,
    /// Calls that have started the subagent, the first one first.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    subagent_of: &'a [&'a str],
    time: &'a str,
    #[serde(flatten)]
    kind: Kind<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a Usage>,
}

pub(super) fn write(transcript: &Transcript) -> serde_json::Result<String> {
    let mut out = String::new();
    for attempt in &transcript.attempts {
        entries(attempt.number, &attempt.entries, &[], &mut out)?;
    }
    Ok(out)
}

fn put(line: &Line<'_>, out: &mut String) -> serde_json::Result<()> {
    out.push_str(&escaped_json(&serde_json::to_string(line)?));
    out.push('\n');
    Ok(())
}

fn entries(attempt: i32, all: &[Entry], subagent_of: &[&str], out: &mut String) -> serde_json::Result<()> {
    for entry in all {
        let call = match entry {
            Entry::Message(message) => {
                let kind = Kind::Message { author: message.author, text: &message.text };
                let (time, usage) = (message.time.as_str(), message.usage.as_ref());
                put(&Line { attempt, subagent_of, time, kind, usage }, out)?;
                continue;
            }
            Entry::Call(call) => call,
        };
        let Call { id, tool, input, time, usage, .. } = call;
        let kind = Kind::ToolCall { call_id: id, tool, input: &input.text, cut_bytes: input.cut };
        put(&Line { attempt, subagent_of, time, kind, usage: usage.as_ref() }, out)?;
        if let Some(subagent) = &call.subagent {
            let below = [subagent_of, &[id.as_str()]].concat();
            entries(attempt, &subagent.entries, &below, out)?;
        }
        if let Some(result) = &call.result {
            let (text, cut_bytes) = (result.text.text.as_str(), result.text.cut);
            let (is_error, artifact) = (result.is_error, result.artifact.as_str());
            let kind = Kind::ToolResult { call_id: id, text, is_error, cut_bytes, artifact };
            put(&Line { attempt, subagent_of, time: "", kind, usage: None }, out)?;
        }
    }
    Ok(())
}
