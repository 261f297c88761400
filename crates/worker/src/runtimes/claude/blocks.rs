//! Contents of messages, the same in what the CLI prints and in its transcripts. Unknown ones are ignored, since every version adds some.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Content of a message, or of the result of a tool.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    Blocks(Vec<Block>),
    Other(IgnoredAny),
}

/// Part of a content: what the model or a user writes, a call, or its result.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    Text {
        text: String,
    },
    Thinking {
        thinking: String,
    },
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Value,
    },
    ToolResult {
        tool_use_id: String,
        content: Option<Content>,
        is_error: Option<bool>,
    },
    #[serde(other)]
    Other,
}

impl Content {
    /// Returns the text, with a placeholder for each block of another kind.
    pub fn text(&self) -> String {
        let text = |block: &Block| match block {
            Block::Text { text } => text.clone(),
            _ => "[not text]".to_owned(),
        };
        match self {
            Self::Text(text) => text.clone(),
            Self::Blocks(blocks) => blocks.iter().map(text).collect::<Vec<_>>().join("\n"),
            Self::Other(_) => String::new(),
        }
    }
}
