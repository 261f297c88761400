//! Validation of new tasks: a spec is checked, completed with defaults, and split into what the core knows and the rest.

use std::collections::BTreeSet;
use std::path::{Component, Path};
use std::time::Duration;

use prost::Message;
use rota_core::rank::Priority;
use rota_core::spending::MAX_LIMIT_MICRO_USD;
use rota_core::task::{Dependency, DependencyKey, DependencyState, Limits, OnFailure, Own, Task, Trace};
use rota_core::{AgentName, Namespace, TaskId, retry};
use rota_proto::v1;
use tonic::Status;

use super::kind::Asked;
use super::status::invalid;
use super::{check, failure, names, pull_request, schema, target, task, time};
use crate::seal::Secrets;

const MAX_DEPENDENCIES: usize = 256;
const MAX_ATTEMPTS: i32 = 100;
/// Models that a task may escalate to.
const MAX_ESCALATIONS: usize = 8;
/// Bytes of the name of such a model.
const MAX_MODEL: usize = 128;
const MAX_AGENT_SECRETS: usize = 32;
const MAX_GLOBS: usize = 64;
const MAX_GLOB: usize = 256;
const MAX_URL: usize = 2048;
const MAX_COMMANDS: usize = 16;
const MAX_ARGV: usize = 256;
const MAX_ARGUMENTS: usize = 64 << 10;
const MAX_COMMAND_TIME: Duration = Duration::from_hours(24);
const MAX_ROUNDS: i32 = 20;
const MAX_TTL: Duration = Duration::from_hours(365 * 24);

/// A validated task. Boxed, since the state of a creation holds it over waits, and is moved several times.
pub(crate) struct Checked {
    pub(crate) task: Box<Task>,
    /// The spec without its secrets, as it is stored.
    pub(crate) payload: Box<v1::TaskSpec>,
    pub(crate) secrets: Secrets,
    pub(crate) strict: bool,
}

