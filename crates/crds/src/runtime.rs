//! Runtimes, limits, retry policies and workspaces, which agents and tasks share. A oneof of the API is a group of optional
//! fields here, of which one is set: the only form that schemas of custom resources can describe.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ClaudeRuntime, FailureClass, ForgeProvider, HumanDuration, Json, Usd, WorkflowFiles, WorkspaceCleanup,
    WorkspaceMode,
};

/// How a worker executes a task. Exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Runtime {
    /// Claude Code CLI, run non-interactively.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claude: Option<ClaudeRuntime>,
    /// Any program or shell command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandRuntime>,
    /// Deterministic script; for demos, load tests and tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scripted: Option<ScriptedRuntime>,
    /// Third-party worker, which decides itself how to execute tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalRuntime>,
}

/// Any program or shell command.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandRuntime {
    /// Program and arguments, run without a shell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(max = 131072)))]
    pub argv: Vec<String>,
    /// Command line for `/bin/sh -c`, instead of `argv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub shell: Option<String>,
    /// Standard input. Defaults to the prompt of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1048576))]
    pub stdin: Option<String>,
    /// Exit codes that are retried although they would not be by default (126 and 127).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 255), inner(range(min = 1, max = 255)))]
    pub retry_exit_codes: Vec<i32>,
    /// Exit codes that fail the task without a retry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 255), inner(range(min = 1, max = 255)))]
    pub fatal_exit_codes: Vec<i32>,
}

/// Deterministic script for demos and tests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptedRuntime {
    /// Steps, executed in order. Without steps, the attempt succeeds immediately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10000))]
    pub steps: Vec<ScriptStep>,
    /// Seed of random steps. 0 derives the seed from the task id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// Step of a script. Exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct ScriptStep {
    /// Waits for a fixed time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<HumanDuration>,
    /// Reports progress, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub progress: Option<f64>,
    /// Prints a line of output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub output: Option<String>,
    /// Emits a message of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub message: Option<String>,
    /// Ends the attempt with success and this result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1048576))]
    pub succeed: Option<String>,
    /// Ends the attempt with a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<ScriptFailure>,
    /// Hangs without output until the attempt is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hang: Option<bool>,
    /// Kills the process of the attempt with this signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub crash: Option<i32>,
    /// Starts a process that leaves the session and outlives the attempt unless it is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spawn_orphan: Option<bool>,
    /// Asks a user for input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ask: Option<String>,
    /// Reports usage of tokens and money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ScriptUsage>,
    /// Kills the process of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_worker: Option<bool>,
    /// Waits for a random time up to this duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<HumanDuration>,
    /// Writes a file into the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_file: Option<ScriptFile>,
    /// Adds a line to the script's conversation, which later attempts and tasks continue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub remember: Option<String>,
    /// Emits the conversation as a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<bool>,
}

/// File that a script writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptFile {
    /// Relative path of the file, below the workspace.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Text that becomes the content of the file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 65536))]
    pub text: String,
}

/// Failure that a script simulates.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptFailure {
    /// Failure class. Defaults to `Agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// Message of the simulated failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub message: Option<String>,
    /// Probability of the failure. Defaults to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub probability: Option<f64>,
    /// Number of the last attempt that fails. Defaults to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub attempts: Option<i32>,
}

/// Usage reported by a script.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptUsage {
    /// Number of input tokens used.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000_000_000i64))]
    pub input_tokens: i64,
    /// Number of output tokens used.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000_000_000i64))]
    pub output_tokens: i64,
    /// Cost in US dollars, as a decimal string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Usd>,
}

/// Third-party worker with its own implementation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalRuntime {
    /// Options, passed to the worker unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Json>,
}

/// Limits of a task. Unset ones default to those of the agent, then of the server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Total time of all attempts on workers, without the time in the queue or waiting for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// Maximum time without output of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_timeout: Option<HumanDuration>,
    /// Maximum time in the queue, from ready to started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<HumanDuration>,
    /// Grace period between the cancellation and the kill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_grace: Option<HumanDuration>,
    /// Maximum number of turns between model and tools. Without effect on the runtimes `command` and `scripted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_turns: Option<i32>,
    /// Maximum cost of all attempts in US dollars, as a decimal string such as `"0.50"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_usd: Option<Usd>,
}

/// Retry policy for failed attempts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryPolicy {
    /// Maximum number of attempts, including the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: Option<i32>,
    /// Maximum number of lost workers before the task is quarantined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_worker_losses: Option<i32>,
    /// Delay before the first retry; doubles with each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_backoff: Option<HumanDuration>,
    /// Maximum delay before any retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_backoff: Option<HumanDuration>,
    /// Models, or agents as `agent/NAME`, of the attempts after those that failed by their work: the first after one failure, the
    /// next after two; the last for all others. Models are only for the runtime `claude`, and within what the agent lets tasks set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 128)))]
    pub escalate: Vec<String>,
}

