//! Body of a `/v1/messages` request: only the fields that scripts need; others are accepted and ignored.

use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    #[serde(default)]
    pub(crate) model: String,
    #[serde(default)]
    pub(crate) stream: bool,
    pub(crate) messages: Vec<Message>,
    #[serde(default)]
    pub(crate) tools: Vec<IgnoredAny>,
    #[serde(default)]
    pub(crate) output_config: OutputConfig,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct OutputConfig {
    #[serde(default)]
    pub(crate) effort: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    pub(crate) role: Role,
    pub(crate) content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    User,
    Assistant,
    /// Used by the CLI for its environment block, and for messages that arrive during a tool call.
    System,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Block {
    Text {
        text: String,
    },
    ToolResult {
        #[serde(default)]
        content: Option<Content>,
    },
    #[serde(other)]
    Other,
}

impl Content {
    /// Returns the texts of the content itself, without those inside tool results.
    pub(crate) fn texts(&self) -> impl DoubleEndedIterator<Item = &str> {
        let (whole, blocks) = match self {
            Self::Text(text) => (Some(text.as_str()), [].as_slice()),
            Self::Blocks(blocks) => (None, blocks.as_slice()),
        };
        let inner = blocks.iter().filter_map(|block| match block {
            Block::Text { text } => Some(text.as_str()),
            _ => None,
        });
        whole.into_iter().chain(inner)
    }

    /// Returns the text of the last tool result.
    pub(crate) fn tool_result(&self) -> Option<String> {
        let Self::Blocks(blocks) = self else { return None };
        let content = blocks.iter().rev().find_map(|block| match block {
            Block::ToolResult { content } => Some(content.as_ref()),
            _ => None,
        })?;
        Some(content.map(|c| c.texts().collect::<Vec<_>>().join("\n")).unwrap_or_default())
    }
}
