//! Types of the lines that the CLI prints. Unknown kinds and fields are ignored, since every version adds
//! some. Knows nothing of their effect.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::blocks::Content;
use super::control::{Request, Response};
pub(super) use super::counts::{MessageUsage, ModelUsage, StreamEvent};

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Line {
    System(System),
    Assistant(Assistant),
    User(User),
    Result(Box<Finished>),
    ControlRequest {
        request_id: String,
        request: Request,
    },
    ControlResponse {
        response: Response,
    },
    ControlCancelRequest {
        request_id: String,
    },
    CommandLifecycle {
        command_uuid: String,
        state: String,
    },
    /// A part of a message.
    StreamEvent {
        #[serde(default, deserialize_with = "super::counts::known_or_other")]
        event: StreamEvent,
        /// Set for messages of a subagent.
        #[serde(default)]
        parent_tool_use_id: Option<String>,
    },
    /// A tool is still running. Repeated every 30 s.
    ToolProgress(serde::de::IgnoredAny),
    RateLimitEvent {
        rate_limit_info: RateLimit,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "subtype", rename_all = "snake_case")]
pub(super) enum System {
    Init(Init),
    ApiRetry(ApiRetry),
    PermissionDenied(Denied),
    ModelFallback(SystemLine),
    ModelRefusalNoFallback(SystemLine),
    CompactBoundary(serde::de::IgnoredAny),
    #[serde(other)]
    Other,
}

/// Line at the start of every turn.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Init {
    pub(super) session_id: String,
    pub(super) model: String,
    #[serde(rename = "permissionMode")]
    pub(super) permission_mode: String,
    pub(super) claude_code_version: String,
    pub(super) mcp_servers: Vec<McpServer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct McpServer {
    pub(super) name: String,
    pub(super) status: String,
}

/// A model call is being retried. Repeated every 30 s while it waits.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiRetry {
    pub(super) attempt: u32,
    pub(super) max_retries: u32,
    pub(super) retry_delay_ms: f64,
    /// HTTP status, absent for connection errors.
    pub(super) error_status: Option<u16>,
    pub(super) error: Option<String>,
}

/// State of a subscription's limit.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RateLimit {
    /// One of `allowed`, `allowed_warning` and `rejected`.
    pub(super) status: String,
    /// Unix time of its end, in seconds.
    pub(super) resets_at: Option<f64>,
    /// Name of the limit, such as `five_hour`.
    pub(super) rate_limit_type: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Denied {
    pub(super) tool_name: String,
    pub(super) tool_use_id: String,
    pub(super) message: Option<String>,
    pub(super) decision_reason: Option<String>,
}

/// A line with a message for the user, under one of several names.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SystemLine {
    pub(super) message: Option<Value>,
    pub(super) content: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Assistant {
    pub(super) message: Message,
    /// Set for messages of a subagent.
    pub(super) parent_tool_use_id: Option<String>,
    /// Set for a message that the CLI generated to report a failed model call.
    #[serde(default)]
    pub(super) is_api_error_message: bool,
    pub(super) api_error_status: Option<u16>,
    pub(super) error: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub(super) message: Message,
}

#[derive(Debug, Deserialize)]
pub(super) struct Message {
    pub(super) content: Content,
}

/// Line at the end of a turn, with its result.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Finished {
    pub(super) subtype: String,
    pub(super) is_error: bool,
    pub(super) num_turns: Option<i32>,
    pub(super) result: Option<String>,
    pub(super) structured_output: Option<Value>,
    pub(super) errors: Vec<String>,
    pub(super) stop_reason: Option<String>,
    pub(super) terminal_reason: Option<String>,
    pub(super) api_error_status: Option<u16>,
    /// Code of a failure without a status, such as `connection_failed`.
    pub(super) api_error: Option<String>,
    pub(super) startup_failure_reason: Option<String>,
    pub(super) permission_denials: Vec<Denial>,
    /// Cost of the whole process; after a resume, of the session, if its file has the cost.
    pub(super) total_cost_usd: Option<f64>,
    #[serde(rename = "modelUsage")]
    pub(super) model_usage: BTreeMap<String, ModelUsage>,
    /// Usage since the last result, even after a resume.
    pub(super) model_usage_since_last_result: Option<BTreeMap<String, ModelUsage>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Denial {
    pub(super) tool_name: String,
    pub(super) tool_use_id: String,
}

impl SystemLine {
    /// Returns the message, if there is one.
    pub(super) fn message(&self) -> Option<&str> {
        [&self.message, &self.content].into_iter().flatten().find_map(Value::as_str)
    }
}
