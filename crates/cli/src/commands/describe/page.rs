//! Pages of `Key: value` lines about one task, agent or worker.

use std::time::{Duration, SystemTime};

use rota_proto::names;
use rota_proto::v1::{Agent, DeliveryOutcome, Task, Worker};
use rota_telemetry::clock;

use super::super::state_of;
use crate::output::{
    self, Paint, Table, age, between, limits, micros, moment, money, name, plain_lines, ran, reason, spent,
    state, time, wait,
};

/// Lines of `Key: value`; empty values are omitted.
#[derive(Debug, Default)]
pub struct Page(pub String);

impl Page {
    fn line(&mut self, key: &str, value: impl AsRef<str>) {
        let value = plain_lines(value.as_ref());
        if !value.is_empty() {
            self.0.push_str(&format!(
                "{:<14} {}\n",
                format!("{key}:"),
                value.trim_end().replace('\n', "\n               ")
            ));
        }
    }

    fn pairs<'a>(&mut self, key: &str, pairs: impl IntoIterator<Item = (&'a String, &'a String)>) {
        let mut all: Vec<_> = pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        all.sort();
        self.line(key, all.join("\n"));
    }

    fn count(&mut self, key: &str, value: i64) {
        if value != 0 {
            self.line(key, value.to_string());
        }
    }
}

/// Formats a nested value as YAML.
fn yaml<T: serde::Serialize>(value: &T) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(&serde_json::to_value(value)?)?)
}

pub fn of_task(task: &Task) -> Page {
    let (spec, status) = (task.spec.clone().unwrap_or_default(), task.status.clone().unwrap_or_default());
    let mut page = Page::default();
    page.line("Name", &task.alias);
    page.line("Id", &task.uid);
    page.line("Namespace", task.name.split('/').nth(1).unwrap_or_default());
    page.line("Title", &spec.title);
    page.line("Kind", &spec.kind);
    page.line("Owner", &spec.owner);
    page.pairs("Labels", &task.labels);
    page.line("State", format!("{} {}", state(state_of(task)), reason(&status)).trim_end());
    page.line("Priority", task.priority.unwrap_or(5).to_string());
    page.line("Target", output::target(task));
    page.line("Worker", &status.worker);
    page.count("Attempt", status.attempt.into());
    page.count("Workers lost", status.worker_losses.into());
    page.line("Waiting for", status.waiting.iter().map(wait).collect::<Vec<_>>().join("\n"));
    let needs: Vec<_> = spec.depends_on.iter().map(|dependency| dependency.task.clone()).collect();
    page.line("Depends on", needs.join("\n"));
    page.line("Retry of", &task.retry_of);
    page.line("Parent", &spec.parent_task);
    page.line(
        "Created",
        format!("{} ({} ago)", time(task.create_time.as_ref()), age(task.create_time.as_ref())),
    );
    page.line("Ready", time(status.ready_time.as_ref()));
    page.line("Started", time(status.start_time.as_ref()));
    page.line("Finished", time(status.end_time.as_ref()));
    page.line("Ran", ran(&status));
    if let Some(limits) = &spec.limits {
        page.line("Timeout", micros(limits.timeout.as_ref()));
        page.count("Max turns", limits.max_turns.into());
        page.line("Budget", money(limits.budget_micro_usd));
    }
    if let Some(usage) = &status.usage {
        page.line("Model", &usage.model);
        page.count("Tokens in", usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens);
        page.count("Tokens out", usage.output_tokens);
        page.line("Cost", money(usage.cost_micro_usd));
    }
    page.line("Trace", &status.trace_id);
    page.count("Log entries", status.log_seq);
    page.pairs("Environment", &spec.environment);
    page.line("Secrets", spec.secret_names.join(", "));
    page.line("Prompt", &spec.prompt);
    for request in &status.pending_input {
        page.line("Question", output::question(request));
    }
    if let Some(failure) = &status.failure {
        page.line("Failure", output::failure(failure));
        page.line("Hint", &failure.hint);
    }
    if let Some(result) = &status.result {
        page.line("Result", &result.text);
        page.line("Files", result.files.join("\n"));
        if let Some(delivery) = &result.delivery {
            let what = match delivery.outcome() {
                DeliveryOutcome::Delivered => format!("{} at {}", delivery.branch, delivery.commit),
                _ => "no change".to_owned(),
            };
            page.line("Delivered", what);
            page.line("Pull request", output::pull_request(task).unwrap_or_default());
        }
    }
    page
}

