//! Pages of `Key: value` about one task, agent or worker, for eyes.

use rota_proto::names;
use rota_proto::v1::{Agent, Task, Worker};

use super::super::state_of;
use crate::output::{self, age, clean, elapsed, micros, money, reason, state, time, wait};

/// Lines of `Key: value`; empty values are left out.
#[derive(Debug, Default)]
pub struct Page(pub String);

impl Page {
    fn line(&mut self, key: &str, value: impl AsRef<str>) {
        let value = clean(value.as_ref());
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

/// A value as YAML, for what has many shapes.
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
    page.line("Owner", &spec.owner);
    page.pairs("Labels", &task.labels);
    page.line("State", format!("{} {}", state(state_of(task)), reason(&status)).trim_end());
    page.line("Priority", task.priority.unwrap_or(5).to_string());
    page.line("For", output::target(task));
    page.line("Worker", &status.worker);
    page.count("Attempt", status.attempt.into());
    page.count("Workers lost", status.worker_losses.into());
    page.line("Waits for", status.waiting.iter().map(wait).collect::<Vec<_>>().join("\n"));
    let needs: Vec<_> = spec.depends_on.iter().map(|dependency| dependency.task.clone()).collect();
    page.line("Depends on", needs.join("\n"));
    page.line("Retry of", &task.retry_of);
    page.line("Part of", &spec.parent_task);
    page.line(
        "Made",
        format!("{} ({} ago)", time(task.create_time.as_ref()), age(task.create_time.as_ref())),
    );
    page.line("Ready", time(status.ready_time.as_ref()));
    page.line("Started", time(status.start_time.as_ref()));
    page.line("Ended", time(status.end_time.as_ref()));
    page.line("Ran", elapsed(status.start_time.as_ref(), status.end_time.as_ref()));
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
        page.line("Asks", format!("{} {}", request.tool, request.prompt).trim_start());
    }
    if let Some(failure) = &status.failure {
        page.line("Failure", output::failure(failure));
        page.line("Hint", &failure.hint);
    }
    if let Some(result) = &status.result {
        page.line("Result", &result.text);
        page.line("Files", result.files.join("\n"));
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
    page.line("Made", time(agent.create_time.as_ref()));
    page.line("Changed", time(agent.update_time.as_ref()));
    page.line(
        "Workers",
        format!(
            "{} connected, {} busy, {} idle, {} draining",
            status.workers, status.busy_workers, status.idle_workers, status.draining_workers
        ),
    );
    page.line("Tasks", format!("{} queued, {} running", status.queued_tasks, status.running_tasks));
    page.line("Message", &status.message);
    page.line("Spec", format!("\n{}", yaml(&spec)?.trim_end()));
    Ok(page)
}

pub fn of_worker(worker: &Worker) -> Page {
    let mut page = Page::default();
    page.line("Name", names::last(&worker.name));
    page.line("Agent", &worker.agent);
    page.line("Connected", if worker.connected { "yes" } else { "no" });
    page.line("Draining", if worker.draining { "yes" } else { "" });
    page.line("Capabilities", worker.capabilities.join(", "));
    page.line("Slots", worker.slots.to_string());
    page.line("Tasks", worker.tasks.join("\n"));
    page.line("Since", time(worker.connect_time.as_ref()));
    page.line("Heard", format!("{} ago", age(worker.heard_time.as_ref())));
    page.line("CPU", format!("{:.0}%", worker.cpu * 100.0));
    page.line("Memory", format!("{} MiB", worker.memory_bytes / (1024 * 1024)));
    page.line("Done", format!("{} succeeded, {} failed", worker.succeeded, worker.failed));
    page.line("Version", &worker.version);
    page.line("Runtime", &worker.runtime_version);
    page
}
