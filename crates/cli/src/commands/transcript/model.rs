//! A transcript: attempts with their entries, in order. Texts are as agents wrote them; each format makes them harmless in its way.

use std::collections::HashSet;

use serde::Serialize;

/// Bytes of an input or a result of a tool that are shown, unless all of it is asked for.
pub(super) const MAX_TOOL_BYTES: usize = 4 << 10;

#[derive(Debug, Default)]
pub(super) struct Transcript {
    /// Name of the task, and its id.
    pub(super) task: String,
    pub(super) id: String,
    pub(super) title: String,
    pub(super) agent: String,
    pub(super) state: String,
    /// Task whose conversation this one continues.
    pub(super) continues: String,
    pub(super) cost: String,
    pub(super) attempts: Vec<Attempt>,
}

#[derive(Debug, Default)]
pub(super) struct Attempt {
    pub(super) number: i32,
    /// Remarks on where the entries are from, and what is missing.
    pub(super) notes: Vec<String>,
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    Message(Message),
    Call(Call),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Author {
    User,
    Assistant,
    Thinking,
    /// Whatever an attempt has run that wrote output, such as the program of a command.
    Program,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) author: Author,
    pub(super) text: String,
    /// RFC 3339; empty if unknown.
    pub(super) time: String,
    /// Of the first entry that one answer of the model became.
    pub(super) usage: Option<Usage>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) tool: String,
    pub(super) input: Text,
    pub(super) time: String,
    pub(super) result: Option<Outcome>,
    pub(super) usage: Option<Usage>,
    /// The subagent that the call has started.
    pub(super) subagent: Option<Subagent>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) text: Text,
    pub(super) is_error: bool,
    /// Artifact that has all of it.
    pub(super) artifact: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Subagent {
    pub(super) kind: String,
    pub(super) entries: Vec<Entry>,
}

/// What one answer of the model has used.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Usage {
    pub(super) model: String,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) cache_read_tokens: u64,
    pub(super) cache_write_tokens: u64,
    /// By list prices; absent for models without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cost_usd: Option<f64>,
}

/// A text that may be cut.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Text {
    pub(super) text: String,
    /// Bytes that are missing at its end.
    pub(super) cut: usize,
}

impl Transcript {
    /// Returns what is known of the task, by name.
    pub(super) fn about(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("Task", &self.id),
            ("Title", &self.title),
            ("Agent", &self.agent),
            ("State", &self.state),
            ("Continues", &self.continues),
            ("Cost", &self.cost),
        ];
        all.into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name, value.as_str()))
            .collect()
    }
}

impl Text {
    pub(super) fn new(text: &str, full: bool) -> Self {
        if full || text.len() <= MAX_TOOL_BYTES {
            return Self { text: text.to_owned(), cut: 0 };
        }
        let end = text.floor_char_boundary(MAX_TOOL_BYTES);
        Self { text: text[..end].to_owned(), cut: text.len() - end }
    }

    /// Describes what is missing, and how to get it.
    pub(super) fn note(&self, task: &str) -> Option<String> {
        (self.cut > 0).then(|| format!("{} more bytes: rota transcript {task} --full", self.cut))
    }
}

impl Usage {
    pub(super) fn describe(&self) -> String {
        let input = self.input_tokens + self.cache_read_tokens + self.cache_write_tokens;
        let cost = self.cost_usd.map(|cost| format!(", ≈ ${cost:.4}")).unwrap_or_default();
        format!("{}: {input} tokens in, {} out{cost}", self.model, self.output_tokens)
    }
}

impl Entry {
    /// Whether both are the same part of a conversation, which later attempts repeat.
    fn repeats(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Message(one), Self::Message(other)) => {
                one.author == other.author && one.text == other.text
            }
            (Self::Call(one), Self::Call(other)) => one.id == other.id && one.input == other.input,
            _ => false,
        }
    }
}

/// Removes the beginning that an attempt shares with the conversation that it continues. Returns the number of entries removed.
pub(super) fn remove_repeated(entries: &mut Vec<Entry>, before: &[Entry]) -> usize {
    let same = entries.iter().zip(before).take_while(|(one, other)| one.repeats(other)).count();
    entries.drain(..same);
    same
}

/// Returns the ids of all calls, of those with a result, and the texts of all messages.
pub(super) fn known(entries: &[Entry]) -> (HashSet<&str>, HashSet<&str>, HashSet<&str>) {
    let (mut calls, mut results, mut texts) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut left: Vec<&Entry> = entries.iter().collect();
    while let Some(entry) = left.pop() {
        match entry {
            Entry::Message(message) => drop(texts.insert(message.text.as_str())),
            Entry::Call(call) => {
                calls.insert(call.id.as_str());
                if call.result.is_some() {
                    results.insert(call.id.as_str());
                }
                left.extend(call.subagent.iter().flat_map(|subagent| &subagent.entries));
            }
        }
    }
    (calls, results, texts)
}
