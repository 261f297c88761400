//! Lines sent to the CLI. Knows their format, and nothing of when they are sent.

use std::time::Duration;

use serde_json::{Value, json};

/// Time for an answer to a hook: longer than any attempt.
const HOOK_TIMEOUT: Duration = Duration::from_hours(20 * 24);

/// User message; its `uuid` makes the CLI report the message's life cycle.
pub(super) fn user(text: &str, uuid: &str) -> Value {
    json!({
        "type": "user",
        "message": {"role": "user", "content": text},
        "parent_tool_use_id": null,
        "session_id": "",
        "uuid": uuid,
    })
}

/// Opening request. The CLI works without it; its refusal is an early sign of an incompatible protocol. `keep_set_up`: the CLI asks
/// before it applies settings, or loads subagents and skills, that changed while it runs.
pub(super) fn initialize(request_id: &str, keep_set_up: bool) -> Value {
    let mut request = json!({"subtype": "initialize"});
    if keep_set_up {
        // Without an answer in time, it would apply them.
        let hook = json!({"hookCallbackIds": ["set-up"], "timeout": HOOK_TIMEOUT.as_secs()});
        request["hooks"] = json!({"ConfigChange": [hook]});
    }
    json!({"type": "control_request", "request_id": request_id, "request": request})
}

/// Response to the question whether a changed set-up takes effect: it does not.
pub(super) fn block(request_id: &str) -> Value {
    answer(request_id, &json!({"decision": "block", "reason": "the set-up is that of the start"}))
}

/// Request to interrupt the running turn.
pub(super) fn interrupt(request_id: &str) -> Value {
    json!({"type": "control_request", "request_id": request_id, "request": {"subtype": "interrupt"}})
}

/// Request for the usage of the session so far. Answered while a turn runs, too.
pub(super) fn get_usage(request_id: &str) -> Value {
    let request = json!({"subtype": "get_usage", "skip_behaviors": true});
    json!({"type": "control_request", "request_id": request_id, "request": request})
}

/// Response that allows a tool call with this input.
pub(super) fn allow(request_id: &str, input: &Value) -> Value {
    answer(request_id, &json!({"behavior": "allow", "updatedInput": input}))
}

/// Response that allows a tool call with this input, and others that a rule fits until the CLI ends. It writes none to a file.
pub(super) fn allow_with_rules(request_id: &str, input: &Value, rules: &[String]) -> Value {
    let rules: Vec<_> = rules
        .iter()
        .filter_map(|rule| rota_proto::permission_rules::parse(rule))
        .map(|(tool, content)| match content {
            Some(content) => json!({"toolName": tool, "ruleContent": content}),
            None => json!({"toolName": tool}),
        })
        .collect();
    let add = json!({"type": "addRules", "behavior": "allow", "destination": "session", "rules": rules});
    answer(request_id, &json!({"behavior": "allow", "updatedInput": input, "updatedPermissions": [add]}))
}

/// Response that denies a tool call; the model reads `reason`.
pub(super) fn deny(request_id: &str, reason: &str) -> Value {
    answer(request_id, &json!({"behavior": "deny", "message": reason}))
}

fn answer(request_id: &str, response: &Value) -> Value {
    json!({
        "type": "control_response",
        "response": {"subtype": "success", "request_id": request_id, "response": response},
    })
}

/// Response to an unsupported request, so that the CLI does not wait for one indefinitely.
pub(super) fn unsupported(request_id: &str) -> Value {
    json!({
        "type": "control_response",
        "response": {"subtype": "error", "request_id": request_id, "error": "request not supported by this host"},
    })
}
