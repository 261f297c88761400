//! Permission requests of the CLI: decided by the task's policy, or queued for a user's answer. Pure: returns
//! what to send and what to report.
//!
//! The tool `AskUserQuestion` arrives as a permission request, too. Its answer is the tool's own input plus
//! `answers` {question: answer}; an answer is one of the choices or free text. Each question becomes an
//! `InputRequest` of its own. Only the policy ASK has a user who could answer.

use std::collections::BTreeMap;

use rota_proto::v1::{Decision, InputKind, InputRequest, PermissionPolicy, Severity, TaskInput, event};
use serde_json::{Map, Value};

use super::control::{CanUseTool, Question, Questions};
use super::events;
use super::send;

const QUESTION_TOOL: &str = "AskUserQuestion";

/// Lines and events that result from a step.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Lines for the CLI, in order.
    pub(super) send: Vec<Value>,
    pub(super) events: Vec<event::Kind>,
}

/// Permission policy, and the requests that wait for a user.
#[derive(Debug)]
pub(super) struct PermissionQueue {
    policy: PermissionPolicy,
    /// Requests by the CLI's id.
    waiting: BTreeMap<String, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    input: Value,
    /// Empty for a plain permission.
    questions: Vec<Question>,
    answers: Map<String, Value>,
}

impl PermissionQueue {
    pub(super) fn new(policy: PermissionPolicy) -> Self {
        Self { policy, waiting: BTreeMap::new() }
    }

    /// Handles a request of the CLI to use a tool.
    pub(super) fn ask(&mut self, id: &str, request: &CanUseTool) -> Effects {
        let mut effects = Effects::default();
        let questions = if request.tool_name == QUESTION_TOOL { questions(&request.input) } else { vec![] };
        match self.policy {
            PermissionPolicy::Ask => {
                effects.events = requests(id, request, &questions);
                let waiting = Waiting { input: request.input.clone(), questions, answers: Map::new() };
                self.waiting.insert(id.to_owned(), waiting);
            }
            // If allowed without answers, the CLI would report to the model that the user did not answer.
            _ if !questions.is_empty() => {
                effects.send.push(send::deny(id, "No user is available to answer questions in this run. Decide yourself, and state your assumptions in your answer."));
            }
            PermissionPolicy::Allow => effects.send.push(send::allow(id, &request.input)),
            PermissionPolicy::Deny | PermissionPolicy::Unspecified => {
                effects.send.push(send::deny(
                    id,
                    "This tool is not allowed in this run, and no user is available to allow it. Continue without it.",
                ));
                let reason = request.decision_reason.as_deref().unwrap_or("no rule allows it");
                effects.events.push(events::notice(
                    Severity::Low,
                    "permission_denied",
                    format!("{} denied: {reason}", request.tool_name),
                ));
            }
        }
        effects
    }

    /// Handles a user's answer to a permission request or a question.
    pub(super) fn answer(&mut self, input: &TaskInput) -> Effects {
        let mut effects = Effects::default();
        let (id, number) = split(&input.request_id);
        let Some(mut waiting) = self.waiting.remove(id) else {
            effects.events.push(events::notice(
                Severity::Low,
                "input_unknown",
                format!("answer ignored: no request {:?} is waiting", input.request_id),
            ));
            return effects;
        };
        let denied = input.decision() == Decision::Deny;
        if waiting.questions.is_empty() || denied {
            // Only an explicit decision lets a tool run; a text does not.
            let allowed = input.decision() == Decision::Allow;
            effects.send.push(if allowed {
                send::allow(id, &waiting.input)
            } else {
                let reason = if input.text.is_empty() { "The user denied it." } else { &input.text };
                send::deny(id, reason)
            });
            return effects;
        }
        if let Some(question) = waiting.questions.get(number) {
            waiting.answers.insert(question.question.clone(), Value::String(input.text.clone()));
        }
        if waiting.answers.len() < waiting.questions.len() {
            self.waiting.insert(id.to_owned(), waiting);
            return effects;
        }
        if let Value::Object(fields) = &mut waiting.input {
            fields.insert("answers".to_owned(), Value::Object(waiting.answers));
        }
        effects.send.push(send::allow(id, &waiting.input));
        effects
    }

    /// Removes a request that the CLI has cancelled.
    pub(super) fn withdraw(&mut self, id: &str) -> Effects {
        let mut effects = Effects::default();
        if self.waiting.remove(id).is_some() {
            effects.events.push(events::notice(
                Severity::Low,
                "input_withdrawn",
                format!("the agent withdrew the request {id}"),
            ));
        }
        effects
    }
}

/// Parses the questions, each text once, since answers are keyed by it.
fn questions(input: &Value) -> Vec<Question> {
    let mut questions = serde_json::from_value::<Questions>(input.clone()).unwrap_or_default().questions;
    let mut seen = std::collections::BTreeSet::new();
    questions.retain(|question| seen.insert(question.question.clone()));
    questions
}

/// Builds an event for each answer that is needed.
fn requests(id: &str, request: &CanUseTool, questions: &[Question]) -> Vec<event::Kind> {
    let tool = request.tool_name.as_str();
    if questions.is_empty() {
        let reason = request.decision_reason.as_deref().or(request.description.as_deref());
        let prompt = match reason {
            Some(reason) => format!("Allow the agent to use {tool}? ({reason})"),
            None => format!("Allow the agent to use {tool}?"),
        };
        return vec![event::Kind::InputRequest(InputRequest {
            request_id: id.to_owned(),
            kind: InputKind::Permission.into(),
            prompt,
            tool: tool.to_owned(),
            input_json: request.input.to_string(),
            choices: vec![],
        })];
    }
    let question = |(number, question): (usize, &Question)| {
        let several = if question.multi_select { " (multiple choices allowed)" } else { "" };
        event::Kind::InputRequest(InputRequest {
            request_id: join(id, number),
            kind: InputKind::Question.into(),
            prompt: format!("{}{several}", question.question),
            choices: question.options.iter().map(|choice| choice.label.clone()).collect(),
            ..InputRequest::default()
        })
    };
    questions.iter().enumerate().map(question).collect()
}

/// Id of a question: the CLI's request id for the first one, with a number appended for others.
fn join(id: &str, number: usize) -> String {
    if number == 0 { id.to_owned() } else { format!("{id}#{number}") }
}

fn split(id: &str) -> (&str, usize) {
    id.rsplit_once('#').and_then(|(id, number)| Some((id, number.parse().ok()?))).unwrap_or((id, 0))
}

#[cfg(test)]
mod tests;