/// Validates a task.
pub(crate) fn check(
    namespace: Namespace,
    id: TaskId,
    trace: Trace,
    given: v1::Task,
) -> Result<Checked, Status> {
    let mut spec = given.spec.ok_or_else(|| invalid("task.spec", "is required"))?;
    let at = |field: &str| format!("task.spec.{field}");
    check::length(&at("prompt"), &spec.prompt, check::MAX_PROMPT)?;
    check::length(&at("title"), &spec.title, check::MAX_TITLE)?;
    check::length(&at("owner"), &spec.owner, check::MAX_TITLE)?;
    check::environment(&at("environment"), &spec.environment)?;
    check::environment(&at("secrets"), &spec.secrets)?;
    check::runtime(&at("runtime"), spec.runtime.as_ref())?;
    if let Some(chosen) = &spec.agent_secrets {
        check::words(&at("agent_secrets.names"), &chosen.names, MAX_AGENT_SECRETS)?;
    }
    check::labels("task.labels", &given.labels)?;
    check::length(&at("input"), &input_text(&spec), check::MAX_PROMPT)?;
    workspace(spec.workspace.as_ref())?;
    let git = spec.workspace.as_ref().and_then(|workspace| workspace.git.as_ref());
    let from = git.map_or("", |git| git.ref_from.as_str());
    if !from.is_empty() && !spec.depends_on.iter().any(|dependency| dependency.task == from) {
        return Err(invalid(at("workspace.git.ref_from"), "must be a task of depends_on"));
    }
    commands(&at("setup"), &spec.setup)?;
    done_when(&at("done_when"), spec.done_when.as_ref())?;
    result_schema(&at("result_schema"), spec.result_schema.as_deref())?;

    let parent = match spec.parent_task.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| invalid(at("parent_task"), "must be a task's id"))?),
    };
    let alias = match given.alias.as_str() {
        "" => None,
        alias => Some(names::alias("task.alias", alias)?),
    };
    let thread = match spec.thread.as_str() {
        "" => None,
        thread => Some(names::alias(&at("thread"), thread)?),
    };
    let ttl = ttl(&at("ttl_after_finished"), spec.ttl_after_finished.as_deref())?;
    let priority = given.priority.map_or(Some(Priority::NORMAL), Priority::new);
    let priority = priority.ok_or_else(|| invalid("task.priority", "must be from 0 to 10"))?;
    if spec.title.is_empty() {
        spec.title = failure::cut(title(&spec), check::MAX_TITLE);
    }
    let secrets = Secrets::from(std::mem::take(&mut spec.secrets));
    spec.secret_names = secrets.keys().cloned().collect();
    spec.secret_names.sort_unstable();

    let target =
        target::isolate(spec.isolation, id, target::from_wire("task.spec.target", spec.target.as_ref())?)?;
    let task = Box::new(Task {
        alias,
        title: spec.title.clone(),
        owner: spec.owner.clone(),
        parent,
        thread,
        ttl,
        labels: given.labels.into_iter().collect(),
        priority,
        desired: v1::DesiredState::try_from(given.desired_state)
            .map(task::from_desired)
            .map_err(|_| invalid("task.desired_state", "is not a known state"))?,
        limits: limits("task.spec.limits", spec.limits.as_ref())?,
        retry: retry("task.spec.retry", spec.retry.as_ref())?,
        not_before: spec.start_time.as_ref().map(time::from_timestamp),
        dependencies: dependencies(&spec.depends_on)?,
        trace,
        own: Own::of(
            spec.runtime.is_some(),
            spec.agent_secrets.is_some()
                || spec.retry.as_ref().is_some_and(|retry| retry.escalated_models().next().is_some())
                || spec.runtime.as_ref().is_some_and(v1::Runtime::names_model),
            rota_proto::credential::is_credential,
            secrets.keys().map(String::as_str),
            spec.environment.keys().map(String::as_str),
        ),
        has_secrets: !secrets.is_empty(),
        ..Task::new(id, namespace, target)
    });
    if task.target.is_own() && !task.retry.agents.is_empty() {
        return Err(invalid(at("retry.escalate"), "must name no agents for a task with a worker of its own"));
    }
    Ok(Checked { task, strict: spec.strict, payload: spec, secrets })
}

fn result_schema(field: &str, given: Option<&pbjson_types::Struct>) -> Result<(), Status> {
    let Some(given) = given else { return Ok(()) };
    let schema = serde_json::to_value(given).map_err(|error| invalid(field, error.to_string()))?;
    schema::parse(field, &schema, check::MAX_TEXT).map(drop)
}

/// Checks the time after which an ended task is removed.
pub(super) fn ttl(field: &str, given: Option<&pbjson_types::Duration>) -> Result<Option<Duration>, Status> {
    let Some(given) = given else { return Ok(None) };
    match Duration::try_from(*given) {
        Ok(ttl) if ttl <= MAX_TTL => Ok(Some(ttl)),
        _ => Err(invalid(field, "must be from 0 to 365 days")),
    }
}

fn input_text(spec: &v1::TaskSpec) -> String {
    spec.input.as_ref().and_then(|input| serde_json::to_string(input).ok()).unwrap_or_default()
}

/// The prompt's first line, or what else is known.
fn title(spec: &v1::TaskSpec) -> String {
    let line = spec.prompt.lines().map(str::trim).find(|line| !line.is_empty());
    let program = || match spec.runtime.as_ref().and_then(|runtime| runtime.kind.as_ref()) {
        Some(v1::runtime::Kind::Command(command)) if command.shell.is_empty() => command.argv.join(" "),
        Some(v1::runtime::Kind::Command(command)) => command.shell.clone(),
        _ => String::new(),
    };
    line.map_or_else(program, str::to_owned).chars().take(80).collect()
}

