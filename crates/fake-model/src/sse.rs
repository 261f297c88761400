//! Encodes an answer as server-sent events. Must not know about time or faults.

use axum::body::Bytes;
use serde_json::{Value, json};

use crate::reply::{Block, Reply, THINKING_SIGNATURE};

/// Maximum number of deltas of an answer; a long text gets larger ones.
const MAX_PIECES: usize = 20_000;

/// One event. `piece` marks a delta, for which a slow stream waits.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    pub(crate) piece: bool,
}

pub(crate) fn frame(event: &str, data: &Value) -> Frame {
    Frame { bytes: Bytes::from(format!("event: {event}\ndata: {data}\n\n")), piece: false }
}

/// Encodes an answer, with its texts split into deltas of `chars` characters.
pub(crate) fn frames(reply: &Reply, chars: usize) -> Vec<Frame> {
    let mut frames = vec![start(reply), frame("ping", &json!({"type": "ping"}))];
    for (index, block) in reply.blocks.iter().enumerate() {
        let (empty, field, kind, text) = match block {
            Block::Thinking(text) => {
                let empty = json!({"type": "thinking", "thinking": "", "signature": ""});
                (empty, "thinking", "thinking_delta", text.clone())
            }
            Block::Text(text) => (json!({"type": "text", "text": ""}), "text", "text_delta", text.clone()),
            Block::Tool { id, name, input } => {
                let empty = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                (empty, "partial_json", "input_json_delta", json!(input).to_string())
            }
        };
        frames.push(frame(
            "content_block_start",
            &json!({"type": "content_block_start", "index": index, "content_block": empty}),
        ));
        for piece in pieces(&text, chars) {
            let mut sent = delta(index, json!({"type": kind, field: piece}));
            sent.piece = true;
            frames.push(sent);
        }
        if matches!(block, Block::Thinking(_)) {
            frames.push(delta(index, json!({"type": "signature_delta", "signature": THINKING_SIGNATURE})));
        }
        frames.push(frame("content_block_stop", &json!({"type": "content_block_stop", "index": index})));
    }
    frames.push(frame(
        "message_delta",
        &json!({"type": "message_delta", "delta": {"stop_reason": reply.stop, "stop_sequence": null}, "usage": reply.usage.to_json()}),
    ));
    frames.push(frame("message_stop", &json!({"type": "message_stop"})));
    frames
}

/// Encodes the first event. Its usage has at most one output token, since the rest is known only at the end.
pub(crate) fn start(reply: &Reply) -> Frame {
    let mut message = reply.to_json();
    message["content"] = json!([]);
    message["stop_reason"] = Value::Null;
    message["usage"]["output_tokens"] = json!(reply.usage.output().min(1));
    frame("message_start", &json!({"type": "message_start", "message": message}))
}

pub(crate) fn delta(index: usize, delta: Value) -> Frame {
    frame("content_block_delta", &json!({"type": "content_block_delta", "index": index, "delta": delta}))
}

fn pieces(text: &str, chars: usize) -> Vec<String> {
    let all: Vec<char> = text.chars().collect();
    let size = chars.max(all.len().div_ceil(MAX_PIECES)).max(1);
    all.chunks(size).map(|piece| piece.iter().collect()).collect()
}
