//! Position in a conversation: the active script, the number of its answered steps, and the last user text.
//! Derived from the request alone, so that a resumed session continues at its step.

use crate::request::{Content, Message, Role};
use crate::script::{SCRIPT_MARKER, Script, ScriptError};

/// Assistant turn that the CLI inserts when it resumes an interrupted session.
const RESUME_PLACEHOLDER: &str = "No response requested.";
/// Start of the message by which the CLI requests the rest of an answer whose stream was interrupted.
const CUT_OFF_PREFIX: &str = "Your response above was cut off mid-stream.";
/// Start of text that the CLI inserts (project notes, reminders), which may quote scripts that are not meant to run.
const REMINDER_PREFIX: &str = "<system-reminder>";

/// A script and the position in it.
#[derive(Debug)]
pub(crate) struct ActiveScript<'a> {
    pub(crate) script: Script,
    /// Index of the next step; past the end once all are answered.
    pub(crate) next: usize,
    /// Text that contains the script.
    pub(crate) text: &'a str,
}

#[derive(Debug)]
pub(crate) struct Conversation<'a> {
    /// The last script in the user's texts.
    pub(crate) running: Option<ActiveScript<'a>>,
    /// Number of assistant turns in the whole conversation.
    pub(crate) turns: usize,
    pub(crate) prompt: &'a str,
    /// Whether `prompt` follows the assistant's last turn.
    pub(crate) asked: bool,
    /// The last tool result after the assistant's last turn.
    pub(crate) tool_result: Option<String>,
}

impl<'a> Conversation<'a> {
    pub(crate) fn read(messages: &'a [Message]) -> Result<Self, ScriptError> {
        let found =
            messages.iter().enumerate().rev().find_map(|(at, message)| Some((at, script_text(message)?)));
        let running = match found {
            Some((at, text)) => {
                Some(ActiveScript { script: Script::find(text)?, next: turns(&messages[at + 1..]), text })
            }
            None => None,
        };
        let last_turn = messages.iter().rposition(|m| m.role == Role::Assistant).map_or(0, |at| at + 1);
        let last_text = |messages: &'a [Message]| {
            messages
                .iter()
                .rev()
                .filter(|m| m.role == Role::User)
                .find_map(|m| user_texts(&m.content).next_back())
        };
        Ok(Self {
            running,
            turns: turns(messages),
            prompt: last_text(messages).unwrap_or_default(),
            asked: last_text(&messages[last_turn..]).is_some(),
            tool_result: messages[last_turn..].iter().rev().find_map(|m| m.content.tool_result()),
        })
    }
}

fn script_text(message: &Message) -> Option<&str> {
    (message.role != Role::Assistant)
        .then(|| user_texts(&message.content).find(|text| text.contains(SCRIPT_MARKER)))?
}

fn user_texts(content: &Content) -> impl DoubleEndedIterator<Item = &str> {
    content.texts().filter(|text| !text.trim_start().starts_with(REMINDER_PREFIX))
}

/// Counts the assistant's turns, which are the answered steps, without turns that the CLI inserted and without
/// interrupted answers that it requested again.
fn turns(messages: &[Message]) -> usize {
    let next = messages.iter().skip(1).map(Some).chain([None]);
    let answered = |message: &Message, next: Option<&Message>| {
        message.role == Role::Assistant
            && !is_synthetic(&message.content)
            && !next.is_some_and(|next| next.content.texts().any(|text| text.starts_with(CUT_OFF_PREFIX)))
    };
    messages.iter().zip(next).filter(|(message, next)| answered(message, *next)).count()
}

fn is_synthetic(content: &Content) -> bool {
    match content {
        Content::Text(text) => text == RESUME_PLACEHOLDER,
        Content::Blocks(blocks) => blocks.len() == 1 && content.texts().next() == Some(RESUME_PLACEHOLDER),
    }
}
