//! Tables of tasks, agents, workers, capabilities and results.

use rota_proto::v1::{Agent, Capability, Target, Task, TaskHit, TaskState, Thread, Worker, runtime, target};
use rota_proto::{labels, names};

use super::text::{age, elapsed, first_line, limits, money, name, ran, reason, state};
use super::{Paint, Table};

fn plain(text: impl Into<String>) -> (String, Paint) {
    (text.into(), Paint::Plain)
}

fn faint(text: impl Into<String>) -> (String, Paint) {
    (text.into(), Paint::Faint)
}

/// Returns an empty table, with a column for the namespace if several are shown.
fn new_table(all: bool, rest: &[&'static str]) -> Table {
    let mut header = if all { vec!["NAMESPACE"] } else { vec![] };
    header.extend(rest);
    Table::new(&header)
}

fn namespace(all: bool, full: &str) -> Option<(String, Paint)> {
    all.then(|| plain(full.split('/').nth(1).unwrap_or_default()))
}

/// Formats the target of a task.
pub fn target(task: &Task) -> String {
    let escalated = task.status.as_ref().map(|status| status.escalated_to.as_str());
    if let Some(agent) = escalated.filter(|agent| !agent.is_empty()) {
        return agent.to_owned();
    }
    match target_text(task.spec.as_ref().and_then(|spec| spec.target.as_ref())) {
        none if none.is_empty() => "default".to_owned(),
        text => text,
    }
}

/// Formats a target; without one the text is empty.
pub fn target_text(target: Option<&Target>) -> String {
    match target.and_then(|target| target.kind.as_ref()) {
        Some(target::Kind::Agent(agent)) => agent.clone(),
        Some(target::Kind::Agents(set)) => set.agents.join(","),
        Some(target::Kind::Worker(worker)) => format!("worker {worker}"),
        Some(target::Kind::Capabilities(set)) => format!("needs {}", set.capabilities.join(",")),
        None => String::new(),
    }
}

/// Returns the title of a task, or the start of its prompt.
fn title(task: &Task) -> String {
    let Some(spec) = &task.spec else { return String::new() };
    first_line(if spec.title.is_empty() { &spec.prompt } else { &spec.title }, 40)
}

pub fn tasks(tasks: &[Task], all: bool) -> Table {
    let mut header = vec!["NAME", "STATE", "AGENT"];
    let has_kinds = tasks.iter().any(|task| task.labels.contains_key(labels::KIND));
    header.extend(has_kinds.then_some("KIND"));
    header.extend(["PRIORITY", "ATTEMPT", "TIME", "COST", "AGE", "TITLE", "REASON"]);
    let mut table = new_table(all, &header);
    for task in tasks {
        let kind = task.labels.get(labels::KIND).map_or("", String::as_str);
        let status = task.status.clone().unwrap_or_default();
        let cost = status.usage.as_ref().map_or(0, |usage| usage.cost_micro_usd);
        let start = [
            plain(name(task)),
            (state(status.state()).to_owned(), status.state().into()),
            plain(target(task)),
        ];
        let row = [
            plain(task.priority.unwrap_or(5).to_string()),
            plain(if status.attempt == 0 { String::new() } else { status.attempt.to_string() }),
            plain(elapsed(status.start_time.as_ref(), status.end_time.as_ref())),
            plain(money(cost)),
            plain(age(task.create_time.as_ref())),
            plain(title(task)),
            faint(reason(&status)),
        ];
        let kind = has_kinds.then(|| plain(kind));
        table.row(namespace(all, &task.name).into_iter().chain(start).chain(kind).chain(row));
    }
    table
}

/// Returns tasks with the part of a text in which words were found.
pub fn hits(hits: &[TaskHit], all: bool) -> Table {
    let mut table = new_table(all, &["NAME", "STATE", "AGE", "IN", "TEXT"]);
    for hit in hits {
        let task = hit.task.clone().unwrap_or_default();
        let state_of = task.status.as_ref().map_or(TaskState::Unspecified, |status| status.state());
        let field = hit.field().as_str_name().trim_start_matches("TASK_TEXT_FIELD_").to_ascii_lowercase();
        let row = [
            plain(name(&task)),
            (state(state_of).to_owned(), state_of.into()),
            plain(age(task.create_time.as_ref())),
            plain(if hit.snippet.is_empty() { String::new() } else { field }),
            plain(if hit.snippet.is_empty() { title(&task) } else { hit.snippet.clone() }),
        ];
        table.row(namespace(all, &task.name).into_iter().chain(row));
    }
    table
}

/// Returns the display name of a runtime.
fn runtime_name(runtime: Option<&rota_proto::v1::Runtime>) -> &'static str {
    match runtime.and_then(|runtime| runtime.kind.as_ref()) {
        Some(runtime::Kind::Claude(_)) => "claude",
        Some(runtime::Kind::Command(_)) => "command",
        Some(runtime::Kind::Scripted(_)) => "scripted",
        Some(runtime::Kind::External(_)) => "external",
        None => "",
    }
}

