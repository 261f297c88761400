//! Finds the place in a conversation: the script that is in force, how many of its steps were answered, and what the
//! user said last. Everything comes from the request, so a resumed session goes on where it was.

use crate::request::{Content, Message, Role};
use crate::script::{MARK, Script, ScriptError};

/// What the CLI itself puts in as the assistant's turn when it resumes an interrupted session.
const SYNTHETIC: &str = "No response requested.";
/// How the CLI asks for an answer again whose stream ended early, and of which it kept the part that came.
const CUT_OFF: &str = "Your response above was cut off mid-stream.";
/// How the CLI wraps text that no user wrote (project notes, reminders): it may quote scripts that nobody meant to run.
const REMINDER: &str = "<system-reminder>";

/// A script, and how far the conversation is through it.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    pub(crate) script: Script,
    /// The index of its next step; beyond the end once all were answered.
    pub(crate) next: usize,
    /// The text that holds it.
    pub(crate) text: &'a str,
}

#[derive(Debug)]
pub(crate) struct Conversation<'a> {
    /// The script in force: the last one that the user wrote.
    pub(crate) running: Option<Running<'a>>,
    /// How many turns the assistant had, over the whole conversation.
    pub(crate) turns: usize,
    /// The last text of the user.
    pub(crate) prompt: &'a str,
    /// Whether the user said it after the assistant's last turn.
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
                Some(Running { script: Script::find(text)?, next: turns(&messages[at + 1..]), text })
            }
            None => None,
        };
        let last_turn = messages.iter().rposition(|m| m.role == Role::Assistant).map_or(0, |at| at + 1);
        let said = |messages: &'a [Message]| {
            messages
                .iter()
                .rev()
                .filter(|m| m.role == Role::User)
                .find_map(|m| spoken(&m.content).next_back())
        };
        Ok(Self {
            running,
            turns: turns(messages),
            prompt: said(messages).unwrap_or_default(),
            asked: said(&messages[last_turn..]).is_some(),
            tool_result: messages[last_turn..].iter().rev().find_map(|m| m.content.tool_result()),
        })
    }
}

fn script_text(message: &Message) -> Option<&str> {
    (message.role != Role::Assistant).then(|| spoken(&message.content).find(|text| text.contains(MARK)))?
}

fn spoken(content: &Content) -> impl DoubleEndedIterator<Item = &str> {
    content.texts().filter(|text| !text.trim_start().starts_with(REMINDER))
}

/// How many turns the assistant had: the steps that were answered. What the CLI wrote in its place is none, nor is
/// the part of an answer that it asked for again.
fn turns(messages: &[Message]) -> usize {
    let next = messages.iter().skip(1).map(Some).chain([None]);
    let answered = |message: &Message, next: Option<&Message>| {
        message.role == Role::Assistant
            && !is_synthetic(&message.content)
            && !next.is_some_and(|next| next.content.texts().any(|text| text.starts_with(CUT_OFF)))
    };
    messages.iter().zip(next).filter(|(message, next)| answered(message, *next)).count()
}

fn is_synthetic(content: &Content) -> bool {
    match content {
        Content::Text(text) => text == SYNTHETIC,
        Content::Blocks(blocks) => blocks.len() == 1 && content.texts().next() == Some(SYNTHETIC),
    }
}
