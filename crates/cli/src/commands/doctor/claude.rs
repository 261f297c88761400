//! Checks of the agents that run the Claude Code CLI.

use std::collections::{BTreeMap, BTreeSet};

use rota_proto::claude::Provider;
use rota_proto::names;
use rota_proto::v1::{Agent, Management, Worker, runtime};

use super::Check;

const MAX_CHECKS: usize = 10;

/// Returns the Claude CLI programs of agents, except of those with a worker that has found its own.
pub(super) fn programs(agents: &[Agent], workers: &[Worker]) -> Vec<String> {
    let has_program = |agent: &str| {
        let mut theirs = workers.iter().filter(|worker| worker.agent == agent);
        theirs.any(|worker| !worker.runtime_version.is_empty())
    };
    let programs = agents.iter().filter_map(|agent| {
        let spec = agent.spec.as_ref()?;
        let ours = spec.management() != Management::External && !has_program(names::last(&agent.name));
        match spec.runtime.as_ref()?.kind.as_ref()? {
            runtime::Kind::Claude(claude) if ours => Some(claude.program.clone()),
            _ => None,
        }
    });
    programs.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Reports agents whose variables choose a provider, and lack what its calls need.
pub(super) fn incomplete_providers(agents: &[Agent]) -> Vec<Check> {
    let incomplete = agents.iter().filter_map(|agent| {
        let spec = agent.spec.as_ref()?;
        let runtime::Kind::Claude(_) = spec.runtime.as_ref()?.kind.as_ref()? else { return None };
        let is_set = |name: &str| spec.environment.contains_key(name);
        let provider = Provider::of(|name| spec.environment.get(name).map(String::as_str));
        let missing = provider.needs().iter().find(|names| !names.iter().any(|name| is_set(name)))?;
        let message = format!(
            "agent {} calls the model through {}, and its environment has no {}",
            names::last(&agent.name),
            provider.name(),
            missing.join(" or ")
        );
        let hint =
            format!("set it in the agent's environment, unless it is among its secrets, which are not visible here; its credentials are {}", provider.credentials());
        Some(Check::warn("claude", message, hint))
    });
    incomplete.take(MAX_CHECKS).collect()
}

/// Reports versions of the CLI that lack something that workers of agents with Claude use, once each.
pub(super) fn incomplete_programs(agents: &[Agent], workers: &[Worker]) -> Vec<Check> {
    let runs_claude = |agent: &&Agent| {
        let kind = agent.spec.as_ref().and_then(|spec| spec.runtime.as_ref()?.kind.as_ref());
        matches!(kind, Some(runtime::Kind::Claude(claude)) if claude.program.is_empty())
    };
    let agents: BTreeSet<_> =
        agents.iter().filter(runs_claude).map(|agent| names::last(&agent.name)).collect();
    let lacking = workers
        .iter()
        .filter(|worker| !worker.runtime_missing.is_empty() && agents.contains(worker.agent.as_str()));
    let by_version: BTreeMap<&str, &Worker> =
        lacking.map(|worker| (worker.runtime_version.as_str(), worker)).collect();
    let check = |(version, worker): (&str, &Worker)| {
        let message = format!(
            "Claude Code {version} of worker {} lacks {}",
            names::last(&worker.name),
            worker.runtime_missing.join("; ")
        );
        Check::warn(
            "claude",
            message,
            "use the version that this Rota was tested with, where attempts fail for it",
        )
    };
    by_version.into_iter().take(MAX_CHECKS).map(check).collect()
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{AgentSpec, ClaudeRuntime, CommandRuntime, Runtime};

    use super::*;

    #[test]
    fn parts_that_a_version_lacks_are_reported_once() {
        let agent = |name: &str, kind: runtime::Kind| Agent {
            name: format!("namespaces/default/agents/{name}"),
            spec: Some(AgentSpec { runtime: Some(Runtime { kind: Some(kind) }), ..Default::default() }),
            ..Default::default()
        };
        let agents = [
            agent("coder", runtime::Kind::Claude(ClaudeRuntime::default())),
            agent("shell", runtime::Kind::Command(CommandRuntime::default())),
        ];
        let worker = |version: &str, missing: &[&str]| Worker {
            agent: "coder".to_owned(),
            name: "namespaces/default/workers/one".to_owned(),
            runtime_version: version.to_owned(),
            runtime_missing: missing.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let lacks = ["the to-do list: progress is the last call of a tool"];
        let other = Worker { agent: "shell".to_owned(), ..worker("2.0", &lacks) };
        let workers = [worker("2.1", &lacks), worker("2.1", &lacks), worker("2.2", &[]), other];
        let found = incomplete_programs(&agents, &workers);
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("2.1 of worker one lacks the to-do list"), "{found:?}");
    }

    #[test]
    fn incomplete_providers_are_reported() {
        let checks = |variables: &[&str]| {
            let environment = variables.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
            let runtime = Runtime { kind: Some(runtime::Kind::Claude(ClaudeRuntime::default())) };
            let spec = AgentSpec { runtime: Some(runtime), environment, ..Default::default() };
            let name = "namespaces/default/agents/coder".to_owned();
            incomplete_providers(&[Agent { name, spec: Some(spec), ..Default::default() }])
        };
        assert!(checks(&[]).is_empty() && checks(&["CLAUDE_CODE_USE_BEDROCK", "AWS_REGION"]).is_empty());
        let found = checks(&["CLAUDE_CODE_USE_VERTEX", "CLOUD_ML_REGION"]);
        assert!(found[0].message.ends_with("has no ANTHROPIC_VERTEX_PROJECT_ID"), "{found:?}");
        assert_eq!(checks(&["CLAUDE_CODE_USE_FOUNDRY"]).len(), 1);
    }
}