/// The bounds that a task sets for itself, or an agent for its tasks.
pub(super) fn limits(field: &str, given: Option<&v1::Limits>) -> Result<Limits, Status> {
    let Some(given) = given else { return Ok(Limits::default()) };
    let read = |name: &str, given: &Option<pbjson_types::Duration>| {
        time::from_duration(&format!("{field}.{name}"), given.as_ref())
    };
    if given.max_turns < 0 {
        return Err(invalid(format!("{field}.max_turns"), "must not be negative"));
    }
    if !(0..=MAX_LIMIT_MICRO_USD).contains(&given.budget_micro_usd) {
        let range = format!("must be from 0 to {MAX_LIMIT_MICRO_USD}");
        return Err(invalid(format!("{field}.budget_micro_usd"), range));
    }
    let silence = read("silence_timeout", &given.silence_timeout)?;
    let timeout = read("timeout", &given.timeout)?;
    for (name, given) in [("silence_timeout", silence), ("timeout", timeout)] {
        if given.is_some_and(|given| given.is_zero()) {
            return Err(invalid(format!("{field}.{name}"), "must not be zero"));
        }
    }
    Ok(Limits {
        timeout,
        queue_timeout: read("queue_timeout", &given.queue_timeout)?,
        cancel_grace: read("cancel_grace", &given.cancel_grace)?,
        budget_micro_usd: Some(given.budget_micro_usd).filter(|budget| *budget > 0),
    })
}

/// The retry policy of a task, or of a kind for its tasks.
pub(super) fn retry(field: &str, given: Option<&v1::RetryPolicy>) -> Result<retry::Policy, Status> {
    let mut policy = retry::Policy::default();
    let Some(given) = given else { return Ok(policy) };
    if !(0..=MAX_ATTEMPTS).contains(&given.max_attempts) {
        return Err(invalid(format!("{field}.max_attempts"), format!("must be from 0 to {MAX_ATTEMPTS}")));
    }
    if given.max_attempts > 0 {
        policy.max_attempts = given.max_attempts.unsigned_abs();
    }
    if let Some(losses) = given.max_worker_losses {
        if !(0..=MAX_ATTEMPTS).contains(&losses) {
            return Err(invalid(
                format!("{field}.max_worker_losses"),
                format!("must be from 0 to {MAX_ATTEMPTS}"),
            ));
        }
        policy.max_worker_losses = losses.unsigned_abs();
    }
    check::count(&format!("{field}.escalate"), given.escalate.len(), MAX_ESCALATIONS)?;
    for (failures, entry) in (1..).zip(&given.escalate) {
        let field = format!("{field}.escalate[{}]", failures - 1);
        if entry.is_empty() {
            return Err(invalid(field, "must name a model, or an agent as agent/NAME"));
        }
        check::length(&field, entry, MAX_MODEL)?;
        if let Some(agent) = rota_proto::names::escalated_agent(entry) {
            let agent = AgentName::new(agent).map_err(|error| invalid(field, error.to_string()))?;
            policy.agents.push(retry::Escalation { failures, agent });
        }
    }
    let initial = time::from_duration(&format!("{field}.initial_backoff"), given.initial_backoff.as_ref())?;
    let most = time::from_duration(&format!("{field}.max_backoff"), given.max_backoff.as_ref())?;
    policy.initial_backoff = initial.unwrap_or(policy.initial_backoff);
    policy.max_backoff = most.unwrap_or(policy.max_backoff).max(policy.initial_backoff);
    Ok(policy)
}

