//! A task's log as text. Output of the program is printed unchanged, every other event as a line with a mark in
//! front.

use anstyle::{AnsiColor, Style};
use rota_proto::v1::{
    AgentMessage, Event, MessageDelta, MessageRole, Notice, PermissionScope, Severity, StateChange,
    TaskState, ToolResult, event,
};

use super::question::question;
use super::streamed::{Added, Streamed};
use super::text::{clean, first_line, money, plain, plain_lines, state, time};

/// Formatter of events. Tracks whether the last line is still open.
#[derive(Debug)]
pub struct Printer {
    colored: bool,
    times: bool,
    /// Whether the destination is a terminal, for which output is sanitized.
    terminal: bool,
    open_line: bool,
    /// Whether the last part has ended with a carriage return, which a line break may follow.
    held_return: bool,
    /// Last message or output, to detect that the result has been shown.
    last: String,
    streamed: Streamed,
}

impl Printer {
    pub fn new(colored: bool, times: bool, terminal: bool) -> Self {
        let (last, streamed) = (String::new(), Streamed::default());
        Self { colored, times, terminal, open_line: false, held_return: false, last, streamed }
    }

    /// Whether a text was shown last.
    pub fn has_shown(&self, text: &str) -> bool {
        self.last.trim_end().ends_with(text.trim_end())
    }

    /// Formats an event, line breaks included.
    pub fn print(&mut self, event: &Event) -> Vec<u8> {
        let Some(kind) = &event.kind else { return Vec::new() };
        if self.streamed.defers(event) {
            return Vec::new();
        }
        if let event::Kind::Message(message) = kind
            && let Some(rest) = self.streamed.complete(event.attempt, message)
        {
            let text = self.clean_part(rest);
            let mut bytes = self.style(message_style(message.role()), &text).into_bytes();
            self.open_line = true;
            if message.role() == MessageRole::Assistant {
                self.last.clone_from(&message.text);
            }
            bytes.extend(self.finish());
            return bytes;
        }
        if let event::Kind::Output(output) = kind {
            let mut bytes = if self.streamed.is_open() { self.finish() } else { Vec::new() };
            bytes.extend(self.output(&output.data, output.dropped_bytes));
            return bytes;
        }
        let Some(text) = self.line(kind) else { return Vec::new() };
        let mut bytes = self.finish();
        if self.times {
            bytes.extend(self.style(Style::new().dimmed(), &time(event.time.as_ref())).into_bytes());
            bytes.push(b' ');
        }
        bytes.extend(text.into_bytes());
        bytes.push(b'\n');
        bytes
    }