/// Directory of an attempt and its content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workspace {
    /// Directory of the attempt. Defaults to `Fresh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<WorkspaceMode>,
    /// For `InPlace`: absolute path. For `Keep`: name shared by tasks that continue each other's work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub path: Option<String>,
    /// Repository to clone into a fresh or new kept workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// Cleanup of a fresh workspace. Defaults to `Always`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<WorkspaceCleanup>,
    /// Globs of files of the workspace that are kept as artifacts when the attempt ends, such as `dist/**`, besides those of
    /// its output directory. Not with `InPlace`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub keep_files: Vec<String>,
    /// For `InPlace`: attempts of other tasks that share the directory too may work in it at the same time. Otherwise an
    /// attempt waits until it has the directory for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
}

/// Command that the worker runs in the workspace besides the agent: as the programs of the attempt, within the same walls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkspaceCommand {
    /// Program and arguments, without a shell.
    #[schemars(length(min = 1, max = 256), inner(length(max = 4096)))]
    pub argv: Vec<String>,
    /// Time after which it is ended and counts as failed. Defaults to 10m; at most 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
    /// Secrets of the agent, and of the task, that it gets. Others are not in its environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub secrets: Vec<String>,
}

/// What must hold before a task counts as done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DoneWhen {
    /// Commands that must exit with 0 after the agent has finished, one after the other.
    #[schemars(length(min = 1, max = 16))]
    pub commands: Vec<WorkspaceCommand>,
    /// Times that the output of a failed command is sent back to the agent, which continues. Only of the runtime `claude`; others
    /// fail. Defaults to 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 20))]
    pub max_rounds: Option<i32>,
    /// Globs of files of the repository, such as `tests/**`, which the commands see as they are in the commit that the task
    /// started from, whatever the agent has changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub pinned_files: Vec<String>,
}

/// Git repository to clone into a workspace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitSource {
    /// URL of the repository, without credentials.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// Branch, tag or commit. Defaults to the remote's default branch.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub reference: Option<String>,
    /// Task of `dependsOn` from whose work the clone starts: from the commit that it has pushed, or else from the changes that it
    /// has left. Not with `ref` or `depth`, and not of an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub ref_from: Option<String>,
    /// Commits of history to fetch, from the host for each attempt. Defaults to all, which the workers of a machine share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub depth: Option<i32>,
    /// Folders that are checked out, with the files directly in those above them. Defaults to all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub sparse: Vec<String>,
    /// Name of a secret of the agent or the task: a token for HTTP, as `TOKEN` or `USER:TOKEN`, or a private key for SSH. The
    /// worker alone uses it: programs of the attempt do not get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub credentials_from: Option<String>,
    /// Pushes what an attempt that succeeds has changed to the branch `rota/TASK` of the repository, with the task's id. The task
    /// succeeds only if that does. Not with `depth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<Push>,
}

/// Push of changes to the repository that they were made in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Push {
    /// Changes of files that decide what a forge runs, such as those in `.github/workflows`. Defaults to `Refuse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_files: Option<WorkflowFiles>,
    /// Further paths in the repository, and globs such as `ci/**`, of files that decide what a forge runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub workflow_paths: Vec<String>,
    /// Opens a pull or merge request for the branch once it is pushed, or updates the one that is open. The task succeeds only
    /// if that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequest>,
}

/// Pull or merge request of a forge. Texts may contain `${title}`, `${prompt}`, `${result}`, `${task}`, `${name}`, `${agent}`, `${branch}`
/// and `${cost}`. Mentions and references in their values have no effect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PullRequest {
    /// Forge of the repository. Defaults to the one in the name of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ForgeProvider>,
    /// Branch to merge into. Defaults to the branch that `ref` names, or else the default branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub base: Option<String>,
    /// Whether it is opened as a draft. Defaults to false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<bool>,
    /// Title. Defaults to the title of the task, or else the first line of its prompt; one that is open then keeps its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub title: Option<String>,
    /// Body. Defaults to result, title, id and cost of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub body: Option<String>,
    /// Labels that are added to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub labels: Vec<String>,
    /// Names of users who are asked to review; those of teams with a slash, as `org/team`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub reviewers: Vec<String>,
    /// Name of a secret of the agent or the task with a token of the forge's API, for the worker alone. Defaults to `credentialsFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub token_from: Option<String>,
    /// Address of the API. Defaults to the usual one of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub api_url: Option<String>,
}

/// Environment variables of attempts, by name.
pub(crate) type Environment = BTreeMap<String, String>;