pub fn agents(agents: &[Agent], all: bool) -> Table {
    let mut header =
        vec!["NAME", "RUNTIME", "WORKERS", "BUSY", "FREE SLOTS", "QUEUED", "RUNNING", "CAPABILITIES", "AGE"];
    let limited = agents.iter().any(|agent| agent.status.as_ref().is_some_and(|it| !limits(it).is_empty()));
    header.extend(limited.then_some("LIMIT"));
    let mut table = new_table(all, &header);
    for agent in agents {
        let (spec, status) =
            (agent.spec.clone().unwrap_or_default(), agent.status.clone().unwrap_or_default());
        let row = [
            plain(names::last(&agent.name)),
            plain(runtime_name(spec.runtime.as_ref())),
            plain(format!("{}/{}", status.workers, spec.max_replicas.unwrap_or(1).max(spec.replicas))),
            plain(status.busy_workers.to_string()),
            plain(status.free_slots.to_string()),
            plain(status.queued_tasks.to_string()),
            plain(status.running_tasks.to_string()),
            plain(spec.capabilities.join(",")),
            plain(age(agent.create_time.as_ref())),
        ];
        let limit = limited.then(|| plain(limits(&status)));
        table.row(namespace(all, &agent.name).into_iter().chain(row).chain(limit));
    }
    table
}

pub fn threads(threads: &[Thread], all: bool) -> Table {
    let mut table = new_table(all, &["NAME", "TASKS", "OPEN", "LAST", "TOKENS", "COST", "USED"]);
    for thread in threads {
        let usage = thread.usage.clone().unwrap_or_default();
        // One that was removed has no state.
        let last = match thread.last_state() {
            TaskState::Unspecified => plain(""),
            known => (state(known).to_owned(), known.into()),
        };
        let row = [
            plain(names::last(&thread.name)),
            plain(thread.tasks.to_string()),
            plain(thread.open_tasks.to_string()),
            last,
            plain((usage.input_tokens + usage.output_tokens).to_string()),
            plain(money(usage.cost_micro_usd)),
            plain(age(thread.use_time.as_ref())),
        ];
        table.row(namespace(all, &thread.name).into_iter().chain(row));
    }
    table
}

/// Returns the display state of a worker.
pub fn worker_state(worker: &Worker) -> (&'static str, Paint) {
    match (worker.connected, worker.draining, worker.tasks.is_empty()) {
        (false, ..) => ("Lost", Paint::Bad),
        (_, true, _) => ("Draining", Paint::Waiting),
        _ if !worker.not_ready_reason.is_empty() => ("NotReady", Paint::Bad),
        _ if !worker.breaker.is_empty() => ("Suspended", Paint::Bad),
        (.., true) => ("Idle", Paint::Good),
        _ => ("Busy", Paint::Busy),
    }
}

pub fn workers(workers: &[Worker], all: bool) -> Table {
    let mut table = new_table(
        all,
        &["NAME", "AGENT", "STATE", "TASKS", "DONE", "FAILED", "CPU", "MEMORY", "LAST SEEN", "UP", "VERSION"],
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
            plain(age(worker.last_seen_time.as_ref())),
            plain(age(worker.connect_time.as_ref())),
            faint(&worker.version),
        ];
        table.row(namespace(all, &worker.name).into_iter().chain(row));
    }
    table
}

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

/// Returns the table of finished tasks.
pub fn results(tasks: &[Task]) -> Table {
    let mut table = Table::new(&["NAME", "STATE", "ATTEMPTS", "WAITED", "RAN", "TOKENS", "COST", "RESULT"]);
    for task in tasks {
        let status = task.status.clone().unwrap_or_default();
        let usage = status.usage.clone().unwrap_or_default();
        let tokens = usage.input_tokens + usage.output_tokens;
        let message = match (&status.failure, &status.result) {
            (Some(failure), _) => first_line(&failure.message, 60),
            (None, Some(result)) => first_line(&result.text, 60),
            (None, None) => String::new(),
        };
        table.row([
            plain(name(task)),
            (state(status.state()).to_owned(), status.state().into()),
            plain(status.attempt.to_string()),
            // The ready time is that of the last attempt, the start time that of the first.
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
            plain(message),
        ]);
    }
    table
}

/// Returns the page of a task's pull or merge request, as a worker has reported it.
pub fn pull_request(task: &Task) -> Option<String> {
    let delivery = task.status.as_ref()?.result.as_ref()?.delivery.as_ref()?;
    Some(super::text::plain(&delivery.pull_request.as_ref()?.url))
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{Delivery, OpenedRequest, TaskResult, TaskStatus};

    use super::*;

    #[test]
    fn address_of_request_is_plain() {
        let url = "https://forge.example/1\u{1b}]52;c;cm0K\u{7}\u{1b}[2J\u{202e}".to_owned();
        let opened = OpenedRequest { url, ..OpenedRequest::default() };
        let delivery = Some(Delivery { pull_request: Some(opened), ..Delivery::default() });
        let result = Some(TaskResult { delivery, ..TaskResult::default() });
        let task = Task {
            status: Some(Box::new(TaskStatus { result, ..TaskStatus::default() })),
            ..Task::default()
        };
        let shown = pull_request(&task).unwrap();
        assert!(shown.starts_with("https://forge.example/1") && !shown.chars().any(crate::output::is_hidden));
    }
}