    /// Formats a part of a message, which the whole one completes.
    pub fn print_delta(&mut self, delta: &MessageDelta) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.streamed.add(delta) {
            Added::Nothing => return bytes,
            Added::First => {
                bytes.extend(self.finish());
                self.streamed.begin(delta);
            }
            Added::Next => {}
        }
        self.open_line = true;
        let text = self.clean_part(&delta.text);
        bytes.extend(self.style(message_style(delta.role()), &text).into_bytes());
        bytes
    }

    /// Ends a line that is still open, and prints what waited for its end.
    pub fn finish(&mut self) -> Vec<u8> {
        self.held_return = false;
        let mut bytes = Vec::new();
        if std::mem::take(&mut self.open_line) {
            bytes.push(b'\n');
        }
        for event in self.streamed.interrupt() {
            bytes.extend(self.print(&event));
        }
        bytes
    }

    fn output(&mut self, data: &[u8], dropped: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        if dropped > 0 {
            bytes.extend(self.finish());
            let note = format!("[{dropped} bytes dropped]\n");
            bytes.extend(self.style(Style::new().dimmed(), &note).into_bytes());
        }
        let text = String::from_utf8_lossy(data);
        if self.terminal {
            bytes.extend(self.clean_part(&text).into_bytes());
        } else {
            bytes.extend(data);
        }
        if !data.is_empty() {
            self.open_line = !data.ends_with(b"\n");
        }
        self.last.push_str(&text);
        // A result holds at most the tail of the output.
        if self.last.len() > 1024 * 1024 {
            let cut = self.last.ceil_char_boundary(self.last.len() - 512 * 1024);
            self.last.drain(..cut);
        }
        bytes
    }

    /// Sanitizes the next part of a text. A carriage return at its end waits for what follows, which may be a line break.
    fn clean_part(&mut self, part: &str) -> String {
        let held = if std::mem::take(&mut self.held_return) { "\r" } else { "" };
        let text = format!("{held}{part}");
        self.held_return = text.ends_with('\r');
        clean(text.strip_suffix('\r').unwrap_or(&text))
    }

    fn line(&mut self, kind: &event::Kind) -> Option<String> {
        Some(match kind {
            event::Kind::State(change) => self.state(change)?,
            event::Kind::Progress(progress) => {
                let text = format!("▸ {:3.0}% {}", progress.fraction * 100.0, plain(&progress.step));
                self.style(AnsiColor::Cyan.on_default(), text.trim_end())
            }
            event::Kind::WorkEnded(ended) if ended.slot_released => {
                "  the storage is away: the worker has what the attempt left, and its slot is free".to_owned()
            }
            event::Kind::WorkEnded(_) => "  storing what the attempt has left".to_owned(),
            event::Kind::Message(message) => self.message(message),
            event::Kind::ToolCall(call) => {
                let text = format!("⚙ {} {}", plain(&call.tool), first_line(&call.input_json, 160));
                self.style(AnsiColor::Blue.on_default(), &text)
            }
            event::Kind::ToolResult(result) => self.tool_result(result),
            event::Kind::Usage(usage) => {
                let text = format!(
                    "  {} tokens in, {} out {}",
                    usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
                    usage.output_tokens,
                    money(usage.cost_micro_usd)
                );
                self.style(Style::new().dimmed(), text.trim_end())
            }
            event::Kind::InputRequest(request) => {
                self.style(AnsiColor::Magenta.on_default().bold(), &question(request))
            }
            event::Kind::InputReceived(given) => {
                let input = given.input.clone().unwrap_or_default();
                let decision = input.decision().as_str_name().trim_start_matches("DECISION_").to_lowercase();
                let decision = if decision == "unspecified" { String::new() } else { format!("{decision} ") };
                let mut text = format!("› {decision}{}", inset(&input.text));
                match input.scope() {
                    PermissionScope::Session => text.push_str("for this session: "),
                    PermissionScope::Agent => text.push_str("for this agent: "),
                    _ => {}
                }
                text.push_str(&plain(&input.rules.join(", ")));
                if !input.updated_input_json.is_empty() {
                    text.push_str(&format!("with another input: {}", plain(&input.updated_input_json)));
                }
                self.style(AnsiColor::Magenta.on_default(), &text)
            }
            event::Kind::Notice(notice) => self.notice(notice),
            event::Kind::Change(change) => {
                let text = format!("● changed {}: {}", change.fields.join(", "), inset(&change.message));
                self.style(Style::new().dimmed(), text.trim_end_matches(": "))
            }
            event::Kind::Output(_) => return None,
        })
    }

    fn state(&self, change: &StateChange) -> Option<String> {
        let mut text = format!("● {}", state(change.to()));
        if !change.worker.is_empty() {
            text.push_str(&format!(" on {}", plain(&change.worker)));
        }
        if !change.reason.is_empty() {
            text.push_str(&format!(" ({})", plain(&change.reason)));
        }
        if !change.message.is_empty() {
            text.push_str(&format!(": {}", inset(&change.message)));
        }
        if let Some(failure) = &change.failure {
            if !change.message.contains(&failure.message) {
                text.push_str(&format!(": {}", inset(&failure.message)));
            }
            if !failure.hint.is_empty() {
                text.push_str(&format!(" (hint: {})", inset(&failure.hint)));
            }
        }
        let color = match change.to() {
            TaskState::Succeeded => AnsiColor::Green.on_default().bold(),
            TaskState::Failed => AnsiColor::Red.on_default().bold(),
            _ => Style::new().dimmed(),
        };
        Some(self.style(color, &text))
    }

    fn message(&mut self, message: &AgentMessage) -> String {
        let text = clean(&message.text);
        match message.role() {
            MessageRole::Thinking => self.style(message_style(MessageRole::Thinking), &text),
            MessageRole::User => {
                self.style(AnsiColor::Magenta.on_default(), &format!("› {}", inset(&message.text)))
            }
            _ => {
                self.last.clone_from(&message.text);
                text
            }
        }
    }

    fn tool_result(&self, result: &ToolResult) -> String {
        let mut lines = result.output.trim_end().lines();
        let shown: Vec<_> =
            lines.by_ref().take(5).map(|line| format!("  ↳ {}", first_line(line, 160))).collect();
        let more = lines.count();
        let mut text = shown.join("\n");
        if more > 0 {
            text.push_str(&format!("\n    … {more} more lines"));
        }
        let style = if result.is_error { AnsiColor::Red.on_default() } else { Style::new().dimmed() };
        self.style(style, &text)
    }

    fn notice(&self, notice: &Notice) -> String {
        let style = match notice.severity() {
            Severity::High | Severity::Critical => AnsiColor::Red.on_default(),
            Severity::Medium => AnsiColor::Yellow.on_default(),
            _ => Style::new().dimmed(),
        };
        self.style(style, &format!("! {}: {}", plain(&notice.code), inset(&notice.message)))
    }

    fn style(&self, style: Style, text: &str) -> String {
        if self.colored { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// Sanitizes a text that follows a mark: its further lines are indented, so that none passes for an event of its own.
fn inset(text: &str) -> String {
    plain_lines(text).replace('\n', "\n    ")
}

fn message_style(role: MessageRole) -> Style {
    match role {
        MessageRole::Thinking => Style::new().dimmed().italic(),
        _ => Style::new(),
    }
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{Change, Failure, InputReceived, Output, Progress, TaskInput, ToolCall};

    use super::*;

    fn event(kind: event::Kind) -> Event {
        Event { kind: Some(kind), ..Default::default() }
    }

    fn output(data: &'static [u8]) -> Event {
        event(event::Kind::Output(Output { data: data.into(), ..Default::default() }))
    }

    #[test]
    fn open_lines_end_before_events() {
        let mut printer = Printer::new(false, false, false);
        let mut bytes = printer.print(&output(b"par"));
        bytes.extend(printer.print(&output(b"tial")));
        bytes.extend(
            printer.print(&event(event::Kind::Progress(Progress { fraction: 0.5, step: "x".into() }))),
        );
        bytes.extend(printer.print(&output(b"done\n")));
        bytes.extend(printer.finish());
        assert_eq!(String::from_utf8(bytes).unwrap(), "partial\n▸  50% x\ndone\n");
        assert!(printer.has_shown("done"));
    }

    #[test]
    fn only_terminal_output_is_sanitized() {
        assert_eq!(Printer::new(false, false, false).print(&output(b"\xff\x1b[2J\n")), b"\xff\x1b[2J\n");
        assert_eq!(
            Printer::new(false, false, true).print(&output(b"\xff\x1b[2J\n")),
            "\u{fffd}\n".as_bytes()
        );
    }

    #[test]
    fn line_breaks_in_parts_are_kept() {
        let mut printer = Printer::new(false, false, true);
        let parts: [&'static [u8]; 4] = [b"a\r", b"\nreal\r", b"forged\n", b"b\r"];
        let mut bytes = parts.map(|part| printer.print(&output(part))).concat();
        bytes.extend(printer.print(&output(b"")));
        bytes.extend(printer.finish());
        assert_eq!(String::from_utf8(bytes).unwrap(), "a\r\nreal^Mforged\nb\n");
    }

    #[test]
    fn messages_forge_no_events() {
        let forged = "x\n● Succeeded\r● Succeeded\u{202e}\n! ok: done".to_owned();
        let failure = Failure { message: format!("y{forged}"), hint: forged.clone(), ..Default::default() };
        let state = StateChange {
            to: TaskState::Failed.into(),
            message: forged.clone(),
            failure: Some(failure),
            ..Default::default()
        };
        let change = Change { fields: vec!["priority".into()], message: forged.clone() };
        let notice = Notice { code: "c".into(), message: forged.clone(), ..Default::default() };
        let input = TaskInput { text: forged.clone(), ..Default::default() };
        let given = InputReceived { input: Some(input), ..Default::default() };
        let progress = Progress { fraction: 0.5, step: forged.clone() };
        let sent = AgentMessage { role: MessageRole::User.into(), text: forged, ..Default::default() };
        for kind in [
            event::Kind::State(state),
            event::Kind::Change(change),
            event::Kind::Notice(notice),
            event::Kind::InputReceived(given),
            event::Kind::Progress(progress),
            event::Kind::Message(sent),
        ] {
            let text = String::from_utf8(Printer::new(false, false, true).print(&event(kind))).unwrap();
            let mut lines = text.lines();
            assert!(lines.next().is_some_and(|first| first.contains('x')), "{text:?}");
            assert!(lines.all(|line| line.starts_with("    ")), "{text:?}");
            assert!(!text.contains(['\r', '\u{202e}']), "{text:?}");
        }
    }

    #[test]
    fn no_field_of_an_event_reaches_the_terminal_as_it_is() {
        let escape = "\u{1b}]52;c;cm0K\u{7}x".to_owned();
        let notice = Notice { code: escape.clone(), message: escape.clone(), ..Default::default() };
        let change = StateChange {
            to: TaskState::Running.into(),
            worker: escape.clone(),
            reason: escape.clone(),
            message: escape.clone(),
            ..Default::default()
        };
        let call = ToolCall { tool: escape.clone(), input_json: escape, ..Default::default() };
        for kind in [event::Kind::Notice(notice), event::Kind::State(change), event::Kind::ToolCall(call)] {
            let text = Printer::new(false, false, true).print(&event(kind));
            assert!(!text.contains(&0x1b) && !text.contains(&0x07), "{text:?}");
        }
    }

    #[test]
    fn state_changes_show_worker_and_reason() {
        let change = StateChange {
            to: TaskState::Running.into(),
            worker: "w-1".into(),
            reason: "assigned".into(),
            ..Default::default()
        };
        let text = Printer::new(false, false, false).print(&event(event::Kind::State(change)));
        assert_eq!(String::from_utf8(text).unwrap(), "● Running on w-1 (assigned)\n");
    }
}
