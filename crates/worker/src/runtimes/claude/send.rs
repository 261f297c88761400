//! The lines that the CLI reads. Knows their shapes, and nothing of when they are sent.

use serde_json::{Value, json};

/// A message of the user's; `uuid` makes the CLI tell what becomes of it.
pub(super) fn user(text: &str, uuid: &str) -> Value {
    json!({
        "type": "user",
        "message": {"role": "user", "content": text},
        "parent_tool_use_id": null,
        "session_id": "",
        "uuid": uuid,
    })
}

/// The opening request. The CLI would also do without; its refusal is an early word on a protocol that changed.
pub(super) fn initialize(request_id: &str) -> Value {
    json!({"type": "control_request", "request_id": request_id, "request": {"subtype": "initialize"}})
}

/// Asks for an end of the running turn.
pub(super) fn interrupt(request_id: &str) -> Value {
    json!({"type": "control_request", "request_id": request_id, "request": {"subtype": "interrupt"}})
}

/// Lets a tool run, with this input.
pub(super) fn allow(request_id: &str, input: &Value) -> Value {
    answer(request_id, &json!({"behavior": "allow", "updatedInput": input}))
}

/// Keeps a tool from running; the model reads `why`.
pub(super) fn deny(request_id: &str, why: &str) -> Value {
    answer(request_id, &json!({"behavior": "deny", "message": why}))
}

fn answer(request_id: &str, response: &Value) -> Value {
    json!({
        "type": "control_response",
        "response": {"subtype": "success", "request_id": request_id, "response": response},
    })
}

/// Answers a request that is not served here, so that the CLI does not wait for ever.
pub(super) fn unsupported(request_id: &str) -> Value {
    json!({
        "type": "control_response",
        "response": {"subtype": "error", "request_id": request_id, "error": "this host does not serve that request"},
    })
}
