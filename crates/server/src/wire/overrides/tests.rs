//! Which fields of which agents tasks may override.

use v1::Overrides::{All, Limits, None as Nothing, Unspecified};

use super::*;

fn claude_kind(change: impl FnOnce(&mut v1::ClaudeRuntime)) -> v1::Runtime {
    let mut claude = v1::ClaudeRuntime::default();
    change(&mut claude);
    v1::Runtime { kind: Some(Kind::Claude(claude)) }
}

fn shell(line: &str) -> v1::Runtime {
    v1::Runtime { kind: Some(Kind::Command(v1::CommandRuntime { shell: line.into(), ..Default::default() })) }
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
    assert_eq!(error.hint(), "remove runtime.claude.setting_sources from the task, or set it in the agent");
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
    for url in ["/srv/private", "file:///srv/private", "file://srv/private", "../private"] {
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
