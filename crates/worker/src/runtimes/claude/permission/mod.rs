//! Permission requests of the CLI: decided by the task's policy, or queued for a user's answer. Pure: returns
//! what to send and what to report.
//!
//! The tool `AskUserQuestion` arrives as a permission request, too. Its answer is the tool's own input plus
//! `answers` {question: answer}; an answer is one of the choices or free text. Each question becomes an
//! `InputRequest` of its own. Only the policy ASK has a user who could answer.
//!
//! An `InputRequest` is open from its report until a user answers it or this queue settles it. The control plane accepts a
//! bounded number of open ones; further ones wait here.

use std::collections::{BTreeMap, VecDeque};

use rota_proto::limits::OPEN_REQUESTS;
use rota_proto::v1::{
    Decision, InputKind, InputReceived, InputRequest, PermissionPolicy, Severity, TaskInput, event,
};
use rota_proto::worker::v1::AnsweredQuestion;
use serde_json::{Map, Value};

use super::control::{CanUseTool, Question, Questions};
use super::events;
use super::send;

mod rules;

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
    /// Ids of the input requests that are open in the control plane.
    open: Vec<String>,
    /// Input requests that are not reported yet.
    queued: VecDeque<InputRequest>,
    /// Answers to what an earlier attempt has asked, each of which counts once for the same question.
    given: Vec<(InputRequest, TaskInput)>,
}

#[derive(Debug)]
struct Waiting {
    input: Value,
    /// Empty for a plain permission.
    questions: Vec<Question>,
    answers: Map<String, Value>,
}

impl Waiting {
    /// Ids of its input requests.
    fn requests(&self, id: &str) -> Vec<String> {
        (0..self.questions.len().max(1)).map(|number| join(id, number)).collect()
    }
}

impl PermissionQueue {
    pub(super) fn new(policy: PermissionPolicy) -> Self {
        Self {
            policy,
            waiting: BTreeMap::new(),
            open: Vec::new(),
            queued: VecDeque::new(),
            given: Vec::new(),
        }
    }

    /// Takes in the answers to what an earlier attempt has asked: the agent asks again, and people do not answer twice.
    pub(super) fn answered_before(&mut self, answers: &[AnsweredQuestion]) {
        let both = |one: &AnsweredQuestion| one.question.clone().zip(one.answer.clone());
        self.given = answers.iter().filter_map(both).filter(|(asked, _)| !asked.input_incomplete).collect();
    }

    /// Takes the answer to a question that was asked before.
    fn take_given(&mut self, asked: &InputRequest) -> Option<TaskInput> {
        let same = |known: &InputRequest| {
            (known.kind, &known.tool, &known.choices) == (asked.kind, &asked.tool, &asked.choices)
                && match asked.kind() {
                    InputKind::Permission => known.input_json == asked.input_json,
                    _ => known.prompt == asked.prompt,
                }
        };
        let at = self.given.iter().position(|(known, _)| same(known))?;
        let (_, input) = self.given.remove(at);
        Some(TaskInput { request_id: asked.request_id.clone(), ..input })
    }

