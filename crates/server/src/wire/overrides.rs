//! What a task may set besides its work, as its agent decides (`AgentSpec.overrides`). The author of a task is not always
//! the owner of the agent, its tools and its secrets.

mod claude;
mod credentials;

use rota_proto::v1::{self, runtime::Kind};

/// A field of a task that its agent does not let tasks set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.why())]
pub(crate) struct Forbidden {
    /// Path within the task's spec.
    pub(crate) field: &'static str,
    /// What the agent would have to let its tasks set; `None` if it cannot let them set this field.
    needed: Option<v1::Overrides>,
}

impl Forbidden {
    /// A task names a model for later attempts, and its agent has none.
    const MODELS: Self = Self { field: "retry.escalate", needed: None };

    fn why(&self) -> String {
        if *self == Self::MODELS {
            return "retry.escalate names a model, and the runtime of the agent has none".to_owned();
        }
        format!("the agent does not let tasks set {}", self.field)
    }

    /// Returns what the user can change to create the task.
    pub(crate) fn hint(&self) -> String {
        if *self == Self::MODELS {
            return "name an agent that has the later attempts, as agent/NAME".to_owned();
        }
        let needed = match self.needed {
            Some(v1::Overrides::Limits) => "Limits",
            Some(_) => "All",
            None => return format!("remove {} from the task, or set it in the agent", self.field),
        };
        format!(
            "remove {} from the task, set it in the agent, or set `overrides: {needed}` in the agent",
            self.field
        )
    }
}

/// Checks a task against its agent. Names every field: a new one is decided on here.
pub(crate) fn check(agent: &v1::AgentSpec, task: &v1::TaskSpec) -> Result<(), Forbidden> {
    let allowed = agent.overrides();
    let base = agent.runtime.as_ref().and_then(|runtime| runtime.kind.as_ref());
    let own = task.runtime.as_ref().and_then(|runtime| runtime.kind.as_ref());
    if let Some(Kind::Claude(own)) = own {
        claude::agent_only(base, own)?;
    }
    let mut escalates = task.retry.iter().flat_map(v1::RetryPolicy::escalated_models).peekable();
    // Only Claude has a model that could be another one.
    if escalates.peek().is_some() && !matches!(base, None | Some(Kind::Claude(_))) {
        return Err(Forbidden::MODELS);
    }
    if allowed == v1::Overrides::All {
        return Ok(());
    }
    let v1::TaskSpec {
        // Its work, and where and when it is done.
        title: _,
        prompt: _,
        input: _,
        inputs: _,
        target: _,
        depends_on: _,
        // By `check_source`, which knows whose task it is.
        continue_from: _,
        fork: _,
        thread: _,
        ttl_after_finished: _,
        start_time: _,
        owner: _,
        parent_task: _,
        // More care than the agent asks for.
        strict: _,
        isolation: _,
        result_schema: _,
        kind: _,
        prompt_frame: _,
        // Fewer of the agent's secrets.
        agent_secrets: _,
        limits,
        retry,
        environment,
        secrets,
        secret_names,
        workspace: own_workspace,
        runtime: _,
        setup,
        done_when,
    } = task;
    if allowed == v1::Overrides::None {
        let sets_limits = limits.is_some_and(|limits| limits != v1::Limits::default());
        forbid("limits", sets_limits, v1::Overrides::Limits)?;
        let sets_retry = retry.as_ref().is_some_and(|retry| *retry != v1::RetryPolicy::default());
        forbid("retry", sets_retry, v1::Overrides::Limits)?;
    }
    if let Some(own) = own {
        runtime(base, own)?;
    }
    let model = if let Some(Kind::Claude(claude)) = base { claude.model.as_str() } else { "" };
    let others = !model.is_empty() && escalates.any(|other| other != model);
    forbid_unless_all("retry.escalate", others)?;
    // Who chooses the repository would choose the code that runs.
    let runs_project_code = matches!(base, Some(Kind::Claude(claude)) if claude.runs_project_code());
    let changes = own_workspace.is_some() && *own_workspace != agent.workspace;
    forbid_unless_all("workspace", runs_project_code && changes)?;
    workspace(agent.workspace.as_ref(), own_workspace.as_ref())?;
    credentials::check(agent, task)?;
    // Variables decide what a program loads, which server it calls and with which key.
    let bring = brings_program(base);
    forbid_unless_all("environment", !environment.is_empty() && !bring)?;
    let secrets = !secrets.is_empty() || !secret_names.is_empty();
    forbid_unless_all("secrets", secrets && !bring)?;
    // Programs, which may choose among the secrets.
    forbid_unless_all("setup", !setup.is_empty() && !bring)?;
    forbid_unless_all("done_when", done_when.is_some() && !bring)
}

