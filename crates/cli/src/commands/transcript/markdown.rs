//! A transcript as Markdown. Subagents are nested lists of quotations, one level of `>` for each.

use super::model::{Author, Call, Entry, Message, Text, Transcript};
use super::safe;

pub(super) fn write(transcript: &Transcript) -> String {
    let mut out = format!("# {}\n\n", safe::plain(&transcript.task));
    for (name, value) in transcript.about() {
        out.push_str(&format!("- {name}: {}\n", safe::plain(value)));
    }
    for attempt in &transcript.attempts {
        out.push_str(&format!("\n## Attempt {}\n", attempt.number));
        for note in &attempt.notes {
            out.push_str(&format!("\n*{}*\n", safe::plain(note)));
        }
        out.push('\n');
        out.push_str(&entries(&attempt.entries, &transcript.task));
    }
    out
}

fn entries(entries: &[Entry], task: &str) -> String {
    let one = |entry: &Entry| match entry {
        Entry::Message(message) => self::message(message),
        Entry::Call(call) => self::call(call, task),
    };
    entries.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn head(what: &str, time: &str, usage: Option<&super::model::Usage>) -> String {
    let rest = [safe::line(time), usage.map(|usage| usage.describe()).unwrap_or_default()];
    let rest = rest.iter().filter(|part| !part.is_empty()).map(|part| format!(" · {}", safe::plain(part)));
    format!("**{what}**{}\n\n", rest.collect::<String>())
}

fn message(message: &Message) -> String {
    let author = match message.author {
        Author::User => "User",
        Author::Assistant => "Assistant",
        Author::Thinking => "Thinking",
        Author::Program => "Output",
    };
    let head = head(author, &message.time, message.usage.as_ref());
    format!("{head}{}\n", safe::quoted(&message.text))
}

fn call(call: &Call, task: &str) -> String {
    let mut out = head(&format!("Tool {}", safe::plain(&call.tool)), &call.time, call.usage.as_ref());
    if !call.input.text.is_empty() {
        out.push_str(&text(&call.input, task));
    }
    if let Some(subagent) = &call.subagent {
        out.push_str(&format!("\nSubagent {}:\n\n", safe::plain(&subagent.kind)));
        for line in entries(&subagent.entries, task).lines() {
            out.push_str(format!("> {line}").trim_end());
            out.push('\n');
        }
    }
    match &call.result {
        Some(result) => {
            out.push_str(if result.is_error { "\nFailed:\n\n" } else { "\nResult:\n\n" });
            out.push_str(&text(&result.text, task));
            if !result.artifact.is_empty() {
                out.push_str(&format!("\n*All of it: {}*\n", safe::plain(&download(task, &result.artifact))));
            }
        }
        None if call.subagent.is_none() => out.push_str("\n*No result.*\n"),
        None => {}
    }
    out
}

/// Returns the command that downloads an artifact, whose name the agent may have chosen, for a shell.
pub(super) fn download(task: &str, artifact: &str) -> String {
    let is_word = |next: char| next.is_ascii_alphanumeric() || "/._-".contains(next);
    match artifact.chars().all(is_word) {
        true => format!("rota download {task} {artifact}"),
        false => format!("rota download {task} '{}'", artifact.replace('\'', r"'\''")),
    }
}

fn text(text: &Text, task: &str) -> String {
    let note = text.note(task).map(|note| format!("\n*{}*\n", safe::plain(&note))).unwrap_or_default();
    format!("{}\n{note}", safe::fenced(&text.text))
}
