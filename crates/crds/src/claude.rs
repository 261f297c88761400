//! Runtime of the Claude Code CLI: its fields, and the words that it alone has. What may be set is decided in `rota-proto`, for all
//! ways to create agents and tasks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Json, PermissionMode, PermissionPolicy};

/// Claude Code CLI, run non-interactively.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaudeRuntime {
    /// Model name or alias. Defaults to the CLI's own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub model: Option<String>,
    /// Fallback model while `model` is overloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub fallback_model: Option<String>,
    /// Available built-in tools. Defaults to all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 256)))]
    pub tools: Vec<String>,
    /// Tools, or patterns such as `Bash(git *)`, that may be used without asking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 1024)))]
    pub allowed_tools: Vec<String>,
    /// Tools, or patterns, that must not be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 1024)))]
    pub disallowed_tools: Vec<String>,
    /// Permission mode. Defaults to `acceptEdits`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_mode: Option<PermissionMode>,
    /// System prompt that replaces the CLI's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub system_prompt: Option<String>,
    /// Text appended to the CLI's system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub append_system_prompt: Option<String>,
    /// MCP servers by name, each in the format of the CLI's `--mcp-config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_servers: Option<Json>,
    /// JSON schema of the answer, which becomes the data of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<Json>,
    /// Answer to a tool use that no permission rule covers. Defaults to `Deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_policy: Option<PermissionPolicy>,
    /// Path of the CLI. Defaults to `claude` on the worker's PATH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub program: Option<String>,
    /// What the CLI loads of the repository: `project` for CLAUDE.md or AGENTS.md, settings, agents, skills and commands. Defaults to
    /// nothing. Only of agents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1))]
    pub setting_sources: Vec<SettingSource>,
    /// Runs the repository's hooks, and applies the environment variables of its settings, which can run code as well. Needs
    /// `settingSources: [project]`. Only of agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_hooks: Option<bool>,
    /// Starts the MCP servers of the repository's `.mcp.json`. Needs `settingSources: [project]`. Only of agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_mcp_servers: Option<bool>,
    /// Settings, in the format of the CLI's `settings.json`. They precede the repository's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Json>,
    /// Subagents by name, each in the format of the CLI's `--agents`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<Json>,
    /// Absolute paths of further directories of the worker's machine that the tools may use. Where attempts are confined, the worker
    /// must allow them as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 4096)))]
    pub add_dirs: Vec<String>,
    /// Effort of the model. Defaults to the CLI's own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<Effort>,
    /// Beta headers of model calls, as far as the CLI allows them; with an API key only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    pub betas: Vec<String>,
    /// Further arguments of the CLI, each `--NAME` or `--NAME=VALUE`. Those that Rota sets are refused. Only of agents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 3, max = 4096)))]
    pub extra_args: Vec<String>,
    /// Absolute paths of directories of the worker's machine with a plugin, or with several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 4096)))]
    pub plugin_dirs: Vec<String>,
    /// Fails an attempt in which tools were denied, with the class `Agent`, instead of letting it succeed with what the agent could do
    /// without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_on_denied_tools: Option<bool>,
}

/// Source of settings that the Claude Code CLI loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SettingSource {
    /// The repository in the workspace.
    Project,
}

impl SettingSource {
    /// Returns the CLI's name of the source.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Project => rota_proto::claude::PROJECT,
        }
    }
}

/// Effort that the model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Effort {
    /// The least that there is.
    Low,
    /// Less than models use by default.
    Medium,
    /// More than models use by default.
    High,
    /// Much more than models use by default.
    Xhigh,
    /// As much as the model can use.
    Max,
}

impl Effort {
    /// Returns the CLI's name of the effort.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }
}
