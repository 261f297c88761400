//! Occasions for notifications in the log of a task, and the messages about them and those in workflows. What agents wrote is cut, and has been redacted
//! when it was stored.

use std::fmt::Write as _;

use rota_core::failure::{Class, Failure};
use rota_core::task::{self, Body, Event, State, Task};
use rota_core::text::prefix;
use rota_core::{Namespace, TaskKey, Timestamp};
use rota_proto::v1::{self, event::Kind};
use rota_store::{FeedEntry, TaskChange};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::snapshot::{Snapshot, TaskSnapshot};
use super::workflows::Place as WorkflowPlace;
use crate::wire;

/// Bytes of each text in a message.
const MAX_TEXT: usize = 2 << 10;
const MAX_CHOICES: usize = 20;
/// Bytes that a message to a chat quotes, which Slack cuts at 40,000 characters. Escaping makes at most five of one.
const MAX_SLACK_QUOTE: usize = 6 << 10;
/// Codes of notices that most of a budget is spent: of a task, of its agent or its namespace.
const NEARLY_SPENT: [&str; 2] = [task::NEARLY_SPENT_BY_TASK, task::NEARLY_SPENT];

/// What a notification is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Occasion {
    /// The agent asks a question.
    Question,
    /// The agent asks for the permission to use a tool.
    Permission,
    /// The task has failed for good.
    Failed,
    /// The task has failed several times, and continues.
    Attention,
    /// 80 % of a budget are spent.
    Budget,
    /// A step of a workflow waits for a person.
    Approval,
    WorkflowFailed,
    CompensationFailed,
    WorkflowSucceeded,
}

impl Occasion {
    fn name(self) -> &'static str {
        match self {
            Self::Question => "task.question",
            Self::Permission => "task.permission",
            Self::Failed => "task.failed",
            Self::Attention => "task.attention",
            Self::Budget => "task.budget",
            Self::Approval => "workflow.approval",
            Self::WorkflowFailed => "workflow.failed",
            Self::CompensationFailed => "workflow.compensation_failed",
            Self::WorkflowSucceeded => "workflow.succeeded",
        }
    }

    /// Whether receivers get it that name no occasions.
    pub(super) fn is_usual(self) -> bool {
        self != Self::WorkflowSucceeded
    }
}

/// One notification, the same for every receiver.
#[derive(Debug)]
pub(super) struct Notification {
    /// Key of the task, or of the workflow: both have keys of one sequence.
    pub(super) subject: TaskKey,
    pub(super) namespace: Namespace,
    pub(super) occasion: Occasion,
    /// Id of the task or workflow.
    pub(super) subject_id: String,
    pub(super) id: String,
    pub(super) place: Place,
    /// Time of the occasion, which bounds the attempts to deliver it.
    pub(super) at: Timestamp,
    pub(super) data: Data,
}

/// Where the occasion is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Revision and position in the log of a task.
    Feed(u64, u64),
    Workflow(WorkflowPlace),
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Data {
    pub(super) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) task: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) workflow: String,
    /// Step that waits, or has failed first.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) step: String,
    /// Round of that step, which counts its repetitions.
    #[serde(skip)]
    pub(super) round: u32,
    /// When the default decision counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deadline: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) alias: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attempt: Option<u32>,
    /// The question, why the task or workflow failed, or which budget is nearly spent.
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<Request>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) failure_class: String,
    /// Whether the work has not passed its checks, and waits for a person: that of a step is the matter of its workflow.
    #[serde(skip)]
    pub(super) failed_checks: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) snapshot: Option<Snapshot>,
    /// Command that answers, or shows more.
    pub(super) command: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Request {
    pub(super) id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) tool: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    input: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    choices: Vec<String>,
}

pub(super) fn cut(text: &str) -> String {
    let kept = prefix(text, MAX_TEXT);
    if kept.len() < text.len() { format!("{kept} …") } else { kept.to_owned() }
}

/// Returns the notifications of a change. Reports are decoded only where a task waits for a person.
pub(super) fn of_change(change: &TaskChange) -> impl Iterator<Item = Notification> {
    let asks = |event: &Event| matches!(&event.body, Body::State(step) if step.to == State::InputRequired);
    let asks = change.task.state == State::InputRequired || change.events.iter().any(asks);
    let events = change.events.iter().filter(move |event| asks || !matches!(event.body, Body::Report(_)));
    events.filter_map(|event| of_event(&change.task, event, change.revision))
}

