//! Options of an attempt, extracted from the assignment and validated. Pure; knows nothing of argv or files.

use rota_proto::claude::Problem;
use rota_proto::v1::{ClaudeRuntime, Failure, FailureClass, PermissionPolicy, Usage, WorkspaceMode, runtime};
use rota_proto::worker::v1::Assign;

use crate::runtimes::{Environment, structs};

/// Permission modes of the CLI.
const PERMISSION_MODES: [&str; 7] =
    ["default", "manual", "acceptEdits", "plan", "auto", "dontAsk", "bypassPermissions"];

/// Maximum size of a schema, which is one argument; the kernel limits those to 128 KiB.
const MAX_ARGUMENT_BYTES: usize = 120 * 1024;

#[derive(Debug)]
pub(super) struct Options {
    /// The agent's and the task's options, merged.
    pub(super) claude: ClaudeRuntime,
    pub(super) mode: String,
    pub(super) policy: PermissionPolicy,
    pub(super) max_turns: i64,
    pub(super) budget_micro_usd: i64,
    pub(super) schema: Option<String>,
    /// Subagents by name, as JSON text.
    pub(super) agents: Option<String>,
    /// As JSON text, in the format of the CLI's configuration file.
    pub(super) mcp: Option<String>,
    /// Whether the workspace outlives the attempt, so that the session can be resumed.
    pub(super) keep: bool,
    pub(super) resume: Option<String>,
}

impl Options {
    /// Validates the options. `root`: whether the CLI would run as root.
    pub(super) fn new(assign: &Assign, environment: &Environment, root: bool) -> Result<Self, Failure> {
        let spec = assign.spec.clone().unwrap_or_default();
        let claude = match spec.runtime.and_then(|runtime| runtime.kind) {
            Some(runtime::Kind::Claude(claude)) => claude,
            None => ClaudeRuntime::default(),
            Some(_) => return Err(invalid("the task's runtime is not `claude`", "")),
        };
        let mode = match claude.permission_mode.as_str() {
            "" => "acceptEdits".to_owned(),
            mode if PERMISSION_MODES.contains(&mode) => mode.to_owned(),
            other => {
                return Err(invalid(
                    &format!("unknown permission mode {other:?}"),
                    &format!("use one of {}", PERMISSION_MODES.join(", ")),
                ));
            }
        };
        if mode == "bypassPermissions" && root && !sandbox(environment) {
            return Err(bypass_as_root());
        }
        // The control plane checks agent and task each by itself.
        if let Some(Problem { field, index, message }) = claude.problem() {
            let entry = index.map(|index| format!("[{index}]")).unwrap_or_default();
            return Err(invalid(&format!("runtime.claude.{field}{entry} {message}"), ""));
        }
        let schema = claude
            .json_schema
            .as_ref()
            .or(spec.result_schema.as_deref())
            .map(|schema| structs::to_json(schema).to_string());
        if schema.as_ref().is_some_and(|text| text.len() > MAX_ARGUMENT_BYTES) {
            return Err(invalid("the JSON schema is too long", "keep it below 120 KiB"));
        }
        let agents = claude.agents.as_ref().map(|agents| structs::to_json(agents).to_string());
        let mcp = claude
            .mcp_servers
            .as_ref()
            .map(|servers| serde_json::json!({"mcpServers": structs::to_json(servers)}).to_string());
        let limits = spec.limits.unwrap_or_default();
        Ok(Self {
            mode,
            policy: claude.permission_policy(),
            max_turns: limits.max_turns.into(),
            budget_micro_usd: limits.budget_micro_usd,
            schema,
            agents,
            mcp,
            keep: keeps(assign),
            resume: Some(assign.resume_session.clone()).filter(|session| !session.is_empty()),
            claude,
        })
    }

    /// Returns the options of a round after others: limits are those of all of them. The CLI counts each process from zero.
    pub(super) fn without(mut self, used: Option<&Usage>) -> Result<Self, Failure> {
        let Some(used) = used else { return Ok(self) };
        for (name, limit, used) in [
            ("budget", &mut self.budget_micro_usd, used.cost_micro_usd),
            ("turns", &mut self.max_turns, i64::from(used.turns)),
        ] {
            if *limit > 0 && *limit <= used {
                let text = format!("the limit of {name} was reached before the work was done");
                return Err(crate::report::failure(FailureClass::Budget, text));
            }
            *limit = (*limit - used).max(0);
        }
        Ok(self)
    }
}