/// Checks what a task continues against its agent: conversation and files of another agent's task are an author's choice, of which
/// the agent would run commands, hooks and tests.
pub(crate) fn check_source(agent: &v1::AgentSpec, of_other_agent: bool) -> Result<(), Forbidden> {
    forbid_unless_all("continue_from", of_other_agent && agent.overrides() != v1::Overrides::All)
}

fn forbid(field: &'static str, sets: bool, needed: v1::Overrides) -> Result<(), Forbidden> {
    if sets { Err(Forbidden { field, needed: Some(needed) }) } else { Ok(()) }
}

fn forbid_unless_all(field: &'static str, sets: bool) -> Result<(), Forbidden> {
    forbid(field, sets, v1::Overrides::All)
}

/// Whether tasks bring the program that the agent executes, which is then their work.
fn brings_program(agent: Option<&Kind>) -> bool {
    match agent {
        Some(Kind::Command(command)) => command.argv.is_empty() && command.shell.is_empty(),
        Some(Kind::Scripted(scripted)) => scripted.steps.is_empty(),
        Some(Kind::External(_)) => true,
        Some(Kind::Claude(_)) | None => false,
    }
}

/// A task may fill in what its agent leaves open, as far as that gives it no other powers.
fn runtime(agent: Option<&Kind>, task: &Kind) -> Result<(), Forbidden> {
    match (agent, task) {
        (Some(Kind::Claude(agent)), Kind::Claude(task)) => claude::check(agent, task),
        (Some(Kind::Command(agent)), Kind::Command(task)) => {
            let v1::CommandRuntime { argv, shell, stdin, retry_exit_codes, fatal_exit_codes } = task;
            let replaces = !argv.is_empty() || !shell.is_empty();
            let fixed = !agent.argv.is_empty() || !agent.shell.is_empty();
            forbid_unless_all("runtime.command", replaces && fixed)?;
            let fixed = agent.stdin.is_some();
            forbid_unless_all("runtime.command.stdin", stdin.is_some() && fixed)?;
            let codes = |own: &[i32], base: &[i32]| !own.is_empty() && !base.is_empty() && own != base;
            forbid_unless_all(
                "runtime.command.retry_exit_codes",
                codes(retry_exit_codes, &agent.retry_exit_codes),
            )?;
            forbid_unless_all(
                "runtime.command.fatal_exit_codes",
                codes(fatal_exit_codes, &agent.fatal_exit_codes),
            )
        }
        (Some(Kind::Scripted(agent)), Kind::Scripted(task)) => {
            let v1::ScriptedRuntime { steps, seed } = task;
            let fixed = !agent.steps.is_empty();
            forbid_unless_all("runtime.scripted", (!steps.is_empty() || *seed != 0) && fixed)
        }
        (Some(Kind::External(agent)), Kind::External(task)) => {
            let v1::ExternalRuntime { options } = task;
            forbid_unless_all("runtime.external", options.is_some() && agent.options.is_some())
        }
        _ => forbid_unless_all("runtime", true),
    }
}

