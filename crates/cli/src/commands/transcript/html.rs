//! A transcript as one HTML page without scripts, links and anything that is loaded. Texts are escaped by the template.

use maud::{DOCTYPE, Markup, html};

use super::markdown::download;
use super::model::{Author, Call, Entry, Message, Text, Transcript, Usage};
use super::safe;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c;background:#fff}\
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0;font:13px/1.45 ui-monospace,monospace}\
.message pre{font:inherit}.thinking pre{color:#666;font-style:italic}\
.message,details{border-left:3px solid #ccc;padding:.2rem .8rem;margin:.6rem 0}\
.user{border-color:#a3d}.assistant{border-color:#27c}.failed{border-color:#c22}.sub{margin-left:1rem}\
small,.note{color:#666}summary{cursor:pointer}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}small,.note,.thinking pre{color:#999}}";

pub(super) fn write(transcript: &Transcript) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (safe::line(&transcript.task)) }
                style { (STYLE) }
            }
            body {
                h1 { (safe::line(&transcript.task)) }
                ul { @for (name, value) in transcript.about() { li { (name) ": " (safe::line(value)) } } }
                @for attempt in &transcript.attempts {
                    h2 { "Attempt " (attempt.number) }
                    @for note in &attempt.notes { p.note { (safe::line(note)) } }
                    (entries(&attempt.entries, &transcript.task))
                }
            }
        }
    };
    page.into_string()
}

fn entries(entries: &[Entry], task: &str) -> Markup {
    html! {
        @for entry in entries {
            @match entry {
                Entry::Message(message) => (self::message(message)),
                Entry::Call(call) => (self::call(call, task)),
            }
        }
    }
}

fn about(time: &str, usage: Option<&Usage>) -> Markup {
    html! {
        small {
            (safe::line(time))
            @if let Some(usage) = usage { " · " (safe::line(&usage.describe())) }
        }
    }
}

fn message(message: &Message) -> Markup {
    let (class, author) = match message.author {
        Author::User => ("user", "User"),
        Author::Assistant => ("assistant", "Assistant"),
        Author::Thinking => ("thinking", "Thinking"),
        Author::Program => ("output", "Output"),
    };
    html! {
        div.message.(class) {
            b { (author) } " " (about(&message.time, message.usage.as_ref()))
            pre { (safe::text(&message.text)) }
        }
    }
}

fn call(call: &Call, task: &str) -> Markup {
    let failed = call.result.as_ref().is_some_and(|result| result.is_error);
    html! {
        details.failed[failed] open[failed || call.subagent.is_some()] {
            summary { b { (safe::line(&call.tool)) } " " (about(&call.time, call.usage.as_ref())) }
            (text(&call.input, task))
            @if let Some(subagent) = &call.subagent {
                div.sub { p { "Subagent " (safe::line(&subagent.kind)) } (entries(&subagent.entries, task)) }
            }
            @match &call.result {
                Some(result) => {
                    p { @if result.is_error { "Failed" } @else { "Result" } }
                    (text(&result.text, task))
                    @if !result.artifact.is_empty() {
                        p.note { "All of it: " (safe::line(&download(task, &result.artifact))) }
                    }
                }
                None => @if call.subagent.is_none() { p.note { "No result." } }
            }
        }
    }
}

fn text(text: &Text, task: &str) -> Markup {
    html! {
        pre { (safe::text(&text.text)) }
        @if let Some(note) = text.note(task) { p.note { (note) } }
    }
}
