//! Timeline of a task, and its rendering. Knows no client and no clock.

mod builder;

use std::time::{Duration, SystemTime};

use rota_proto::v1::{Event, Task, TaskState, event};
use serde::{Serialize, Serializer};

use self::builder::FlowBuilder;
use super::super::state_of;
use crate::output::{Paint, Table, between, duration, moment, name, seconds, state, time};

/// Duration, serialized as in the JSON of the API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApiDuration(pub Duration);

impl Serialize for ApiDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&seconds(self.0))
    }
}

/// Timeline of a task, built from its log.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    pub task: String,
    pub name: String,
    pub state: String,
    pub create_time: String,
    pub totals: Totals,
    pub steps: Vec<Step>,
    #[serde(skip)]
    now: TaskState,
}

/// Total time per state.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    pub pending: ApiDuration,
    pub queued: ApiDuration,
    pub running: ApiDuration,
    pub input_required: ApiDuration,
    /// From its creation to its end, or until now.
    pub all: ApiDuration,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub time: String,
    /// Time since the creation of the task.
    pub since: ApiDuration,
    /// Duration; so far, if the step is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took: Option<ApiDuration>,
    /// Whether the step has not ended yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// Stable name of the kind of step, for programs.
    pub kind: &'static str,
    #[serde(skip_serializing_if = "zero")]
    pub attempt: i32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub worker: String,
    /// Name of the tool, for a tool call.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tool: String,
    /// Text for humans.
    pub text: String,
    #[serde(skip)]
    paint: Paint,
    #[serde(skip)]
    at: Duration,
}

impl Step {
    /// Whether the step is a failure.
    pub fn has_failed(&self) -> bool {
        self.paint == Paint::Bad
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "required by serde")]
fn zero(number: &i32) -> bool {
    *number == 0
}

impl Flow {
    /// Whether an entry of the log is part of a timeline. Output and messages are not.
    pub fn includes(event: &Event) -> bool {
        use event::Kind as K;
        !matches!(event.kind, None | Some(K::Output(_) | K::Message(_) | K::Progress(_)))
    }

    /// Returns the timeline of a task from its log up to now.
    pub fn of(task: &Task, events: &[Event], now: SystemTime) -> Self {
        let born = task.create_time.as_ref().map_or(now, moment);
        let mut builder = FlowBuilder::new(task, born);
        for event in events {
            builder.add(event);
        }
        let last = task.status.as_ref().and_then(|status| status.end_time.as_ref()).map_or(now, moment);
        builder.totals.all = ApiDuration(between(born, last));
        builder.finish(between(born, last));
        Self {
            task: task.name.clone(),
            name: name(task).to_owned(),
            state: state(state_of(task)).to_owned(),
            create_time: time(task.create_time.as_ref()),
            totals: builder.totals,
            steps: builder.steps,
            now: state_of(task),
        }
    }

    /// Returns the timeline as a table for humans.
    pub fn text(&self, colored: bool) -> String {
        let mut table = Table::new(&["AFTER", "TOOK", "STEP", "ATTEMPT", "DETAILS"]);
        for step in &self.steps {
            let took = match (step.took, step.open) {
                (Some(took), true) => format!("{}…", duration(took.0)),
                (Some(took), false) => duration(took.0),
                (None, _) => String::new(),
            };
            table.row([
                (format!("+{}", duration(step.since.0)), Paint::Faint),
                (took, Paint::Plain),
                (step.kind.replace('_', " "), step.paint),
                (if step.attempt == 0 { String::new() } else { step.attempt.to_string() }, Paint::Plain),
                (step.text.clone(), Paint::Plain),
            ]);
        }
        format!("{}\ncreated {}\n\n{}", self.headline(), self.create_time, table.render(colored))
    }

    /// Returns one line with the state and the total time per state.
    pub fn headline(&self) -> String {
        let spent = [
            ("pending", self.totals.pending),
            ("queued", self.totals.queued),
            ("running", self.totals.running),
            ("waiting for input", self.totals.input_required),
        ];
        let spent = spent.iter().filter(|(_, span)| !span.0.is_zero());
        let spent: Vec<_> = spent.map(|(what, span)| format!("{what} {}", duration(span.0))).collect();
        let spent = if spent.is_empty() { String::new() } else { format!(": {}", spent.join(", ")) };
        let so_far = if self.now.is_final() { "after" } else { "for" };
        format!("{} {} {so_far} {}{spent}", self.name, self.state, duration(self.totals.all.0))
    }
}

#[cfg(test)]
mod tests;
