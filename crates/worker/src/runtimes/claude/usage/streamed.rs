//! Usage of the messages that a CLI streams, each of them counted once, with its last counts. Knows no prices.

use std::collections::HashMap;

use super::super::lines::{MessageUsage, ModelUsage, StreamEvent};
use super::Models;

/// Agents whose messages are followed at the same time: the main one, and subagents.
const MAX_AGENTS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Streamed {
    models: Models,
    /// The message of each agent, by the call that has started it: id, model and what is counted.
    current: HashMap<String, (String, String, ModelUsage)>,
    turns: i32,
}

impl Streamed {
    pub(super) fn models(&self) -> &Models {
        &self.models
    }

    pub(super) fn turns(&self) -> i32 {
        self.turns
    }

    pub(super) fn take(&mut self, event: StreamEvent, agent: Option<&str>) -> bool {
        let key = agent.unwrap_or_default();
        match event {
            StreamEvent::MessageStart { message } => {
                let repeats = self.current.get(key).is_some_and(|(id, ..)| *id == message.id);
                if !repeats && (self.current.len() < MAX_AGENTS || self.current.contains_key(key)) {
                    let current = (message.id, message.model, ModelUsage::default());
                    self.current.insert(key.to_owned(), current);
                }
                self.count(key, &message.usage);
                false
            }
            StreamEvent::MessageDelta { usage } => {
                self.count(key, &usage);
                false
            }
            StreamEvent::MessageStop => {
                self.turns = self.turns.saturating_add(i32::from(agent.is_none()));
                true
            }
            StreamEvent::ContentBlockStart { .. }
            | StreamEvent::ContentBlockDelta { .. }
            | StreamEvent::Other => false,
        }
    }

    /// Counts the latest counts of a message in place of earlier ones.
    fn count(&mut self, key: &str, usage: &MessageUsage) {
        let Some((_, model, counted)) = self.current.get_mut(key) else { return };
        let total = counted.at_least(&usage.into());
        let mut added = total.clone();
        added.subtract(counted);
        *counted = total;
        if !added.is_zero() {
            self.models.entry(model.clone()).or_default().add(&added);
        }
    }
}
