//! Types of the CLI's control requests. Knows nothing of how they are answered.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::counts::ModelUsage;

#[derive(Debug, Deserialize)]
#[serde(tag = "subtype", rename_all = "snake_case")]
pub(super) enum Request {
    CanUseTool(CanUseTool),
    HookCallback(HookCallback),
    #[serde(other)]
    Other,
}

/// A hook that was registered with the opening request.
#[derive(Debug, Deserialize)]
pub(super) struct HookCallback {
    #[serde(default)]
    pub(super) input: ConfigChange,
}

/// Input of the hook for a set-up that has changed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ConfigChange {
    /// Which one, such as `project_settings` or `skills`.
    pub(super) source: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct CanUseTool {
    pub(super) tool_name: String,
    #[serde(default)]
    pub(super) input: Value,
    pub(super) description: Option<String>,
    pub(super) decision_reason: Option<String>,
    #[serde(default)]
    pub(super) permission_suggestions: Vec<Value>,
}

/// Suggestion of the CLI that adds rules.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AddRules {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) behavior: String,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    pub(super) tool_name: String,
    pub(super) rule_content: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Response {
    pub(super) subtype: String,
    pub(super) request_id: String,
    pub(super) error: Option<String>,
    pub(super) response: Option<Answer>,
}

/// What a successful request is answered with, as far as it is of interest.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    pub(super) session: Option<SessionUsage>,
}

/// Usage of a session, including its earlier processes if it was resumed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SessionUsage {
    pub(super) model_usage: BTreeMap<String, ModelUsage>,
}

/// Input of the tool `AskUserQuestion`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Questions {
    pub(super) questions: Vec<Question>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Question {
    pub(super) question: String,
    pub(super) multi_select: bool,
    pub(super) options: Vec<Choice>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Choice {
    pub(super) label: String,
}
