//! What a line, an answer or a message does to a conversation. Waits for nothing.

use rota_proto::v1::{Severity, TaskInput, event};
use serde_json::Value;
use tokio_util::bytes::{BufMut, BytesMut};

use super::super::control::Request;
use super::super::lines::{Line, System};
use super::super::permission::Effects;
use super::super::reader::{LONGEST, Piece};
use super::super::{events, send};
use super::{Conversation, KEPT, SIGN_OF_LIFE, TOLD};
use crate::runtimes::bounds;
use tokio::time::Instant;

/// Longest piece of output.
const PIECE: usize = 64 << 10;
/// Bytes told of a line that cannot be read.
const BEGINNING: usize = 200;

impl Conversation {
    pub(in super::super) fn piece(&mut self, piece: Piece) {
        self.record.lines += 1;
        let before = self.queue.len();
        match piece {
            Piece::Text(text) if text.trim().is_empty() => {}
            Piece::Text(mut text) => match serde_json::from_str(&text) {
                Ok(line) => self.line(line),
                Err(error) => {
                    bounds::text(&self.redactor, &mut text, BEGINNING);
                    self.unreadable("malformed_line", &format!("{error}: {text}"));
                }
            },
            Piece::TooLong => {
                self.unreadable("oversized_line", &format!("a line of more than {LONGEST} bytes was skipped"))
            }
            Piece::NotUtf8 => self.unreadable("malformed_line", "a line is not UTF-8"),
        }
        if self.queue.len() == before && self.last_event.elapsed() >= SIGN_OF_LIFE {
            let step = if self.record.step.is_empty() { "working" } else { &self.record.step };
            self.tell([events::step(step)]);
        }
    }

    fn unreadable(&mut self, code: &str, message: &str) {
        self.record.unreadable += 1;
        if self.record.unreadable <= TOLD {
            self.tell([events::notice(Severity::Medium, code, message)]);
        }
    }

    fn line(&mut self, line: Line) {
        let told = match line {
            Line::System(line) => {
                self.idle &= !matches!(line, System::Init(_));
                self.record.system(line)
            }
            Line::Assistant(line) => self.record.assistant(&line),
            Line::User(line) => self.record.user(&line.message),
            Line::Result(line) => {
                self.idle = true;
                self.record.result(*line)
            }
            Line::ControlRequest { request_id, request: Request::CanUseTool(request) } => {
                let effects = self.desk.ask(&request_id, &request);
                return self.effect(effects);
            }
            Line::ControlRequest { request_id, request: Request::Other } => {
                return self.send(&send::unsupported(&request_id));
            }
            Line::ControlCancelRequest { request_id } => {
                let effects = self.desk.withdraw(&request_id);
                return self.effect(effects);
            }
            Line::ControlResponse { response } if response.subtype == "error" => {
                let error = response.error.unwrap_or_default();
                let text = format!("Claude Code refuses the request {}: {error}", response.request_id);
                vec![events::notice(Severity::Low, "control_refused", text)]
            }
            Line::CommandLifecycle { command_uuid, state } => {
                match state.as_str() {
                    "started" => self.idle = false,
                    "completed" | "cancelled" => drop(self.open.remove(&command_uuid)),
                    _ => {}
                }
                vec![]
            }
            Line::ControlResponse { .. } | Line::Other => vec![],
        };
        self.tell(told);
    }

    pub(in super::super) fn input(&mut self, input: &TaskInput) {
        if !input.request_id.is_empty() {
            let effects = self.desk.answer(input);
            self.effect(effects);
        } else if !input.text.is_empty() {
            self.say(&input.text);
        }
    }

    pub(in super::super) fn say(&mut self, text: &str) {
        let uuid = uuid::Uuid::new_v4().to_string();
        self.send(&send::user(text, &uuid));
        self.open.insert(uuid);
    }

    fn effect(&mut self, effects: Effects) {
        for line in &effects.send {
            self.send(line);
        }
        self.tell(effects.events);
    }

    pub(in super::super) fn send(&mut self, line: &Value) {
        if !self.closing {
            self.out.put(line.to_string().as_bytes());
            self.out.put_u8(b'\n');
        }
    }

    pub(in super::super) fn tell(&mut self, told: impl IntoIterator<Item = event::Kind>) {
        for mut event in told {
            self.last_event = Instant::now();
            if self.queue.len() < KEPT {
                // Here already: lines are long, and the queue is to stay small.
                bounds::event(&self.redactor, &mut event);
                self.queue.push_back(event);
            }
        }
    }

    pub(in super::super) fn printed(&mut self, chunk: &mut BytesMut) {
        if !chunk.is_empty() {
            self.stderr.add(chunk);
            let pieces: Vec<_> = chunk.chunks(PIECE).map(events::stderr).collect();
            self.tell(pieces);
            chunk.clear();
        }
    }
}
