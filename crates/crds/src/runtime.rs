//! `spec.runtime`, and the bounds, retries and workspaces that agents and tasks share.
//! Where the API has a choice of one, a manifest has optional fields of which one is set: that is
//! the shape that a cluster's schemas can describe.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    FailureClass, Json, PermissionMode, PermissionPolicy, Span, Usd, WorkspaceCleanup, WorkspaceMode,
};

/// How a worker does a task. Exactly one field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Runtime {
    /// The Claude Code CLI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claude: Option<ClaudeRuntime>,
    /// Any program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandRuntime>,
    /// Steps that are the same each time; for demos, load and tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scripted: Option<ScriptedRuntime>,
    /// A worker of somebody else's, which knows itself what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalRuntime>,
}

/// The Claude Code CLI.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaudeRuntime {
    /// Model name or alias; unset means the CLI's own choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub model: Option<String>,
    /// Model to use when the first is overloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub fallback_model: Option<String>,
    /// The only built-in tools it has; none means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 256)))]
    pub tools: Vec<String>,
    /// Tools, or patterns such as `Bash(git *)`, that it may use without asking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 1024)))]
    pub allowed_tools: Vec<String>,
    /// Tools it may not use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 1024)))]
    pub disallowed_tools: Vec<String>,
    /// The CLI's permission mode; unset means `acceptEdits`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_mode: Option<PermissionMode>,
    /// Replaces the CLI's system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub system_prompt: Option<String>,
    /// Comes after the CLI's system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub append_system_prompt: Option<String>,
    /// MCP servers by name, each as the CLI's `--mcp-config` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_servers: Option<Json>,
    /// The answer must fit this JSON schema; it becomes the result's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<Json>,
    /// What happens when a tool needs a permission. Unset means `Deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_policy: Option<PermissionPolicy>,
    /// The program; unset means `claude` on the worker's PATH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub program: Option<String>,
}

/// Any program. Its standard input is the prompt unless `stdin` says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandRuntime {
    /// Program and arguments, not given to a shell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(max = 131072)))]
    pub argv: Vec<String>,
    /// A line for `/bin/sh -c`, instead of `argv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub shell: Option<String>,
    /// What the program reads; unset means the task's prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1048576))]
    pub stdin: Option<String>,
    /// Exit codes that mean "try again".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 255), inner(range(min = 1, max = 255)))]
    pub retry_exit_codes: Vec<i32>,
    /// Exit codes that mean "trying again is useless".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 255), inner(range(min = 1, max = 255)))]
    pub fatal_exit_codes: Vec<i32>,
}

/// Steps that are the same each time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptedRuntime {
    /// Done in order. None means: succeed at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10000))]
    pub steps: Vec<ScriptStep>,
    /// Seed of whatever is random in them; 0 means a seed made from the task's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// One step of a script. Exactly one field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct ScriptStep {
    /// Waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// Reports progress, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub progress: Option<f64>,
    /// Prints a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub output: Option<String>,
    /// Says something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub say: Option<String>,
    /// Ends well, with this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1048576))]
    pub succeed: Option<String>,
    /// Ends badly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<ScriptFailure>,
    /// Does nothing, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hang: Option<bool>,
    /// Ends its process without a word, by this signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub crash: Option<i32>,
    /// Starts a process that leaves its session and lives on unless it is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spawn_stray: Option<bool>,
    /// Asks a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ask: Option<String>,
    /// Reports usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ScriptUsage>,
    /// Kills the worker itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_worker: Option<bool>,
    /// Waits a random time up to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Span>,
}

/// How a script fails.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptFailure {
    /// The kind; unset means `Agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// What it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub message: Option<String>,
    /// Fails with this probability; unset means always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub probability: Option<f64>,
    /// Fails only on attempts up to this one; unset means on all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub attempts: Option<i32>,
}

/// Usage that a script reports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptUsage {
    /// Tokens in.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000_000_000i64))]
    pub input_tokens: i64,
    /// Tokens out.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000_000_000i64))]
    pub output_tokens: i64,
    /// Dollars, as a decimal string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Usd>,
}

/// A worker of somebody else's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalRuntime {
    /// Handed on to the worker as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Json>,
}

/// Bounds of a task. An unset one comes from the agent, then from the server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// From the first attempt's start to the end of the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Longest time without a word from the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_timeout: Option<Span>,
    /// Longest time from ready to started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<Span>,
    /// Between the request to end and the kill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_grace: Option<Span>,
    /// Most turns between model and tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_turns: Option<i32>,
    /// Most dollars, as a decimal string such as `"0.50"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_usd: Option<Usd>,
}

/// When and how often a failed attempt is tried again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: Option<i32>,
    /// Lost workers that are forgiven before the task is quarantined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_worker_losses: Option<i32>,
    /// Wait before the first retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_backoff: Option<Span>,
    /// Longest wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_backoff: Option<Span>,
}

/// Where an attempt works.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workspace {
    /// Which directory. Unset means `Fresh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<WorkspaceMode>,
    /// For `InPlace`: the absolute path. For `Keep`: a name shared by tasks that go on from one another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub path: Option<String>,
    /// Cloned into a fresh or new kept workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// What becomes of a fresh one at the end. Unset means `Always`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<WorkspaceCleanup>,
}

/// A git repository.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitSource {
    /// Where from; without credentials in it.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// Branch, tag or commit; unset means the remote's default.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub reference: Option<String>,
    /// Commits of history; unset means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub depth: Option<i32>,
}

/// Environment of attempts.
pub(crate) type Environment = BTreeMap<String, String>;
