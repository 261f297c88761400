//! Handlers: the effect of a line, an answer or a message on a conversation. None of them waits.

use rota_proto::v1::{Severity, TaskInput, event};
use serde_json::Value;
use tokio_util::bytes::{BufMut, BytesMut};

use super::super::control::Request;
use super::super::lines::{Line, System};
use super::super::permission::Effects;
use super::super::reader::{MAX_LINE_BYTES, RawLine};
use super::super::{events, send, surrogates};
use super::live_usage;
use super::{ACTIVITY_INTERVAL, Conversation, MAX_QUEUED_EVENTS, MAX_UNREADABLE_NOTICES};
use crate::sanitize;
use tokio::time::Instant;

/// Maximum size of an output event.
const MAX_CHUNK_BYTES: usize = 64 << 10;
/// Characters of an unreadable line in which the id of a request is searched for.
const MAX_REQUEST_PREFIX: usize = 4096;
/// Bytes of an unreadable line that its notice quotes.
const MAX_EXCERPT_BYTES: usize = 200;

/// Parses a line. The CLI cuts texts between the two halves of a character outside of the basic plane, which leaves an
/// escape that JSON parsers refuse; it is replaced.
fn parse(text: &str) -> serde_json::Result<Line> {
    serde_json::from_str(text).or_else(|error| match surrogates::replace_lone(text) {
        Some(replaced) => serde_json::from_str(&replaced),
        None => Err(error),
    })
}

/// Returns the id of a control request in a line that cannot be parsed: without an answer, the CLI would wait for one.
fn unreadable_request(text: &str) -> Option<String> {
    let compact: String =
        text.chars().take(MAX_REQUEST_PREFIX).filter(|char| !char.is_whitespace()).collect();
    let is_request = compact.contains(r#""type":"control_request""#);
    let (_, rest) = compact.split_once(r#""request_id":""#)?;
    let (id, _) = rest.split_once('"')?;
    is_request.then(|| id.to_owned())
}

impl Conversation {
    pub(in super::super) fn handle_raw_line(&mut self, piece: RawLine) {
        self.record.lines += 1;
        let before = self.queue.len();
        match piece {
            RawLine::Text(text) if text.trim().is_empty() => {}
            RawLine::Text(mut text) => match parse(&text) {
                // Known from the call without a result, whose time limit this must not extend.
                Ok(Line::ToolProgress(_)) => return,
                // A CLI that hangs may still answer.
                Ok(Line::ControlResponse { response }) if live_usage::is_usage(&response) => {
                    return self.usage_response(response);
                }
                Ok(line) => self.handle_line(line),
                Err(error) => {
                    if let Some(id) = unreadable_request(&text) {
                        self.send(&send::unsupported(&id));
                    }
                    sanitize::text(&self.redactor, &mut text, MAX_EXCERPT_BYTES);
                    self.unreadable("malformed_line", &format!("{error}: {text}"));
                }
            },
            RawLine::TooLong => self.unreadable(
                "oversized_line",
                &format!("a line of more than {MAX_LINE_BYTES} bytes was skipped"),
            ),
            RawLine::NotUtf8 => self.unreadable("malformed_line", "a line is not UTF-8"),
        }
        if self.queue.len() == before && self.last_event.elapsed() >= ACTIVITY_INTERVAL {
            let progress = self.record.progress();
            self.emit([progress]);
        }
    }

    fn unreadable(&mut self, code: &str, message: &str) {
        self.record.unreadable += 1;
        if self.record.unreadable <= MAX_UNREADABLE_NOTICES {
            self.emit([events::notice(Severity::Medium, code, message)]);
        }
    }

    fn handle_line(&mut self, line: Line) {
        let events = match line {
            Line::System(line) => {
                self.idle &= !matches!(line, System::Init(_));
                self.record.system(line)
            }
            Line::Assistant(line) => {
                let mut events = self.record.assistant(&line);
                self.number(&mut events);
                events
            }
            Line::User(line) => self.record.user(&line.message),
            Line::Result(line) => {
                self.idle = true;
                let events = self.record.result(*line);
                self.emit(events);
                return self.report_unpriced();
            }
            Line::ControlRequest { request_id, request: Request::CanUseTool(request) } => {
                let effects = self.permissions.ask(&request_id, &request);
                return self.apply(effects);
            }
            Line::ControlRequest { request_id, request: Request::HookCallback(hook) } => {
                self.send(&send::block(&request_id));
                // Subagents and skills are mostly the agent's own work.
                let settings = hook.input.source != "skills";
                let first = settings && !std::mem::replace(&mut self.settings_changed, true);
                let text =
                    "settings of the repository changed while the agent runs; it keeps those of its start";
                first.then(|| events::notice(Severity::Medium, "project_setup", text)).into_iter().collect()
            }
            Line::ControlRequest { request_id, request: Request::Other } => {
                return self.send(&send::unsupported(&request_id));
            }
            Line::ControlCancelRequest { request_id } => {
                let effects = self.permissions.withdraw(&request_id);
                return self.apply(effects);
            }
            Line::ControlResponse { response } if response.subtype == "error" => {
                let error = response.error.unwrap_or_default();
                let text = format!("Claude Code rejected the request {}: {error}", response.request_id);
                vec![events::notice(Severity::Low, "control_refused", text)]
            }
            Line::StreamEvent { event, parent_tool_use_id } => {
                self.streamed(event, parent_tool_use_id.as_deref());
                vec![]
            }
            Line::CommandLifecycle { command_uuid, state } => {
                match state.as_str() {
                    "started" => self.idle = false,
                    "completed" | "cancelled" => drop(self.unacknowledged.remove(&command_uuid)),
                    _ => {}
                }
                vec![]
            }
            Line::RateLimitEvent { rate_limit_info } => self.record.rate_limit(&rate_limit_info),
            Line::ControlResponse { .. } | Line::ToolProgress(_) | Line::Other => vec![],
        };
        self.emit(events);
    }

    pub(in super::super) fn input(&mut self, input: &TaskInput) {
        if !input.request_id.is_empty() {
            let effects = self.permissions.answer(input);
            self.apply(effects);
        } else if !input.text.is_empty() {
            self.send_message(&input.text);
        }
    }

    pub(in super::super) fn send_message(&mut self, text: &str) {
        let uuid = uuid::Uuid::new_v4().to_string();
        self.send(&send::user(text, &uuid));
        self.unacknowledged.insert(uuid);
    }

    pub(super) fn apply(&mut self, effects: Effects) {
        for line in &effects.send {
            self.send(line);
        }
        self.emit(effects.events);
    }

    pub(in super::super) fn send(&mut self, line: &Value) {
        if !self.closing {
            self.out.put(line.to_string().as_bytes());
            self.out.put_u8(b'\n');
        }
    }

    pub(in super::super) fn emit(&mut self, events: impl IntoIterator<Item = event::Kind>) {
        for mut event in events {
            self.last_event = Instant::now();
            if self.queue.len() < MAX_QUEUED_EVENTS {
                // Sanitized on entry: lines are long, and the queue should stay small.
                sanitize::event(&self.redactor, &mut event);
                let full = self.log.take(&mut event);
                self.queue.push_back(event);
                self.queue.extend(full);
            }
        }
    }

    pub(in super::super) fn forward_stderr(&mut self, chunk: &mut BytesMut) {
        if !chunk.is_empty() {
            self.stderr.add(chunk);
            let pieces: Vec<_> = chunk.chunks(MAX_CHUNK_BYTES).map(events::stderr).collect();
            self.emit(pieces);
            chunk.clear();
        }
    }
}