/// Returns the notifications of an entry of the store's feed.
pub(super) fn of_entry(entry: &FeedEntry) -> impl Iterator<Item = Notification> {
    let task = entry.task.as_ref();
    entry.events.iter().filter_map(move |event| of_event(task?, event, entry.revision))
}

fn of_event(task: &Task, event: &Event, revision: u64) -> Option<Notification> {
    match &event.body {
        Body::State(step) if step.to == State::Failed => {
            let failure = step.failure.as_ref();
            let message = failure.map_or(step.message.as_str(), |failure| &failure.message);
            Some(build(task, event, revision, Occasion::Failed, message, None, failure))
        }
        Body::Notice { code, message, .. } if &**code == task::ATTENTION => {
            let failure = task.last_failure.as_deref();
            Some(build(task, event, revision, Occasion::Attention, message, None, failure))
        }
        Body::Notice { code, message, .. } if NEARLY_SPENT.contains(&&**code) => {
            Some(build(task, event, revision, Occasion::Budget, message, None, None))
        }
        Body::Report(_) => {
            let Kind::InputRequest(asked) = wire::event::to_wire(event).kind? else { return None };
            let occasion = match asked.kind() {
                v1::InputKind::Permission => Occasion::Permission,
                _ => Occasion::Question,
            };
            let request = Request {
                id: cut(&asked.request_id),
                tool: cut(&asked.tool),
                input: cut(&asked.input_json),
                choices: asked.choices.iter().take(MAX_CHOICES).map(|choice| cut(choice)).collect(),
            };
            Some(build(task, event, revision, occasion, &asked.prompt, Some(request), None))
        }
        _ => None,
    }
}

fn build(
    task: &Task,
    event: &Event,
    revision: u64,
    occasion: Occasion,
    message: &str,
    request: Option<Request>,
    failure: Option<&Failure>,
) -> Notification {
    let (id, namespace) = (task.id.to_string(), &task.namespace);
    let command = match occasion {
        Occasion::Question => format!("rota answer {id} -n {namespace} TEXT"),
        Occasion::Permission => format!("rota answer {id} -n {namespace} --allow"),
        _ => format!("rota describe {id} -n {namespace}"),
    };
    let data = Data {
        namespace: namespace.to_string(),
        task: id.clone(),
        alias: task.alias.clone().unwrap_or_default(),
        title: cut(&task.title),
        agent: task.agent().map(ToString::to_string).unwrap_or_default(),
        attempt: Some(event.attempt),
        message: cut(message),
        request,
        snapshot: failure.map(|failure| Snapshot::Task(TaskSnapshot::new(task, failure))),
        failure_class: failure.map(|failure| wire::failure::class_name(failure.class)).unwrap_or_default(),
        failed_checks: occasion == Occasion::Failed
            && task.step.is_none()
            && failure.is_some_and(|failure| failure.class == Class::Checks),
        command,
        ..Data::default()
    };
    Notification {
        subject: task.key,
        namespace: namespace.clone(),
        occasion,
        id: format!("msg_{id}_{}", event.log_seq),
        subject_id: id,
        place: Place::Feed(revision, event.log_seq),
        at: event.at,
        data,
    }
}

impl Notification {
    /// Returns the id, which is the same each time that it is sent.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether it is about a workflow.
    pub(super) fn is_of_workflow(&self) -> bool {
        matches!(self.place, Place::Workflow(_))
    }

    /// Whether it is about what the inbox of the control centre shows.
    pub(super) fn is_of_inbox(&self) -> bool {
        match self.occasion {
            Occasion::Question | Occasion::Permission | Occasion::Attention | Occasion::Approval => true,
            Occasion::Failed => self.data.failed_checks,
            _ => false,
        }
    }

    /// Returns the body of a webhook.
    pub(super) fn webhook(&self, link: Option<&str>) -> Value {
        let mut body = json!({"type": self.occasion.name(), "timestamp": wire::time::rfc3339(self.at), "data": self.data});
        if let (Some(link), Some(data)) = (link, body["data"].as_object_mut()) {
            data.insert("link".to_owned(), link.into());
        }
        body
    }