/// Whether the workspace outlives the attempt.
pub(super) fn keeps(assign: &Assign) -> bool {
    let workspace = assign.spec.as_ref().and_then(|spec| spec.workspace.as_ref());
    workspace.is_some_and(|workspace| workspace.mode() == WorkspaceMode::Keep)
}

fn sandbox(environment: &Environment) -> bool {
    environment.0.get("IS_SANDBOX").is_some_and(|value| value == "1")
}

/// Failure for a mode that the CLI refuses as root; detected before the CLI is started.
pub(super) fn bypass_as_root() -> Failure {
    invalid(
        "Claude Code refuses the permission mode bypassPermissions when run as root",
        "run the worker as another user, or set IS_SANDBOX=1 in the agent's environment if it runs in a disposable sandbox",
    )
}

pub(super) fn invalid(message: &str, hint: &str) -> Failure {
    Failure { hint: hint.to_owned(), ..crate::report::failure(FailureClass::Invalid, message) }
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{Limits, Runtime, TaskSpec, Workspace};

    use super::*;

    fn assign(claude: ClaudeRuntime) -> Assign {
        let runtime = Runtime { kind: Some(runtime::Kind::Claude(claude)) };
        Assign { spec: Some(TaskSpec { runtime: Some(runtime), ..TaskSpec::default() }), ..Assign::default() }
    }

    fn mode(mode: &str) -> Assign {
        assign(ClaudeRuntime { permission_mode: mode.to_owned(), ..ClaudeRuntime::default() })
    }

    #[test]
    fn permission_modes_are_validated() {
        let none = Environment::default();
        assert_eq!(Options::new(&mode(""), &none, true).unwrap().mode, "acceptEdits");
        assert_eq!(Options::new(&mode("plan"), &none, true).unwrap().mode, "plan");
        assert_eq!(Options::new(&mode("yolo"), &none, true).unwrap_err().class(), FailureClass::Invalid);
    }

    #[test]
    fn bypass_needs_non_root_user_or_sandbox() {
        let none = Environment::default();
        let sandbox = Environment([("IS_SANDBOX".to_owned(), "1".to_owned())].into());
        let failure = Options::new(&mode("bypassPermissions"), &none, true).unwrap_err();
        assert_eq!(failure.class(), FailureClass::Invalid);
        assert!(failure.hint.contains("IS_SANDBOX"));
        Options::new(&mode("bypassPermissions"), &none, false).unwrap();
        Options::new(&mode("bypassPermissions"), &sandbox, true).unwrap();
    }

    #[test]
    fn limits_are_those_of_all_rounds() {
        let options = |budget_micro_usd, max_turns| {
            let limits = Limits { budget_micro_usd, max_turns, ..Limits::default() };
            let spec = TaskSpec { limits: Some(limits), ..TaskSpec::default() };
            let assign = Assign { spec: Some(spec), ..Assign::default() };
            Options::new(&assign, &Environment::default(), false).unwrap()
        };
        let used = Usage { cost_micro_usd: 40, turns: 4, ..Usage::default() };
        let left = options(100, 10).without(Some(&used)).unwrap();
        assert_eq!((left.budget_micro_usd, left.max_turns), (60, 6));
        let none = options(0, 0).without(Some(&used)).unwrap();
        assert_eq!((none.budget_micro_usd, none.max_turns), (0, 0), "no limit stays none");
        for (budget, turns) in [(40, 0), (0, 4)] {
            let failure = options(budget, turns).without(Some(&used)).unwrap_err();
            assert_eq!(failure.class(), FailureClass::Budget);
        }
    }

    #[test]
    fn defaults_and_task_options() {
        let none = Environment::default();
        let options = Options::new(&Assign::default(), &none, true).unwrap();
        assert!(!options.keep && options.resume.is_none() && options.schema.is_none());
        let mut assign = assign(ClaudeRuntime::default());
        assign.resume_session = "s".to_owned();
        assign.spec.as_mut().unwrap().workspace =
            Some(Workspace { mode: WorkspaceMode::Keep.into(), ..Workspace::default() });
        let options = Options::new(&assign, &none, true).unwrap();
        assert!(options.keep);
        assert_eq!(options.resume.as_deref(), Some("s"));
    }
}
