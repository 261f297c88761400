//! The tables of tasks, agents, workers, capabilities and results.

use rota_proto::names;
use rota_proto::v1::{Agent, Capability, Task, Worker, runtime, target};

use super::text::{age, elapsed, first_line, money, name, ran, reason, state};
use super::{Paint, Table};

fn plain(text: impl Into<String>) -> (String, Paint) {
    (text.into(), Paint::Plain)
}

fn faint(text: impl Into<String>) -> (String, Paint) {
    (text.into(), Paint::Faint)
}

/// With a column for the namespace, when several are shown.
fn headed(all: bool, rest: &[&'static str]) -> Table {
    let mut header = if all { vec!["NAMESPACE"] } else { vec![] };
    header.extend(rest);
    Table::new(&header)
}

fn namespace(all: bool, full: &str) -> Option<(String, Paint)> {
    all.then(|| plain(full.split('/').nth(1).unwrap_or_default()))
}

/// Who may do a task.
pub fn target(task: &Task) -> String {
    let target = task.spec.as_ref().and_then(|spec| spec.target.as_ref()?.kind.as_ref());
    match target {
        Some(target::Kind::Agent(agent)) => agent.clone(),
        Some(target::Kind::Worker(worker)) => format!("worker {worker}"),
        Some(target::Kind::Capabilities(set)) => format!("any with {}", set.words.join(",")),
        None => "default".to_owned(),
    }
}

/// What a task is called in a line.
fn title(task: &Task) -> String {
    let Some(spec) = &task.spec else { return String::new() };
    first_line(if spec.title.is_empty() { &spec.prompt } else { &spec.title }, 40)
}

/// Tasks.
pub fn tasks(tasks: &[Task], all: bool) -> Table {
    let mut table =
        headed(all, &["NAME", "STATE", "AGENT", "PRIO", "TRY", "TIME", "COST", "AGE", "TITLE", "WHY"]);
    for task in tasks {
        let status = task.status.clone().unwrap_or_default();
        let cost = status.usage.as_ref().map_or(0, |usage| usage.cost_micro_usd);
        let row = [
            plain(name(task)),
            (state(status.state()).to_owned(), status.state().into()),
            plain(target(task)),
            plain(task.priority.unwrap_or(5).to_string()),
            plain(if status.attempt == 0 { String::new() } else { status.attempt.to_string() }),
            plain(elapsed(status.start_time.as_ref(), status.end_time.as_ref())),
            plain(money(cost)),
            plain(age(task.create_time.as_ref())),
            plain(title(task)),
            faint(reason(&status)),
        ];
        table.row(namespace(all, &task.name).into_iter().chain(row));
    }
    table
}

/// The runtime's word.
fn runtime_word(runtime: Option<&rota_proto::v1::Runtime>) -> &'static str {
    match runtime.and_then(|runtime| runtime.kind.as_ref()) {
        Some(runtime::Kind::Claude(_)) => "claude",
        Some(runtime::Kind::Command(_)) => "command",
        Some(runtime::Kind::Scripted(_)) => "scripted",
        Some(runtime::Kind::External(_)) => "external",
        None => "",
    }
}

/// Agents.
pub fn agents(agents: &[Agent], all: bool) -> Table {
    let mut table = headed(
        all,
        &["NAME", "RUNTIME", "WORKERS", "BUSY", "FREE SLOTS", "QUEUED", "RUNNING", "CAPABILITIES", "AGE"],
    );
    for agent in agents {
        let (spec, status) =
            (agent.spec.clone().unwrap_or_default(), agent.status.clone().unwrap_or_default());
        let row = [
            plain(names::last(&agent.name)),
            plain(runtime_word(spec.runtime.as_ref())),
            plain(format!("{}/{}", status.workers, spec.max_replicas.max(spec.replicas).max(1))),
            plain(status.busy_workers.to_string()),
            plain(status.free_slots.to_string()),
            plain(status.queued_tasks.to_string()),
            plain(status.running_tasks.to_string()),
            plain(spec.capabilities.join(",")),
            plain(age(agent.create_time.as_ref())),
        ];
        table.row(namespace(all, &agent.name).into_iter().chain(row));
    }
    table
}

/// How a worker stands, in a word.
pub fn worker_state(worker: &Worker) -> (&'static str, Paint) {
    match (worker.connected, worker.draining, worker.tasks.is_empty()) {
        (false, ..) => ("Lost", Paint::Bad),
        (_, true, _) => ("Draining", Paint::Waiting),
        (.., true) => ("Idle", Paint::Good),
        _ => ("Busy", Paint::Busy),
    }
}

/// Workers.
pub fn workers(workers: &[Worker], all: bool) -> Table {
    let mut table = headed(
        all,
        &["NAME", "AGENT", "STATE", "TASKS", "DONE", "FAILED", "CPU", "MEMORY", "HEARD", "UP", "VERSION"],
    );
    for worker in workers {
        let (word, paint) = worker_state(worker);
        let row = [
            plain(names::last(&worker.name)),
            plain(&worker.agent),
            (word.to_owned(), paint),
            plain(format!("{}/{}", worker.tasks.len(), worker.slots.max(1))),
            plain(worker.succeeded.to_string()),
            plain(worker.failed.to_string()),
            plain(format!("{:.0}%", worker.cpu * 100.0)),
            plain(format!("{} MiB", worker.memory_bytes / (1024 * 1024))),
            plain(age(worker.heard_time.as_ref())),
            plain(age(worker.connect_time.as_ref())),
            faint(&worker.version),
        ];
        table.row(namespace(all, &worker.name).into_iter().chain(row));
    }
    table
}

/// Capabilities.
pub fn capabilities(all: &[Capability]) -> Table {
    let mut table = Table::new(&["CAPABILITY", "AGENTS", "WORKERS", "FREE SLOTS"]);
    for one in all {
        table.row([
            one.capability.clone(),
            one.agents.join(","),
            one.workers.to_string(),
            one.free_slots.to_string(),
        ]);
    }
    table
}

/// How tasks ended.
pub fn results(tasks: &[Task]) -> Table {
    let mut table = Table::new(&["NAME", "STATE", "TRIES", "WAITED", "RAN", "TOKENS", "COST", "RESULT"]);
    for task in tasks {
        let status = task.status.clone().unwrap_or_default();
        let usage = status.usage.clone().unwrap_or_default();
        let tokens = usage.input_tokens + usage.output_tokens;
        let said = match (&status.failure, &status.result) {
            (Some(failure), _) => first_line(&failure.message, 60),
            (None, Some(result)) => first_line(&result.text, 60),
            (None, None) => String::new(),
        };
        table.row([
            plain(name(task)),
            (state(status.state()).to_owned(), status.state().into()),
            plain(status.attempt.to_string()),
            // It was ready last, and started first: with several attempts that is no wait.
            plain(match status.attempt {
                ..=1 => elapsed(
                    status.ready_time.as_ref(),
                    status.start_time.as_ref().or(status.end_time.as_ref()),
                ),
                _ => String::new(),
            }),
            plain(ran(&status)),
            plain(if tokens == 0 { String::new() } else { tokens.to_string() }),
            plain(money(usage.cost_micro_usd)),
            plain(said),
        ]);
    }
    table
}
