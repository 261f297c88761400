//! Builds a timeline from a task's record and its log, entry by entry: the steps, their texts and durations.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rota_proto::v1::{
    Event, InputKind, InputRequest, Severity, StateChange, Task, TaskState, ToolCall, Usage, event,
};

use super::{ApiDuration, Step, Totals};
use crate::output::{Paint, between, failure, first_line, moment, money, plain, target, time, wait};

/// Maximum characters shown of a tool's input or a question.
const MAX_TEXT: usize = 100;

pub(super) struct FlowBuilder<'a> {
    task: &'a Task,
    created_at: SystemTime,
    pub(super) steps: Vec<Step>,
    /// Step of the current state, and the state.
    phase: Option<(usize, TaskState)>,
    /// Steps of tool calls without a result, by call id.
    tools: BTreeMap<String, usize>,
    /// Steps of unanswered questions, by request id.
    questions: BTreeMap<String, usize>,
    pub(super) totals: Totals,
}

impl<'a> FlowBuilder<'a> {
    pub(super) fn new(task: &'a Task, created_at: SystemTime) -> Self {
        Self {
            task,
            created_at,
            steps: Vec::new(),
            phase: None,
            tools: BTreeMap::new(),
            questions: BTreeMap::new(),
            totals: Totals::default(),
        }
    }

    pub(super) fn add(&mut self, event: &Event) {
        use event::Kind as K;
        match &event.kind {
            Some(K::State(change)) => self.state(event, change),
            Some(K::ToolCall(call)) => {
                let at = self.push(event, "tool", Paint::Plain, tool(call));
                self.steps[at].open = true;
                self.steps[at].tool = plain(&call.tool);
                self.tools.insert(call.call_id.clone(), at);
            }
            Some(K::ToolResult(result)) => {
                let Some(at) = self.tools.remove(&result.call_id) else { return };
                self.close(at, self.since(event));
                if result.is_error {
                    self.steps[at].paint = Paint::Bad;
                    let why = first_line(&result.output, MAX_TEXT);
                    self.steps[at].text.push_str(&format!(" failed: {why}"));
                }
            }
            Some(K::InputRequest(request)) => {
                let at = self.push(event, "asks", Paint::Waiting, question(request));
                self.steps[at].open = true;
                self.questions.insert(request.request_id.clone(), at);
            }
            Some(K::InputReceived(given)) => {
                let input = given.input.clone().unwrap_or_default();
                if let Some(at) = self.questions.remove(&input.request_id) {
                    self.close(at, self.since(event));
                }
                let decision = input.decision().as_str_name().trim_start_matches("DECISION_").to_lowercase();
                let decision = if decision == "unspecified" { "" } else { &decision };
                let text = format!("{decision} {}", first_line(&input.text, MAX_TEXT));
                self.push(event, "input", Paint::Plain, text.trim().to_owned());
            }
            Some(K::Usage(usage)) => self.usage(event, usage),
            Some(K::WorkEnded(_)) => {
                self.push(event, "stores", Paint::Plain, "what the attempt has left".to_owned());
            }
            Some(K::Notice(notice)) => {
                let paint = match notice.severity() {
                    Severity::High | Severity::Critical => Paint::Bad,
                    Severity::Medium => Paint::Waiting,
                    _ => Paint::Faint,
                };
                let text = format!("{}: {}", notice.code, first_line(&notice.message, MAX_TEXT));
                self.push(event, "notice", paint, text);
            }
            Some(K::Change(change)) => {
                let text = format!("{}: {}", change.fields.join(", "), first_line(&change.message, MAX_TEXT));
                self.push(event, "changed", Paint::Faint, text.trim_end_matches([':', ' ']).to_owned());
            }
            None | Some(K::Output(_) | K::Message(_) | K::Progress(_)) => {}
        }
    }

    fn state(&mut self, event: &Event, change: &StateChange) {
        let (at, to) = (self.since(event), change.to());
        self.count(at);
        // The attempt continues while input is required: the question has a step of its own.
        let asks = |state| state == TaskState::InputRequired;
        if asks(to) || (asks(change.from()) && to == TaskState::Running) {
            if let Some((step, _)) = self.phase {
                self.phase = Some((step, to));
                self.mark(at);
            }
            return;
        }
        if let Some((step, _)) = self.phase {
            self.close(step, at);
        }
        if change.from() == TaskState::Running || asks(change.from()) {
            // Calls and questions that are still open end with the attempt.
            let unfinished: Vec<_> = std::mem::take(&mut self.tools).into_values().collect();
            let unanswered = std::mem::take(&mut self.questions).into_values();
            unfinished.into_iter().chain(unanswered).for_each(|step| self.close(step, at));
        }
        let (kind, text) = self.describe(change);
        let step = self.push(event, kind, to.into(), text);
        self.steps[step].worker.clone_from(&change.worker);
        if change.failure.is_some() || matches!(kind, "not_taken" | "rejected") {
            self.steps[step].paint = if to == TaskState::Failed { Paint::Bad } else { Paint::Waiting };
        }
        if !to.is_final() {
            self.steps[step].open = true;
            self.phase = Some((step, to));
            self.mark(at);
        } else {
            self.phase = None;
        }
    }