fn dependencies(given: &[v1::Dependency]) -> Result<Vec<Dependency>, Status> {
    check::count("task.spec.depends_on", given.len(), MAX_DEPENDENCIES)?;
    let mut seen = BTreeSet::new();
    let mut dependencies = Vec::with_capacity(given.len());
    for (index, dependency) in given.iter().enumerate() {
        let field = format!("task.spec.depends_on[{index}].task");
        let key = match dependency.task.parse() {
            Ok(id) => DependencyKey::Id(id),
            Err(_) => DependencyKey::Alias(names::alias(&field, &dependency.task)?),
        };
        if !seen.insert(key.clone()) {
            return Err(invalid(field, "is named twice"));
        }
        let policy = v1::OnDependencyFailure::try_from(dependency.on_failure).map_err(|_| {
            invalid(format!("task.spec.depends_on[{index}].on_failure"), "is not a known policy")
        })?;
        let on_failure = match policy {
            v1::OnDependencyFailure::Unspecified | v1::OnDependencyFailure::Fail => OnFailure::Fail,
            v1::OnDependencyFailure::Continue => OnFailure::Continue,
            v1::OnDependencyFailure::Cancel => OnFailure::Cancel,
        };
        dependencies.push(Dependency { key, on_failure, state: DependencyState::Missing, of_thread: false });
    }
    Ok(dependencies)
}

fn workspace(given: Option<&v1::Workspace>) -> Result<(), Status> {
    let Some(given) = given else { return Ok(()) };
    let in_place = given.mode() == v1::WorkspaceMode::InPlace;
    if in_place && !given.path.starts_with('/') {
        return Err(invalid("task.spec.workspace.path", "must be an absolute path for a workspace in place"));
    }
    if !in_place && !given.path.is_empty() && !rota_core::ids::is_name(&given.path) {
        return Err(invalid(
            "task.spec.workspace.path",
            "must be a name of lower-case letters, digits, '-' and '.'",
        ));
    }
    check::count("task.spec.workspace.keep_files", given.keep_files.len(), MAX_GLOBS)?;
    for (index, glob) in given.keep_files.iter().enumerate() {
        let at = format!("task.spec.workspace.keep_files[{index}]");
        check::length(&at, glob, MAX_GLOB)?;
        globset::Glob::new(glob).map_err(|error| invalid(at, error.kind().to_string()))?;
    }
    if in_place && !given.keep_files.is_empty() {
        return Err(invalid("task.spec.workspace.keep_files", "must be empty for a workspace in place"));
    }
    if given.shared && !in_place {
        return Err(invalid("task.spec.workspace.shared", "must not be set except for a workspace in place"));
    }
    given.git.as_ref().map_or(Ok(()), repository)
}

/// Commands that a task sets for itself, or an agent for its tasks.
pub(super) fn commands(field: &str, given: &[v1::WorkspaceCommand]) -> Result<(), Status> {
    check::count(field, given.len(), MAX_COMMANDS)?;
    for (index, command) in given.iter().enumerate() {
        let at = format!("{field}[{index}]");
        if command.argv.first().is_none_or(String::is_empty) {
            return Err(invalid(format!("{at}.argv"), "must name a program"));
        }
        if command.argv.iter().any(|argument| argument.contains('\0')) {
            return Err(invalid(format!("{at}.argv"), "must not contain a NUL byte"));
        }
        check::length(&format!("{at}.argv"), &command.argv.concat(), MAX_ARGUMENTS)?;
        check::count(&format!("{at}.argv"), command.argv.len(), MAX_ARGV)?;
        let timeout = time::from_duration(&format!("{at}.timeout"), command.timeout.as_ref())?;
        if timeout.is_some_and(|timeout| timeout.is_zero() || timeout > MAX_COMMAND_TIME) {
            return Err(invalid(format!("{at}.timeout"), "must be from 1 ms to 24 h"));
        }
        check::words(&format!("{at}.secrets"), &command.secrets, MAX_AGENT_SECRETS)?;
    }
    Ok(())
}

/// Validates the commands that fill a setup cache, and the files that are its key.
pub(super) fn setup_cache(field: &str, given: Option<&v1::SetupCache>) -> Result<(), Status> {
    let Some(given) = given else { return Ok(()) };
    if given.commands.is_empty() || given.key_files.is_empty() {
        return Err(invalid(field, "must have commands and key files"));
    }
    commands(&format!("{field}.commands"), &given.commands)?;
    check::count(&format!("{field}.key_files"), given.key_files.len(), MAX_COMMANDS)?;
    for (index, file) in given.key_files.iter().enumerate() {
        let at = format!("{field}.key_files[{index}]");
        check::length(&at, file, MAX_GLOB)?;
        let is_within = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
        if file.is_empty() || !is_within || file.contains('\0') {
            return Err(invalid(at, "must be the path of a file within the workspace"));
        }
    }
    Ok(())
}

