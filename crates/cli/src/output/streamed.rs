//! The message that is being printed in parts. Decides which parts continue what is on the screen, and what is left to print when the
//! whole message arrives. Writes nothing.

use rota_proto::v1::{AgentMessage, Event, MessageDelta, event};

/// Events that wait for the end of a message at most.
const MAX_DEFERRED: usize = 64;

/// Attempt and number of a message; later ones are greater.
type Key = (i32, i64);

#[derive(Debug, Default)]
pub(super) struct Streamed {
    /// The message on the open line.
    open: Option<(Key, String)>,
    /// The last message of which no further part is printed.
    over: Key,
    /// Events that would tear the message apart, and that can wait.
    deferred: Vec<Event>,
}

/// Place of a part in what is printed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// Of a message that is over, or of one of which parts are missing.
    Nothing,
    /// The first of a message: [`Streamed::begin`] follows, once the open line was ended.
    First,
    Next,
}

impl Streamed {
    pub(super) fn add(&mut self, delta: &MessageDelta) -> Added {
        let key = (delta.attempt, delta.number);
        match &mut self.open {
            _ if key <= self.over || delta.text.is_empty() => Added::Nothing,
            Some((open, text)) if *open == key => {
                if usize::try_from(delta.offset) != Ok(text.len()) {
                    return Added::Nothing;
                }
                text.push_str(&delta.text);
                Added::Next
            }
            _ if delta.offset == 0 => Added::First,
            _ => Added::Nothing,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn begin(&mut self, delta: &MessageDelta) {
        self.open = Some(((delta.attempt, delta.number), delta.text.clone()));
    }

    /// Takes the whole message. Returns what is left to print of it, if its beginning is on the open line.
    pub(super) fn complete<'a>(&mut self, attempt: i32, message: &'a AgentMessage) -> Option<&'a str> {
        let key = (attempt, message.number);
        if message.number == 0 || key <= self.over {
            return None;
        }
        self.over = key;
        let (_, text) = self.open.take_if(|(open, _)| *open == key)?;
        let rest = message.text.strip_prefix(text.as_str());
        if rest.is_none() {
            // As it is on the screen; the whole message follows on a line of its own.
            self.open = Some((key, text));
        }
        rest
    }

    /// Whether an event is kept until the message is over.
    pub(super) fn defers(&mut self, event: &Event) -> bool {
        let can_wait = matches!(
            event.kind,
            Some(
                event::Kind::Usage(_)
                    | event::Kind::Progress(_)
                    | event::Kind::Notice(_)
                    | event::Kind::Change(_)
            )
        );
        let defers = can_wait && self.open.is_some() && self.deferred.len() < MAX_DEFERRED;
        if defers {
            self.deferred.push(event.clone());
        }
        defers
    }

    /// Gives up the message on the open line. Returns what has waited for its end.
    pub(super) fn interrupt(&mut self) -> Vec<Event> {
        if let Some((key, _)) = self.open.take() {
            self.over = self.over.max(key);
        }
        std::mem::take(&mut self.deferred)
    }
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{MessageRole, Notice, Usage};

    use super::super::events::Printer;
    use super::*;

    fn delta(number: i64, offset: i64, text: &str) -> MessageDelta {
        let role = MessageRole::Assistant.into();
        MessageDelta { role, attempt: 1, number, offset, text: text.to_owned() }
    }

    fn whole(number: i64, text: &str) -> Event {
        let message = AgentMessage { role: MessageRole::Assistant.into(), text: text.to_owned(), number };
        Event { attempt: 1, kind: Some(event::Kind::Message(message)), ..Event::default() }
    }

    enum Step {
        Delta(i64, i64, &'static str),
        Whole(i64, &'static str),
        Usage,
        Notice,
        State,
    }

    use Step::{Delta, State, Whole};

    fn printed(steps: impl IntoIterator<Item = Step>) -> String {
        let mut printer = Printer::new(false, false, true);
        let mut bytes = Vec::new();
        let event = |kind| Event { attempt: 1, kind: Some(kind), ..Event::default() };
        for step in steps {
            bytes.extend(match step {
                Delta(number, offset, text) => printer.print_delta(&delta(number, offset, text)),
                Whole(number, text) => printer.print(&whole(number, text)),
                Step::Usage => printer.print(&event(event::Kind::Usage(Usage::default()))),
                Step::Notice => {
                    let notice = Notice { code: "c".into(), message: "m".into(), ..Notice::default() };
                    printer.print(&event(event::Kind::Notice(notice)))
                }
                State => printer.print(&event(event::Kind::State(Default::default()))),
            });
        }
        bytes.extend(printer.finish());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn parts_and_the_whole_are_one_message() {
        assert_eq!(printed([Delta(1, 0, "He"), Delta(1, 2, "llo "), Whole(1, "Hello you")]), "Hello you\n");
        let again =
            [Delta(1, 0, "a"), Whole(1, "a"), Delta(1, 1, "late"), Delta(2, 0, "b"), Whole(2, "b\nc")];
        assert_eq!(printed(again), "a\nb\nc\n");
        assert_eq!(printed([Whole(0, "x"), Whole(0, "x")]), "x\nx\n", "messages that are not streamed");
    }

    #[test]
    fn missing_parts_lose_no_message() {
        assert_eq!(printed([Delta(1, 4, "late"), Whole(1, "all of it")]), "all of it\n");
        assert_eq!(printed([Delta(1, 0, "al"), Delta(1, 9, "?"), Whole(1, "all")]), "all\n");
        assert_eq!(printed([Delta(1, 0, "other"), Whole(1, "all")]), "other\nall\n");
        // The model call was cut off and repeated.
        assert_eq!(printed([Delta(1, 0, "be"), Delta(2, 0, "beg"), Whole(2, "begun")]), "be\nbegun\n");
        assert_eq!(
            printed([Delta(2, 0, "ne"), Whole(1, "one"), Delta(2, 2, "xt"), Whole(2, "next")]),
            "ne\none\nnext\n"
        );
    }

    #[test]
    fn events_do_not_tear_a_message_apart() {
        let steps =
            [Delta(1, 0, "one "), Step::Notice, Step::Usage, Delta(1, 4, "line"), Whole(1, "one line")];
        assert_eq!(printed(steps), "one line\n! c: m\n  0 tokens in, 0 out\n");
        assert_eq!(
            printed([Delta(1, 0, "on"), State, Delta(1, 2, "e"), Whole(1, "one")]),
            "on\n● Unknown\none\n"
        );
        assert_eq!(printed([Delta(1, 0, "cut"), Step::Notice]), "cut\n! c: m\n");
    }

    #[test]
    fn line_breaks_in_pieces_are_kept() {
        let parts = [Delta(1, 0, "a\r"), Delta(1, 2, "\nreal\r"), Delta(1, 8, "forged\r")];
        let whole = Whole(1, "a\r\nreal\rforged\r\nb");
        assert_eq!(printed(parts.into_iter().chain([whole])), "a\r\nreal^Mforged\r\nb\n");
        assert_eq!(printed([Delta(1, 0, "cut\r"), State]), "cut\n● Unknown\n");
    }

    #[test]
    fn escape_sequences_in_pieces_stay_harmless() {
        let text = printed([
            Delta(1, 0, "a\u{1b}"),
            Delta(1, 2, "]52;c;x\u{7}"),
            Delta(1, 10, "\u{1b}["),
            Delta(1, 12, "2Jb"),
        ]);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text:?}");
    }
}