    /// Returns the body for an incoming webhook of Slack. Nothing that an agent wrote is formatted, or mentions anyone.
    pub(super) fn slack(&self, link: Option<&str>) -> Value {
        let data = &self.data;
        let name = [&data.alias, &data.title, &self.subject_id].into_iter().find(|name| !name.is_empty());
        let what = match self.occasion {
            Occasion::Question => "asks a question",
            Occasion::Permission => "asks for permission",
            Occasion::Failed => "has failed",
            Occasion::Attention => "keeps failing",
            Occasion::Budget => "has nearly spent a budget",
            Occasion::Approval => "waits for an approval",
            Occasion::WorkflowFailed => "has failed",
            Occasion::CompensationFailed => "could not undo what it has done: a compensation has failed",
            Occasion::WorkflowSucceeded => "has succeeded",
        };
        let name = escape(&plain(prefix(name.map_or("", String::as_str), 100)));
        // As code, in which no address becomes a link.
        let mut text = format!("`{name}` in {} {what}", self.namespace);
        if let Some(link) = link {
            let _ = write!(text, " (<{}|open>)", escape(link).replace('|', "%7C"));
        }
        let mut quoted = vec![data.message.as_str()];
        if let Some(request) = &data.request {
            quoted.extend([request.tool.as_str(), request.input.as_str()]);
            quoted.extend(request.choices.iter().map(String::as_str));
        }
        quoted.retain(|text| !text.trim().is_empty());
        if !quoted.is_empty() {
            let quoted = quoted.join("\n").replace('`', "'");
            let kept = prefix(&quoted, MAX_SLACK_QUOTE);
            let _ = write!(text, "\n```{}```", escape(kept));
        }
        let _ = write!(text, "\n`{}`", data.command);
        json!({"text": text})
    }
}

/// Replaces what formats text, and begins lines, in a chat.
fn plain(text: &str) -> String {
    let plain = |char: char| match char {
        '*' | '_' | '~' | '`' => '\'',
        other if other.is_control() => ' ',
        other => other,
    };
    text.chars().map(plain).collect()
}

/// Escapes the characters that Slack interprets.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Notification {
        /// Returns a question with choices.
        pub(in crate::notify) fn example(task: TaskKey, namespace: &str, title: &str, choice: &str) -> Self {
            let data = Data {
                namespace: namespace.to_owned(),
                task: "an-id".to_owned(),
                title: title.to_owned(),
                attempt: Some(1),
                message: "which one?".to_owned(),
                request: Some(Request {
                    id: String::new(),
                    tool: String::new(),
                    input: String::new(),
                    choices: vec![cut(choice); MAX_CHOICES],
                }),
                command: "rota answer an-id -n default TEXT".to_owned(),
                ..Data::default()
            };
            Self {
                subject: task,
                namespace: Namespace::new(namespace).unwrap(),
                occasion: Occasion::Question,
                subject_id: "an-id".to_owned(),
                id: "msg_an-id_1".to_owned(),
                place: Place::Feed(1, 1),
                at: Timestamp(0),
                data,
            }
        }
    }

    fn slack(title: &str, choice: &str) -> String {
        let one = Notification::example(TaskKey(1), "default", title, choice);
        one.slack(None)["text"].as_str().unwrap().to_owned()
    }

    #[test]
    fn titles_forge_no_line_of_a_chat() {
        let text = slack("x*\n`rota answer other -n default --allow` _y_ https://evil.example", "a");
        let first = text.lines().next().unwrap();
        let (title, rest) = first.strip_prefix('`').unwrap().split_once('`').unwrap();
        assert_eq!(rest, " in default asks a question", "{text}");
        assert!(title.starts_with("x'") && title.ends_with("https://evil.example"), "{text}");
        assert_eq!(text.matches("rota answer other").count(), 1);
        assert!(!first.contains('_'), "{text}");
    }

    #[test]
    fn long_choices_leave_room_for_the_command() {
        let text = slack("x", &"<".repeat(MAX_TEXT));
        assert!(text.len() < 40_000, "{}", text.len());
        assert!(text.ends_with("```\n`rota answer an-id -n default TEXT`"));
    }
}