/// The same of what must hold at the end.
pub(super) fn done_when(field: &str, given: Option<&v1::DoneWhen>) -> Result<(), Status> {
    let Some(given) = given else { return Ok(()) };
    if given.commands.is_empty() {
        return Err(invalid(format!("{field}.commands"), "must not be empty"));
    }
    commands(&format!("{field}.commands"), &given.commands)?;
    if given.max_rounds.is_some_and(|rounds| !(0..=MAX_ROUNDS).contains(&rounds)) {
        return Err(invalid(format!("{field}.max_rounds"), format!("must be from 0 to {MAX_ROUNDS}")));
    }
    check::count(&format!("{field}.pinned_files"), given.pinned_files.len(), MAX_GLOBS)?;
    for (index, glob) in given.pinned_files.iter().enumerate() {
        let at = format!("{field}.pinned_files[{index}]");
        check::length(&at, glob, MAX_GLOB)?;
        let is_within = Path::new(glob).components().all(|part| matches!(part, Component::Normal(_)));
        if glob.is_empty() || !is_within || glob.ends_with('/') || glob.contains('\0') {
            return Err(invalid(
                at,
                "must be a glob within the repository, of files: `tests/**`, not `tests/`",
            ));
        }
        globset::Glob::new(glob).map_err(|error| invalid(at, error.kind().to_string()))?;
    }
    Ok(())
}

fn repository(git: &v1::GitSource) -> Result<(), Status> {
    if git.url.is_empty() || git.depth < 0 {
        return Err(invalid("task.spec.workspace.git", "needs a url, and a depth that is not negative"));
    }
    if git.push.is_some() && git.depth > 0 {
        return Err(invalid(
            "task.spec.workspace.git.push",
            "needs all commits: it must not be set with depth",
        ));
    }
    if !git.ref_from.is_empty() && (!git.r#ref.is_empty() || git.depth > 0) {
        return Err(invalid("task.spec.workspace.git.ref_from", "must not be set with ref or depth"));
    }
    pull_request::check("task.spec", git)?;
    check::length("task.spec.workspace.git.url", &git.url, MAX_URL)?;
    check::length("task.spec.workspace.git.ref", &git.r#ref, MAX_GLOB)?;
    check::length("task.spec.workspace.git.credentials_from", &git.credentials_from, MAX_GLOB)?;
    check::count("task.spec.workspace.git.sparse", git.sparse.len(), MAX_GLOBS)?;
    for (index, folder) in git.sparse.iter().enumerate() {
        let at = format!("task.spec.workspace.git.sparse[{index}]");
        check::length(&at, folder, MAX_GLOB)?;
        let path = Path::new(folder);
        if folder.is_empty() || !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(invalid(at, "must be the path of a folder within the repository"));
        }
    }
    Ok(())
}

/// Top-level fields in which a stored spec and that of a repeated creation differ, as the API names them. What the caller has left
/// to the kind is not compared.
pub(crate) fn differences(kept: &[u8], given: &mut v1::TaskSpec, asked: Option<&Asked>) -> Vec<String> {
    let Ok(kept) = v1::TaskSpec::decode(kept) else { return vec!["spec".to_owned()] };
    if let Some(asked) = asked {
        asked.adopt(given, &kept);
    }
    let fields = |spec: &v1::TaskSpec| match serde_json::to_value(spec) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (kept, given) = (fields(&kept), fields(given));
    let names: BTreeSet<_> = kept.keys().chain(given.keys()).collect();
    names
        .into_iter()
        .filter(|name| kept.get(*name) != given.get(*name))
        .map(|name| format!("spec.{name}"))
        .collect()
}
