//! Parts of the main agent's messages, and which whole message they belong to. Subagents' messages are not in the log.

use rota_proto::v1::event;

use super::super::lines::StreamEvent;
use super::Conversation;

impl Conversation {
    /// Takes a streamed part of a message: its text and its usage.
    pub(super) fn streamed(&mut self, event: StreamEvent, agent: Option<&str>) {
        if agent.is_none() {
            match &event {
                StreamEvent::ContentBlockStart { content_block } => {
                    if let Some(role) = content_block.role() {
                        self.deltas.begin(role, &self.redactor);
                    }
                }
                StreamEvent::ContentBlockDelta { delta } => self.deltas.push(delta.text()),
                _ => {}
            }
        }
        self.count_streamed(event, agent);
    }

    /// Gives messages the numbers of the parts in which they were streamed.
    pub(super) fn number(&self, events: &mut [event::Kind]) {
        for event in events {
            if let event::Kind::Message(message) = event {
                message.number = self.deltas.complete(message.role());
            }
        }
    }
}
