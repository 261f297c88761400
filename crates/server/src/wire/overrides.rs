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
mod tests;
