//! Completion of a task's spec before it is sent to a worker: the task's fields, then its agent's, then defaults.

use std::time::Duration;

use rota_core::task::Task;
use rota_proto::names;
use rota_proto::v1::{self, runtime::Kind};

use super::time;

/// Silence timeout of Claude agents when none is set.
const CLAUDE_SILENCE_TIMEOUT: Duration = Duration::from_secs(600);

/// Completes a task's spec from its record and its agent's spec. Afterwards its runtime, limits, workspace and environment
/// are complete.
pub(crate) fn complete(spec: &mut v1::TaskSpec, agent: &v1::AgentSpec, task: &Task) {
    let of_agent = permission_rules(agent, spec.runtime.as_ref());
    spec.runtime = Some(runtime(agent.runtime.clone().unwrap_or_default(), spec.runtime.take()));
    if let Some(Kind::Claude(claude)) = spec.runtime.as_mut().and_then(|runtime| runtime.kind.as_mut()) {
        if let Some(model) = escalated(spec.retry.as_ref(), task) {
            claude.model.clone_from(model);
        }
        for rule in of_agent.iter().chain(&task.granted) {
            if !claude.allowed_tools.contains(rule) {
                claude.allowed_tools.push(rule.clone());
            }
        }
    }
    if spec.workspace.is_none() {
        spec.workspace = Some(agent.workspace.clone().unwrap_or_default());
    }
    for (name, value) in &agent.environment {
        if !spec.environment.contains_key(name) {
            spec.environment.insert(name.clone(), value.clone());
        }
    }
    spec.setup = agent.setup.iter().cloned().chain(std::mem::take(&mut spec.setup)).collect();
    spec.done_when = done_when(agent.done_when.clone(), spec.done_when.take());
    let defaults = agent.default_limits.unwrap_or_default();
    let limits = spec.limits.get_or_insert_default();
    let claude = matches!(spec.runtime.as_ref().and_then(|r| r.kind.as_ref()), Some(Kind::Claude(_)));
    limits.timeout = Some(time::duration(task.timeout()));
    limits.cancel_grace = Some(time::duration(task.cancel_grace()));
    let silence = || claude.then(|| time::duration(CLAUDE_SILENCE_TIMEOUT));
    limits.silence_timeout = limits.silence_timeout.take().or(defaults.silence_timeout).or_else(silence);
    if limits.max_turns == 0 {
        limits.max_turns = defaults.max_turns;
    }
    if limits.budget_micro_usd == 0 {
        limits.budget_micro_usd = defaults.budget_micro_usd;
    }
}

/// Returns the model that the task asks for after attempts that failed by their work. Where it asks for an agent, the model is
/// that agent's.
fn escalated<'a>(retry: Option<&'a v1::RetryPolicy>, task: &Task) -> Option<&'a String> {
    let models = &retry?.escalate;
    let last = usize::try_from(task.own_failures).ok()?.min(models.len());
    models.get(last.checked_sub(1)?).filter(|entry| names::escalated_agent(entry).is_none())
}

/// Returns the rules that people have allowed for the agent. None for a task that allows itself less than the agent does, or has
/// a runtime of its own.
fn permission_rules<'a>(agent: &'a v1::AgentSpec, own: Option<&v1::Runtime>) -> &'a [String] {
    let is_claude = matches!(&agent.runtime, Some(v1::Runtime { kind: Some(Kind::Claude(_)) }));
    let sets_no_tools = match own.and_then(|own| own.kind.as_ref()) {
        None => true,
        Some(Kind::Claude(own)) => own.allowed_tools.is_empty(),
        Some(_) => false,
    };
    if is_claude && sets_no_tools { &agent.permission_rules } else { &[] }
}

/// Returns what holds for both: a task can ask for more than its agent does, never for less.
fn done_when(agent: Option<v1::DoneWhen>, task: Option<v1::DoneWhen>) -> Option<v1::DoneWhen> {
    let (Some(agent), Some(task)) = (&agent, &task) else { return agent.or(task) };
    let both = |a: &[String], b: &[String]| a.iter().chain(b).cloned().collect();
    Some(v1::DoneWhen {
        commands: agent.commands.iter().chain(&task.commands).cloned().collect(),
        max_rounds: task.max_rounds.or(agent.max_rounds),
        pinned_files: both(&agent.pinned_files, &task.pinned_files),
    })
}

/// Overrides the agent's runtime with the fields that the task sets. If their kinds differ, the task's is used as it is, and
/// the worker rejects what it cannot run.
fn runtime(agent: v1::Runtime, task: Option<v1::Runtime>) -> v1::Runtime {
    let kind = match (agent.kind, task.and_then(|task| task.kind)) {
        (kind, None) | (None, kind) => kind,
        (Some(Kind::Claude(base)), Some(Kind::Claude(own))) => Some(Kind::Claude(claude(base, own))),
        (Some(Kind::Command(base)), Some(Kind::Command(own))) => Some(Kind::Command(command(base, own))),
        (Some(Kind::Scripted(base)), Some(Kind::Scripted(own))) => Some(Kind::Scripted(scripted(base, own))),
        (Some(Kind::External(base)), Some(Kind::External(own))) => {
            Some(Kind::External(v1::ExternalRuntime { options: own.options.or(base.options) }))
        }
        (Some(_), Some(own)) => Some(own),
    };
    v1::Runtime { kind }
}

