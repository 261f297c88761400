//! Decides whether a tool may run, by the task's policy, and keeps what waits for a person's answer.
//! Pure: it says what to send and what to tell, and sends nothing.
//!
//! The tool `AskUserQuestion` comes the same way as a permission. Its answer is the tool's own input with
//! `answers` {question: answer} in it; an answer may be one of the choices or a person's own words. Each
//! question becomes an `InputRequest` of its own. Only the policy ASK has anybody who could answer.

use std::collections::BTreeMap;

use rota_proto::v1::{Decision, InputKind, InputRequest, PermissionPolicy, Severity, TaskInput, event};
use serde_json::{Map, Value};

use super::control::{CanUseTool, Question, Questions};
use super::events;
use super::send;

const QUESTION_TOOL: &str = "AskUserQuestion";

/// What a step leads to.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Lines for the CLI.
    pub(super) send: Vec<Value>,
    pub(super) events: Vec<event::Kind>,
}

/// Where requests wait for people.
#[derive(Debug)]
pub(super) struct Desk {
    policy: PermissionPolicy,
    /// By the CLI's id of the request.
    waiting: BTreeMap<String, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    input: Value,
    /// Empty for a permission.
    questions: Vec<Question>,
    answers: Map<String, Value>,
}

impl Desk {
    pub(super) fn new(policy: PermissionPolicy) -> Self {
        Self { policy, waiting: BTreeMap::new() }
    }

    /// The CLI asks whether a tool may run.
    pub(super) fn ask(&mut self, id: &str, request: &CanUseTool) -> Effects {
        let mut effects = Effects::default();
        let questions = if request.tool_name == QUESTION_TOOL { questions(&request.input) } else { vec![] };
        match self.policy {
            PermissionPolicy::Ask => {
                effects.events = requests(id, request, &questions);
                let waiting = Waiting { input: request.input.clone(), questions, answers: Map::new() };
                self.waiting.insert(id.to_owned(), waiting);
            }
            // Allowed without answers, the model would read that the user did not bother to answer.
            _ if !questions.is_empty() => {
                effects.send.push(send::deny(id, "Nobody can answer questions in this run. Decide by yourself, and say in your answer what you assumed."));
            }
            PermissionPolicy::Allow => effects.send.push(send::allow(id, &request.input)),
            PermissionPolicy::Deny | PermissionPolicy::Unspecified => {
                effects.send.push(send::deny(
                    id,
                    "This tool is not allowed in this run, and nobody can be asked. Go on without it.",
                ));
                let why = request.decision_reason.as_deref().unwrap_or("no rule allows it");
                effects.events.push(events::notice(
                    Severity::Low,
                    "permission_denied",
                    format!("{} was denied: {why}", request.tool_name),
                ));
            }
        }
        effects
    }

    /// A person answers.
    pub(super) fn answer(&mut self, input: &TaskInput) -> Effects {
        let mut effects = Effects::default();
        let (id, number) = split(&input.request_id);
        let Some(mut waiting) = self.waiting.remove(id) else {
            effects.events.push(events::notice(
                Severity::Low,
                "input_unknown",
                format!("an answer came to {:?}, which nobody waits for (any more)", input.request_id),
            ));
            return effects;
        };
        let denied = input.decision() == Decision::Deny;
        if waiting.questions.is_empty() || denied {
            // A text where a decision is due lets nothing run.
            let allowed = input.decision() == Decision::Allow;
            effects.send.push(if allowed {
                send::allow(id, &waiting.input)
            } else {
                let why = if input.text.is_empty() { "A person denied it." } else { &input.text };
                send::deny(id, why)
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

    /// The CLI no longer wants an answer.
    pub(super) fn withdraw(&mut self, id: &str) -> Effects {
        let mut effects = Effects::default();
        if self.waiting.remove(id).is_some() {
            effects.events.push(events::notice(
                Severity::Low,
                "input_withdrawn",
                format!("the agent no longer waits for an answer to {id}"),
            ));
        }
        effects
    }
}

/// The questions asked, each text once: the answers are found by it.
fn questions(input: &Value) -> Vec<Question> {
    let mut asked = serde_json::from_value::<Questions>(input.clone()).unwrap_or_default().questions;
    let mut seen = std::collections::BTreeSet::new();
    asked.retain(|question| seen.insert(question.question.clone()));
    asked
}

/// The event for each thing that a person has to answer.
fn requests(id: &str, request: &CanUseTool, questions: &[Question]) -> Vec<event::Kind> {
    let tool = request.tool_name.as_str();
    if questions.is_empty() {
        let reason = request.decision_reason.as_deref().or(request.description.as_deref());
        let prompt = match reason {
            Some(reason) => format!("May it use {tool}? ({reason})"),
            None => format!("May it use {tool}?"),
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
        let several = if question.multi_select { " (several may be chosen)" } else { "" };
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

/// The first question has the CLI's own id, further ones a number behind it.
fn join(id: &str, number: usize) -> String {
    if number == 0 { id.to_owned() } else { format!("{id}#{number}") }
}

fn split(id: &str) -> (&str, usize) {
    id.rsplit_once('#').and_then(|(id, number)| Some((id, number.parse().ok()?))).unwrap_or((id, 0))
}

#[cfg(test)]
#[path = "permission_tests.rs"]
mod tests;