/// A task may choose a fresh or kept directory and what is cloned into it, unless its agent does. Existing directories
/// belong to the machine, and so do repositories in them.
fn workspace(agent: Option<&v1::Workspace>, task: Option<&v1::Workspace>) -> Result<(), Forbidden> {
    let Some(task) = task else { return Ok(()) };
    forbid_unless_all("workspace", agent.is_some_and(|agent| agent != task))?;
    let existing = agent.is_none() && task.mode() == v1::WorkspaceMode::InPlace;
    forbid_unless_all("workspace.mode", existing)?;
    let local = |git: &v1::GitSource| rota_forge::local_path(&git.url).is_some();
    let local = agent.is_none() && task.git.as_ref().is_some_and(local);
    forbid_unless_all("workspace.git.url", local)
}

#[cfg(test)]
mod tests {
    use v1::Overrides::{All, Limits, None as Nothing, Unspecified};

    use super::*;

    fn claude_kind(change: impl FnOnce(&mut v1::ClaudeRuntime)) -> v1::Runtime {
        let mut claude = v1::ClaudeRuntime::default();
        change(&mut claude);
        v1::Runtime { kind: Some(Kind::Claude(claude)) }
    }

    fn shell(line: &str) -> v1::Runtime {
        v1::Runtime {
            kind: Some(Kind::Command(v1::CommandRuntime { shell: line.into(), ..Default::default() })),
        }
    }

    fn agent(runtime: v1::Runtime, overrides: v1::Overrides) -> v1::AgentSpec {
        v1::AgentSpec { runtime: Some(runtime), overrides: overrides.into(), ..Default::default() }
    }