    /// Handles a request of the CLI to use a tool.
    pub(super) fn ask(&mut self, id: &str, request: &CanUseTool) -> Effects {
        let mut effects = Effects::default();
        let questions = if request.tool_name == QUESTION_TOOL { questions(&request.input) } else { vec![] };
        match self.policy {
            PermissionPolicy::Ask => {
                let mut answers = Vec::new();
                for asked in requests(id, request, &questions) {
                    match self.take_given(&asked) {
                        Some(answer) => answers.push(answer),
                        None => self.queued.push_back(asked),
                    }
                }
                let waiting = Waiting { input: request.input.clone(), questions, answers: Map::new() };
                self.waiting.insert(id.to_owned(), waiting);
                self.report_queued(&mut effects);
                for answer in answers {
                    let text = format!("{}: the answer that was given before is used", request.tool_name);
                    effects.events.push(events::notice(Severity::Low, "answered_before", text));
                    let Effects { send, events } = self.answer(&answer);
                    effects.send.extend(send);
                    effects.events.extend(events);
                }
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
        // The control plane has closed it with the answer.
        self.open.retain(|open| *open != input.request_id);
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
                match serde_json::from_str(&input.updated_input_json) {
                    Ok(edited @ Value::Object(_)) => waiting.input = edited,
                    // Checked by the control plane.
                    _ if input.updated_input_json.is_empty() => {}
                    _ => {
                        effects.send.push(send::deny(id, "The user's answer could not be read."));
                        self.settle(&waiting.requests(id), &mut effects);
                        return effects;
                    }
                }
                match input.rules.as_slice() {
                    [] => send::allow(id, &waiting.input),
                    rules => send::allow_with_rules(id, &waiting.input, rules),
                }
            } else {
                let reason = if input.text.is_empty() { "The user denied it." } else { &input.text };
                send::deny(id, reason)
            });
            self.settle(&waiting.requests(id), &mut effects);
            return effects;
        }
        if let Some(question) = waiting.questions.get(number) {
            waiting.answers.insert(question.question.clone(), Value::String(input.text.clone()));
        }
        self.report_queued(&mut effects);
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
        if let Some(waiting) = self.waiting.remove(id) {
            effects.events.push(events::notice(
                Severity::Low,
                "input_withdrawn",
                format!("the agent withdrew the request {id}"),
            ));
            self.settle(&waiting.requests(id), &mut effects);
        }
        effects
    }

    /// Removes all requests, when nothing waits for their answers any more.
    pub(super) fn withdraw_all(&mut self) -> Effects {
        self.waiting.clear();
        self.queued.clear();
        Effects { events: self.open.drain(..).map(settled).collect(), ..Effects::default() }
    }

    /// Settles input requests that no user has to answer any more, whether they are open or queued.
    fn settle(&mut self, requests: &[String], effects: &mut Effects) {
        self.queued.retain(|queued| !requests.contains(&queued.request_id));
        let closed = self.open.extract_if(.., |open| requests.contains(open));
        effects.events.extend(closed.map(settled));
        self.report_queued(effects);
    }

    /// Reports queued input requests for which there is room.
    fn report_queued(&mut self, effects: &mut Effects) {
        let room = OPEN_REQUESTS.saturating_sub(self.open.len()).min(self.queued.len());
        for request in self.queued.drain(..room) {
            self.open.push(request.request_id.clone());
            effects.events.push(event::Kind::InputRequest(request));
        }
    }
}

/// Event by which the control plane closes an input request that no user has answered.
fn settled(request_id: String) -> event::Kind {
    let text = "withdrawn by the agent".to_owned();
    let input = TaskInput { request_id, text, ..TaskInput::default() };
    event::Kind::InputReceived(InputReceived { input_seq: 0, input: Some(input) })
}

/// Parses the questions, each text once, since answers are keyed by it.
fn questions(input: &Value) -> Vec<Question> {
    let mut questions = serde_json::from_value::<Questions>(input.clone()).unwrap_or_default().questions;
    let mut seen = std::collections::BTreeSet::new();
    questions.retain(|question| seen.insert(question.question.clone()));
    questions
}

/// Builds an input request for each answer that is needed.
fn requests(id: &str, request: &CanUseTool, questions: &[Question]) -> Vec<InputRequest> {
    let tool = request.tool_name.as_str();
    if questions.is_empty() {
        let reason = request.decision_reason.as_deref().or(request.description.as_deref());
        let prompt = match reason {
            Some(reason) => format!("Allow the agent to use {tool}? ({reason})"),
            None => format!("Allow the agent to use {tool}?"),
        };
        return vec![InputRequest {
            request_id: id.to_owned(),
            kind: InputKind::Permission.into(),
            prompt,
            tool: tool.to_owned(),
            input_json: request.input.to_string(),
            choices: vec![],
            rules: rules::suggested(&request.permission_suggestions),
            input_incomplete: false,
        }];
    }
    let question = |(number, question): (usize, &Question)| {
        let several = if question.multi_select { " (multiple choices allowed)" } else { "" };
        InputRequest {
            request_id: join(id, number),
            kind: InputKind::Question.into(),
            prompt: format!("{}{several}", question.question),
            choices: question.options.iter().map(|choice| choice.label.clone()).collect(),
            ..InputRequest::default()
        }
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