    /// Returns the kind and the text of a state change.
    fn describe(&self, change: &StateChange) -> (&'static str, String) {
        let on = || if change.worker.is_empty() { String::new() } else { format!("on {}", change.worker) };
        let why = || match &change.failure {
            Some(cause) => failure(cause),
            None => change.message.clone(),
        };
        let again = || match &change.retry_time {
            Some(at) => format!("{}; next attempt at {}", why(), time(Some(at))),
            None => why(),
        };
        match (change.to(), change.reason.as_str()) {
            (TaskState::Pending, "created") => ("created", self.created()),
            (TaskState::Pending, "retry" | "undelivered") => ("retry", again()),
            (TaskState::Pending, "worker_lost") => ("worker_lost", again()),
            (TaskState::Pending, "handed_back") => ("handed_back", again()),
            (TaskState::Pending, "not_taken") => ("not_taken", format!("{} {}", again(), on())),
            (TaskState::Pending, "rejected") => ("rejected", format!("{} {}", again(), on())),
            (TaskState::Pending, reason) => ("waits", format!("{} {}", reason.replace('_', " "), why())),
            (TaskState::Queued, _) => ("queued", format!("for {}", target(self.task))),
            (TaskState::Assigned, _) => ("assigned", on()),
            (TaskState::Running | TaskState::InputRequired, _) => ("running", on()),
            (TaskState::Succeeded, _) => ("succeeded", change.message.clone()),
            (TaskState::Failed, _) => ("failed", why()),
            (TaskState::Cancelled, _) => ("cancelled", change.message.clone()),
            (TaskState::Unspecified, _) => ("state", change.reason.clone()),
        }
    }

    /// Returns the text of a task's creation, from its record: its log has no details.
    fn created(&self) -> String {
        let spec = self.task.spec.clone().unwrap_or_default();
        let mut text = format!("priority {}", self.task.priority.unwrap_or(5));
        if !spec.depends_on.is_empty() {
            let names: Vec<_> = spec.depends_on.iter().map(|one| one.task.as_str()).collect();
            text.push_str(&format!(", after {}", names.join(", ")));
        }
        if let Some(start) = &spec.start_time {
            text.push_str(&format!(", not before {}", time(Some(start))));
        }
        if !self.task.retry_of.is_empty() {
            text.push_str(&format!(", retry of {}", rota_proto::names::last(&self.task.retry_of)));
        }
        text
    }

    /// Updates the usage of an attempt; later reports replace earlier ones.
    fn usage(&mut self, event: &Event, usage: &Usage) {
        let Some(step) =
            self.steps.iter_mut().rev().find(|step| step.kind == "running" && step.attempt == event.attempt)
        else {
            return;
        };
        let read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens;
        let cost = money(usage.cost_micro_usd);
        let used = format!("{read} tokens in, {} out {cost}", usage.output_tokens);
        let on = step.text.split("; ").next().unwrap_or_default().to_owned();
        step.text = format!("{on}; {}", used.trim_end());
    }

    fn since(&self, event: &Event) -> Duration {
        event.time.as_ref().map_or(Duration::ZERO, |time| between(self.created_at, moment(time)))
    }

    fn push(&mut self, event: &Event, kind: &'static str, paint: Paint, text: String) -> usize {
        let since = self.since(event);
        self.steps.push(Step {
            time: time(event.time.as_ref()),
            since: ApiDuration(since),
            took: None,
            open: false,
            kind,
            attempt: event.attempt,
            worker: String::new(),
            tool: String::new(),
            text: first_line(&text, 4 * MAX_TEXT),
            paint,
            at: since,
        });
        self.steps.len() - 1
    }

    fn close(&mut self, step: usize, at: Duration) {
        let step = &mut self.steps[step];
        step.took = Some(ApiDuration(at.saturating_sub(step.since.0)));
        step.open = false;
    }

    /// Adds the time in the current state up to a moment to the totals.
    fn count(&mut self, until: Duration) {
        let Some((step, state)) = self.phase else { return };
        let spent = until.saturating_sub(self.steps[step].at);
        let total = match state {
            TaskState::Pending => &mut self.totals.pending,
            TaskState::Queued | TaskState::Assigned => &mut self.totals.queued,
            TaskState::InputRequired => &mut self.totals.input_required,
            _ => &mut self.totals.running,
        };
        total.0 += spent;
    }

    /// Starts the time of the current state.
    fn mark(&mut self, at: Duration) {
        if let Some((step, _)) = self.phase {
            self.steps[step].at = at;
        }
    }

    /// Ends the timeline: open steps have taken this long so far.
    pub(super) fn finish(&mut self, until: Duration) {
        self.count(until);
        if let (Some((step, TaskState::Pending)), Some(status)) = (self.phase, &self.task.status) {
            let waits: Vec<_> = status.waiting.iter().map(wait).collect();
            if !waits.is_empty() {
                self.steps[step].text.push_str(&format!("; waiting for: {}", waits.join(", ")));
            }
        }
        for step in self.steps.iter_mut().filter(|step| step.open) {
            step.took = Some(ApiDuration(until.saturating_sub(step.since.0)));
        }
    }
}

fn tool(call: &ToolCall) -> String {
    format!("{} {}", call.tool, first_line(&call.input_json, MAX_TEXT)).trim_end().to_owned()
}

fn question(request: &InputRequest) -> String {
    match request.kind() {
        InputKind::Permission => {
            let input = first_line(&request.input_json, MAX_TEXT);
            format!("allow {} {input} {}", request.tool, first_line(&request.prompt, MAX_TEXT))
                .trim_end()
                .to_owned()
        }
        _ => first_line(&request.prompt, MAX_TEXT),
    }
}