    fn task(change: impl FnOnce(&mut v1::TaskSpec)) -> v1::TaskSpec {
        let mut task = v1::TaskSpec { prompt: "work".into(), ..Default::default() };
        change(&mut task);
        task
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    /// Whether tasks may set something: for `none`, `limits`, unset and `all`.
    fn allowed(runtime: &v1::Runtime, task: &v1::TaskSpec) -> [bool; 4] {
        [Nothing, Limits, Unspecified, All]
            .map(|overrides| check(&agent(runtime.clone(), overrides), task).is_ok())
    }

    const ALWAYS: [bool; 4] = [true; 4];
    const WITH_LIMITS: [bool; 4] = [false, true, true, true];
    const WITH_ALL: [bool; 4] = [false, false, false, true];

    #[test]
    fn limits_and_retries_are_limits() {
        let claude = claude_kind(|_| ());
        assert_eq!(allowed(&claude, &task(|_| ())), ALWAYS);
        let limits = v1::Limits { max_turns: 9, ..Default::default() };
        assert_eq!(allowed(&claude, &task(|task| task.limits = Some(limits))), WITH_LIMITS);
        let retry = v1::RetryPolicy { max_attempts: 9, ..Default::default() };
        assert_eq!(allowed(&claude, &task(|task| task.retry = Some(retry))), WITH_LIMITS);
        // What manifests convert to when nothing is set.
        assert_eq!(allowed(&claude, &task(|task| task.limits = Some(v1::Limits::default()))), ALWAYS);
    }

    #[test]
    fn another_runtime_takes_all() {
        let claude = claude_kind(|claude| claude.tools = words(&["Read"]));
        assert_eq!(allowed(&claude, &task(|task| task.runtime = Some(shell("id")))), WITH_ALL);
        let fixed = shell("make test");
        assert_eq!(allowed(&fixed, &task(|task| task.runtime = Some(shell("id")))), WITH_ALL);
        let open = shell("");
        assert_eq!(allowed(&open, &task(|task| task.runtime = Some(shell("id")))), ALWAYS);
    }

    #[test]
    fn seed_belongs_to_its_steps() {
        let scripted = |steps: usize, seed| {
            let steps = vec![v1::ScriptStep::default(); steps];
            v1::Runtime { kind: Some(Kind::Scripted(v1::ScriptedRuntime { steps, seed })) }
        };
        let seeds = task(|task| task.runtime = Some(scripted(0, 7)));
        assert_eq!(allowed(&scripted(1, 0), &seeds), WITH_ALL);
        assert_eq!(allowed(&scripted(0, 0), &seeds), ALWAYS);
    }

    #[test]
    fn tools_only_become_fewer() {
        let base = claude_kind(|claude| {
            claude.tools = words(&["Read", "Grep"]);
            claude.disallowed_tools = words(&["Bash"]);
            claude.permission_mode = "plan".into();
        });
        let with = |change: fn(&mut v1::ClaudeRuntime)| {
            allowed(&base, &task(|task| task.runtime = Some(claude_kind(change))))
        };
        assert_eq!(with(|own| own.tools = words(&["Read"])), ALWAYS);
        assert_eq!(with(|own| own.tools = words(&["Read", "Bash"])), WITH_ALL);
        assert_eq!(with(|own| own.disallowed_tools = words(&["Bash", "Grep"])), ALWAYS);
        assert_eq!(with(|own| own.disallowed_tools = words(&["Grep"])), WITH_ALL);
        assert_eq!(with(|own| own.allowed_tools = words(&["Bash(*)"])), WITH_ALL);
        assert_eq!(with(|own| own.permission_mode = "bypassPermissions".into()), WITH_ALL);
        assert_eq!(with(|own| own.permission_policy = v1::PermissionPolicy::Allow.into()), WITH_ALL);
        assert_eq!(with(|own| own.mcp_servers = Some(Default::default())), WITH_ALL);
        assert_eq!(with(|own| own.program = "/tmp/claude".into()), WITH_ALL);
        assert_eq!(with(|own| own.system_prompt = "Obey.".into()), WITH_ALL);
        assert_eq!(with(|own| own.append_system_prompt = "Obey.".into()), WITH_ALL);
        assert_eq!(with(|own| own.model = "opus".into()), ALWAYS);
        let fixed = claude_kind(|claude| claude.model = "haiku".into());
        let own = task(|task| task.runtime = Some(claude_kind(|own| own.model = "opus".into())));
        assert_eq!(allowed(&fixed, &own), WITH_ALL);
    }

    #[test]
    fn trust_in_repositories_is_the_agents_alone() {
        const NEVER: [bool; 4] = [false; 4];
        let base = claude_kind(|claude| claude.setting_sources = words(&["project"]));
        let with = |change: fn(&mut v1::ClaudeRuntime)| {
            allowed(&base, &task(|task| task.runtime = Some(claude_kind(change))))
        };
        assert_eq!(with(|own| own.setting_sources = words(&["project"])), ALWAYS);
        assert_eq!(with(|own| own.project_hooks = true), NEVER);
        assert_eq!(with(|own| own.project_mcp_servers = true), NEVER);
        assert_eq!(with(|own| own.extra_args = words(&["--brief"])), NEVER);
        let own = claude_kind(|own| own.setting_sources = words(&["project"]));
        let own = task(|task| task.runtime = Some(own));
        assert_eq!(allowed(&claude_kind(|_| ()), &own), NEVER);
        // Not by another runtime either.
        assert_eq!(allowed(&shell(""), &own), NEVER);
        let error = check(&agent(shell(""), All), &own).unwrap_err();
        assert_eq!(
            error.hint(),
            "remove runtime.claude.setting_sources from the task, or set it in the agent"
        );
        assert_eq!(with(|own| own.settings = Some(Default::default())), WITH_ALL);
        assert_eq!(with(|own| own.plugin_dirs = words(&["/opt/plugin"])), WITH_ALL);
        assert_eq!(with(|own| own.effort = "max".into()), ALWAYS);
    }

    #[test]
    fn repositories_on_the_workers_machine_are_existing_directories() {
        let cloning = |url: &str| {
            let git = v1::GitSource { url: url.into(), ..Default::default() };
            Some(v1::Workspace { git: Some(git), ..Default::default() })
        };
        let claude = claude_kind(|_| ());
        let with = |url| allowed(&claude, &task(|task| task.workspace = cloning(url)));
        for url in ["https://git.example/x.git", "git@git.example:x.git", "ssh://git@git.example/x.git"] {
            assert_eq!(with(url), ALWAYS, "{url}");
        }
        for url in ["/home/dev/private", "file:///home/dev/private", "file://home/dev/private", "../private"]
        {
            assert_eq!(with(url), WITH_ALL, "{url}");
            // The agent's own, which its tasks repeat.
            let own = v1::AgentSpec { workspace: cloning(url), ..agent(claude.clone(), Limits) };
            assert_eq!(check(&own, &task(|task| task.workspace = cloning(url))), Ok(()));
        }
    }

    #[test]
    fn repositories_whose_code_runs_are_the_agents() {
        let elsewhere = task(|task| {
            let git = v1::GitSource { url: "https://elsewhere/x.git".into(), ..Default::default() };
            task.workspace = Some(v1::Workspace { git: Some(git), ..Default::default() });
        });
        let loads = |hooks| {
            claude_kind(move |claude| {
                claude.setting_sources = words(&["project"]);
                claude.project_hooks = hooks;
            })
        };
        assert_eq!(allowed(&loads(false), &elsewhere), ALWAYS);
        assert_eq!(allowed(&loads(true), &elsewhere), WITH_ALL);
    }

    #[test]
    fn variables_belong_to_the_owner_of_the_program() {
        let sets = task(|task| {
            task.environment.insert("ANTHROPIC_BASE_URL".into(), "https://elsewhere".into());
        });
        let sealed = task(|task| task.secret_names = words(&["LD_PRELOAD"]));
        for task in [sets, sealed] {
            assert_eq!(allowed(&claude_kind(|_| ()), &task), WITH_ALL);
            assert_eq!(allowed(&shell("make test"), &task), WITH_ALL);
            assert_eq!(allowed(&shell(""), &task), ALWAYS);
        }
    }

    #[test]
    fn commands_belong_to_the_owner_of_the_program() {
        let command = v1::WorkspaceCommand { argv: words(&["env"]), ..Default::default() };
        let done_when = v1::DoneWhen { commands: vec![command.clone()], ..Default::default() };
        for task in [
            task(|task| task.setup = vec![command.clone()]),
            task(|task| task.done_when = Some(done_when.clone())),
        ] {
            assert_eq!(allowed(&claude_kind(|_| ()), &task), WITH_ALL);
            assert_eq!(allowed(&shell("make test"), &task), WITH_ALL);
            assert_eq!(allowed(&shell(""), &task), ALWAYS);
        }
    }

    #[test]
    fn existing_directories_take_all() {
        let at = |mode: v1::WorkspaceMode| {
            let workspace = v1::Workspace { mode: mode.into(), path: "/var".into(), ..Default::default() };
            task(|task| task.workspace = Some(workspace))
        };
        let open = claude_kind(|_| ());
        assert_eq!(allowed(&open, &at(v1::WorkspaceMode::InPlace)), WITH_ALL);
        assert_eq!(allowed(&open, &at(v1::WorkspaceMode::Keep)), ALWAYS);
        let mut fixed = agent(open, Limits);
        fixed.workspace = Some(v1::Workspace { mode: v1::WorkspaceMode::Fresh.into(), ..Default::default() });
        assert!(check(&fixed, &at(v1::WorkspaceMode::Keep)).is_err());
    }

    #[test]
    fn the_hint_names_what_is_needed() {
        let error = check(&agent(shell("make"), Limits), &task(|task| task.runtime = Some(shell("id"))));
        let error = error.unwrap_err();
        assert_eq!(error.to_string(), "the agent does not let tasks set runtime.command");
        assert!(error.hint().ends_with("or set `overrides: All` in the agent"), "{}", error.hint());
    }
}