pub fn of_agent(agent: &Agent) -> anyhow::Result<Page> {
    let (spec, status) = (agent.spec.clone().unwrap_or_default(), agent.status.clone().unwrap_or_default());
    let mut page = Page::default();
    page.line("Name", names::last(&agent.name));
    page.line("Namespace", agent.name.split('/').nth(1).unwrap_or_default());
    page.line("Description", &spec.description);
    page.pairs("Labels", &agent.labels);
    page.line("Capabilities", spec.capabilities.join(", "));
    page.line("Generation", agent.generation.to_string());
    page.line("Created", time(agent.create_time.as_ref()));
    page.line("Updated", time(agent.update_time.as_ref()));
    page.line(
        "Workers",
        format!(
            "{} connected, {} busy, {} idle, {} draining",
            status.workers, status.busy_workers, status.idle_workers, status.draining_workers
        ),
    );
    page.line("Tasks", format!("{} queued, {} running", status.queued_tasks, status.running_tasks));
    page.line("Limit", limits(&status));
    page.line("Breaker", &status.breaker);
    page.line("Spent", status.budget.as_ref().map(spent).unwrap_or_default());
    page.line("Of namespace", status.namespace_budget.as_ref().map(spent).unwrap_or_default());
    page.line("Message", &status.message);
    page.line("Spec", format!("\n{}", yaml(&spec)?.trim_end()));
    Ok(page)
}

/// Returns the page of a worker. `tasks` are its current and recent tasks, as far as they still exist.
pub fn of_worker(worker: &Worker, tasks: &[Task], colored: bool) -> Page {
    let slots = worker.slots.max(1);
    let mut page = Page::default();
    page.line("Name", names::last(&worker.name));
    page.line("Namespace", worker.name.split('/').nth(1).unwrap_or_default());
    page.line("Agent", &worker.agent);
    let since = match &worker.idle_since {
        Some(idle) => format!(" for {}", age(Some(idle))),
        None => String::new(),
    };
    page.line("State", format!("{}{since}", output::worker_state(worker).0));
    let up = age(worker.connect_time.as_ref());
    let began = time(worker.connect_time.as_ref());
    page.line("Session", format!("epoch {}, connected for {up} (since {began})", worker.epoch));
    page.line("Last seen", format!("{} ago", age(worker.last_seen_time.as_ref())));
    page.line("Process", &worker.instance);
    page.line("Capabilities", worker.capabilities.join(", "));
    page.line("Slots", format!("{} of {slots} in use", worker.tasks.len()));
    page.line("Breaker", &worker.breaker);
    page.line("Not ready", &worker.not_ready_reason);
    page.line("CPU", format!("{:.0}% of the machine", worker.cpu * 100.0));
    page.line("Memory", format!("{} MiB", worker.memory_bytes / (1024 * 1024)));
    if let Some(share) = utilization(worker, clock::now()) {
        page.line("Utilization", format!("{:.0}% of slot time in this session", share * 100.0));
    }
    let (good, bad) = (worker.succeeded, worker.failed);
    #[expect(clippy::cast_precision_loss, reason = "a share for display")]
    let rate = match good + bad {
        0 => String::new(),
        all => format!(" ({:.0}% success)", good as f64 * 100.0 / all as f64),
    };
    page.line("Attempts", format!("{good} succeeded, {bad} failed, {} cancelled{rate}", worker.cancelled));
    page.line("Version", &worker.version);
    page.line("Runtime", &worker.runtime_version);
    for missing in &worker.runtime_missing {
        page.line("Lacks", missing);
    }
    page.line("Isolated", isolation(worker));
    let of = |id: &str| tasks.iter().find(|task| task.uid == id);
    let called = |id: &str| of(id).map_or_else(|| id.to_owned(), |task| name(task).to_owned());
    let mut now = Table::new(&["TASK", "STATE", "TIME", "ACTIVITY"]);
    for id in &worker.tasks {
        let status = of(id).and_then(|task| task.status.clone()).unwrap_or_default();
        now.row([
            (called(id), Paint::Plain),
            (state(status.state()).to_owned(), status.state().into()),
            // The start of a later attempt is only in the log.
            (if status.attempt > 1 { String::new() } else { ran(&status) }, Paint::Plain),
            (reason(&status), Paint::Plain),
        ]);
    }
    let mut recent = Table::new(&["AGO", "EVENT", "TASK"]);
    for entry in &worker.recent_activity {
        let task = if entry.task.is_empty() { String::new() } else { called(&entry.task) };
        recent.row([age(entry.time.as_ref()), entry.action.clone(), task]);
    }
    for (title, table) in [("Running", now), ("Recent activity", recent)] {
        if !table.is_empty() {
            page.0.push_str(&format!("\n{title}\n{}\n", table.render(colored)));
        }
    }
    page
}