fn text(base: &mut String, own: String) {
    if !own.is_empty() {
        *base = own;
    }
}

fn list<T>(base: &mut Vec<T>, own: Vec<T>) {
    if !own.is_empty() {
        *base = own;
    }
}

fn claude(mut base: v1::ClaudeRuntime, own: v1::ClaudeRuntime) -> v1::ClaudeRuntime {
    text(&mut base.model, own.model);
    text(&mut base.fallback_model, own.fallback_model);
    list(&mut base.tools, own.tools);
    list(&mut base.allowed_tools, own.allowed_tools);
    list(&mut base.disallowed_tools, own.disallowed_tools);
    text(&mut base.permission_mode, own.permission_mode);
    text(&mut base.system_prompt, own.system_prompt);
    text(&mut base.append_system_prompt, own.append_system_prompt);
    base.mcp_servers = own.mcp_servers.or(base.mcp_servers);
    base.json_schema = own.json_schema.or(base.json_schema);
    if own.permission_policy != 0 {
        base.permission_policy = own.permission_policy;
    }
    text(&mut base.program, own.program);
    base.settings = own.settings.or(base.settings);
    base.agents = own.agents.or(base.agents);
    list(&mut base.add_dirs, own.add_dirs);
    text(&mut base.effort, own.effort);
    list(&mut base.betas, own.betas);
    list(&mut base.plugin_dirs, own.plugin_dirs);
    base.fail_on_denied_tools |= own.fail_on_denied_tools;
    // The others are the agent's alone: a task that sets them is refused.
    base
}

fn command(mut base: v1::CommandRuntime, own: v1::CommandRuntime) -> v1::CommandRuntime {
    // A program of the task replaces the agent's, whether it is given as arguments or as a shell script.
    if !own.argv.is_empty() || !own.shell.is_empty() {
        base.argv = own.argv;
        base.shell = own.shell;
    }
    base.stdin = own.stdin.or(base.stdin);
    list(&mut base.retry_exit_codes, own.retry_exit_codes);
    list(&mut base.fatal_exit_codes, own.fatal_exit_codes);
    base
}

fn scripted(mut base: v1::ScriptedRuntime, own: v1::ScriptedRuntime) -> v1::ScriptedRuntime {
    list(&mut base.steps, own.steps);
    if own.seed != 0 {
        base.seed = own.seed;
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_ask_for_more_than_their_agent() {
        let done = |argv: &str, max_rounds, pinned: &str| {
            let command = v1::WorkspaceCommand { argv: vec![argv.to_owned()], ..Default::default() };
            v1::DoneWhen { commands: vec![command], max_rounds, pinned_files: vec![pinned.to_owned()] }
        };
        let both = done_when(Some(done("a", Some(1), "x")), Some(done("b", None, "y"))).unwrap();
        let argv: Vec<_> = both.commands.iter().map(|command| command.argv.join(" ")).collect();
        assert_eq!(
            (argv.join(","), both.max_rounds, both.pinned_files.join(",")),
            ("a,b".into(), Some(1), "x,y".into())
        );
        assert_eq!(done_when(None, Some(done("b", None, "y"))).unwrap().commands.len(), 1);
        assert_eq!(done_when(Some(done("a", None, "x")), None).unwrap().commands.len(), 1);
    }

    #[test]
    fn rules_of_agents_widen_no_task_that_allows_less() {
        let claude = |allowed: &[&str]| {
            let allowed_tools = allowed.iter().map(ToString::to_string).collect();
            v1::Runtime {
                kind: Some(Kind::Claude(v1::ClaudeRuntime { allowed_tools, ..Default::default() })),
            }
        };
        let permission_rules_ = vec!["Bash(make *)".to_owned()];
        let runtime = Some(claude(&["Read", "Glob"]));
        let agent = v1::AgentSpec { runtime, permission_rules: permission_rules_, ..Default::default() };
        assert_eq!(permission_rules(&agent, None).len(), 1);
        assert_eq!(permission_rules(&agent, Some(&claude(&[]))).len(), 1);
        assert!(permission_rules(&agent, Some(&claude(&["Read"]))).is_empty());
        let other = v1::Runtime { kind: Some(Kind::Command(v1::CommandRuntime::default())) };
        assert!(permission_rules(&agent, Some(&other)).is_empty());
    }

    #[test]
    fn task_without_options_keeps_those_of_an_external_agent() {
        let external = |options| v1::Runtime { kind: Some(Kind::External(v1::ExternalRuntime { options })) };
        let options = Some(pbjson_types::Struct::default());
        assert_eq!(runtime(external(options.clone()), Some(external(None))), external(options));
    }
}
