//! The life of a task as a timeline, and how it is shown. Knows no client and no clock.

mod making;

use std::time::{Duration, SystemTime};

use rota_proto::v1::{Event, Task, TaskState, event};
use serde::{Serialize, Serializer};

use self::making::Making;
use super::super::state_of;
use crate::output::{Paint, Table, between, duration, moment, name, seconds, state, time};

/// A length of time; programs read it as the API's JSON has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&seconds(self.0))
    }
}

/// The life of a task.
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

/// How long it was in which state.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    pub pending: Span,
    pub queued: Span,
    pub running: Span,
    pub input_required: Span,
    /// From its creation to its end, or until now.
    pub all: Span,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub time: String,
    /// Since the task's creation.
    pub since: Span,
    /// How long it took; of what goes on, so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took: Option<Span>,
    /// Whether it goes on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// A word for programs.
    pub kind: &'static str,
    #[serde(skip_serializing_if = "zero")]
    pub attempt: i32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub worker: String,
    /// Of a call, the tool that was called.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tool: String,
    /// For people.
    pub text: String,
    #[serde(skip)]
    paint: Paint,
    #[serde(skip)]
    at: Duration,
}

impl Step {
    /// Whether what it tells of went wrong.
    pub fn has_failed(&self) -> bool {
        self.paint == Paint::Bad
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn zero(number: &i32) -> bool {
    *number == 0
}

impl Flow {
    /// Whether an entry of the log is a part of a flow. What agents print and say is not.
    pub fn tells(event: &Event) -> bool {
        use event::Kind as K;
        !matches!(event.kind, None | Some(K::Output(_) | K::Message(_) | K::Progress(_)))
    }

    /// The flow of a task as its log tells it up to now.
    pub fn of(task: &Task, events: &[Event], now: SystemTime) -> Self {
        let born = task.create_time.as_ref().map_or(now, moment);
        let mut making = Making::new(task, born);
        for event in events {
            making.take(event);
        }
        let last = task.status.as_ref().and_then(|status| status.end_time.as_ref()).map_or(now, moment);
        making.totals.all = Span(between(born, last));
        making.finish(between(born, last));
        Self {
            task: task.name.clone(),
            name: name(task).to_owned(),
            state: state(state_of(task)).to_owned(),
            create_time: time(task.create_time.as_ref()),
            totals: making.totals,
            steps: making.steps,
            now: state_of(task),
        }
    }

    /// For eyes.
    pub fn text(&self, colored: bool) -> String {
        let mut table = Table::new(&["AFTER", "TOOK", "STEP", "TRY", "WHAT"]);
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
        format!("{}\nmade {}\n\n{}", self.headline(), self.create_time, table.render(colored))
    }

    /// How the task stands, and what took the time, in a line.
    pub fn headline(&self) -> String {
        let spent = [
            ("waited", self.totals.pending),
            ("in the queue", self.totals.queued),
            ("ran", self.totals.running),
            ("for answers", self.totals.input_required),
        ];
        let spent = spent.iter().filter(|(_, span)| !span.0.is_zero());
        let spent: Vec<_> = spent.map(|(what, span)| format!("{what} {}", duration(span.0))).collect();
        let spent = if spent.is_empty() { String::new() } else { format!(": {}", spent.join(", ")) };
        let so_far = if rota_client::watch::is_final(self.now) { "after" } else { "for" };
        format!("{} {} {so_far} {}{spent}", self.name, self.state, duration(self.totals.all.0))
    }
}

#[cfg(test)]
mod tests;