/// Returns the share of a worker's slot time in this session that was used.
fn utilization(worker: &Worker, now: SystemTime) -> Option<f64> {
    let span = worker.busy_time.as_ref()?;
    let busy = Duration::new(u64::try_from(span.seconds).ok()?, u32::try_from(span.nanos).ok()?);
    let all =
        between(moment(worker.connect_time.as_ref()?), now).as_secs_f64() * f64::from(worker.slots.max(1));
    (all > 0.0).then(|| (busy.as_secs_f64() / all).clamp(0.0, 1.0))
}

/// Returns whether the attempts of a worker are isolated, and why not.
fn isolation(worker: &Worker) -> String {
    match (worker.isolated, worker.not_isolated_reason.as_str()) {
        (true, _) => "yes".to_owned(),
        (false, "") => "unknown".to_owned(),
        (false, reason) => format!("no: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use pbjson_types::Timestamp;
    use rota_proto::v1::{TaskState, TaskStatus, WorkerActivity};

    use super::*;

    fn worker() -> Worker {
        Worker {
            name: "namespaces/team/workers/w-1".into(),
            agent: "coder".into(),
            connected: true,
            slots: 2,
            tasks: vec!["id-1".into()],
            connect_time: Some(Timestamp { seconds: 100, nanos: 0 }),
            busy_time: Some(pbjson_types::Duration { seconds: 30, nanos: 0 }),
            succeeded: 3,
            failed: 1,
            recent_activity: vec![
                WorkerActivity { action: "started".into(), task: "id-1".into(), ..Default::default() },
                WorkerActivity { action: "failed".into(), task: "deleted".into(), ..Default::default() },
            ],
            ..Worker::default()
        }
    }

    #[test]
    fn worker_page_shows_activity() {
        let mut task = Task { uid: "id-1".into(), alias: "build".into(), ..Default::default() };
        task.status = Some(Box::new(TaskStatus { state: TaskState::Running.into(), ..Default::default() }));
        let page = of_worker(&worker(), &[task], false).0;
        for line in [
            "Namespace:     team",
            "State:         Busy",
            "Slots:         1 of 2 in use",
            "Attempts:      3 succeeded, 1 failed, 0 cancelled (75% success)",
            "build  Running",
            "     started  build",
            "     failed   deleted",
        ] {
            assert!(page.lines().any(|one| one.starts_with(line)), "{line:?} is not in {page}");
        }
    }

    #[test]
    fn utilization_is_share_of_slot_time() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(utilization(&worker(), at(130)), Some(0.5));
        assert_eq!(utilization(&worker(), at(100)), None);
        assert_eq!(utilization(&worker(), at(101)), Some(1.0), "clock skew is clamped to 100%");
    }
}
