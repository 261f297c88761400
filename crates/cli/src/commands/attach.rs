//! `rota attach`: follows a running task, sends it typed input, and forwards its questions to the user.

use std::collections::VecDeque;
use std::io::IsTerminal;

use clap::Args;
use futures::StreamExt;
use rota_proto::v1::{
    Decision, Event, GetTaskRequest, InputKind, InputRequest, PermissionScope, SendTaskInputRequest, Task,
    TaskInput, event,
};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::follow::{Destination, View};
use super::signals::Interrupt;
use super::{outcome, print_continues};
use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  rota attach build
  echo \"use the new parser\" | rota attach build
  echo 'e {\"command\": \"npm test\"}' | rota attach build";

/// Send input to a running task and answer its questions
///
/// Each line of standard input is a message to the agent, or the answer to its oldest open question: text, or for a
/// permission `y` or `n`, optionally with a reason, `s` to allow its rules until the task ends, `e` with a JSON object to
/// allow it with another input. `rota answer` has the same, and permissions for all tasks of an agent.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Attach {
    /// Id or name of the task
    pub task: String,
}

impl Attach {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let task = context.client.get_task(GetTaskRequest { name: context.task(&self.task)? }).await?;
        let mut view = View::new(context, Destination::Stdout, false);
        let mut questions = Questions::of(&task);
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let (mut input, mut last) = (Input::Open, None);
        let mut interrupt = Interrupt::listen()?;
        let mut watch = view.watch(context, &task.name, 0);
        loop {
            tokio::select! {
                answer = watch.next() => {
                    let Some(answer) = answer else { break };
                    let answer = answer?;
                    view.show(context, &answer.events)?;
                    view.show_deltas(context, &answer.deltas)?;
                    answer.events.iter().for_each(|event| questions.apply(event));
                    last = answer.task.or(last);
                    // The task lists its open questions; the log also holds answered ones.
                    if let Some(task) = &last {
                        questions.retain_pending(task);
                    }
                    if let Some(question) = questions.next_unshown() && std::io::stdin().is_terminal() {
                        view.finish(context)?;
                        context.reporter.line(prompt(&question));
                    }
                }
                line = lines.next_line(), if matches!(input, Input::Open | Input::Read) => match line? {
                    Some(line) => {
                        input = Input::Read;
                        self.send(context, &task.name, questions.answer(&line)).await;
                    }
                    None => input = if input == Input::Open { Input::Empty } else { Input::Ended },
                },
                () = interrupt.received() => {
                    view.finish(context)?;
                    print_continues(context, &task.name);
                    return Ok(Exit::Interrupted);
                }
            }
            if input == Input::Empty || (input == Input::Ended && !questions.open.is_empty()) {
                view.finish(context)?;
                let task = rota_proto::names::last(&task.name);
                context
                    .reporter
                    .note("note", "standard input has ended, questions cannot be answered from here");
                context.reporter.hint(&format!(
                    "answer in a terminal with `rota attach {task}`, or with `echo ANSWER | rota attach {task}`"
                ));
                input = Input::Reported;
            }
        }
        view.finish(context)?;
        Ok(last.map_or(Exit::Failed, |task| outcome(&task)))
    }

    async fn send(&self, context: &Context, name: &str, input: Option<TaskInput>) {
        let Some(input) = input else {
            return context.reporter.line("answer y or n, optionally followed by a reason");
        };
        let request = SendTaskInputRequest { name: name.to_owned(), input: Some(input) };
        // After a rejected input the task may ask again.
        if let Err(error) = context.client.send_task_input(request).await {
            context.reporter.error(&format!("input rejected: {error}"));
            error.hint.iter().for_each(|hint| context.reporter.hint(hint));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// Nothing was read yet.
    Open,
    /// At least one line was read.
    Read,
    /// Ended after at least one line.
    Ended,
    /// Ended without a line.
    Empty,
    /// The end has been reported.
    Reported,
}

fn prompt(question: &InputRequest) -> &'static str {
    match question.kind() {
        InputKind::Permission if question.rules.is_empty() => "allow it? [y/n]",
        InputKind::Permission => "allow it? [y/n, s: for this session]",
        _ => "your answer:",
    }
}

/// Open questions of the agent, in order.
#[derive(Debug, Default)]
struct Questions {
    open: VecDeque<InputRequest>,
    shown: Option<String>,
}

impl Questions {
    fn of(task: &Task) -> Self {
        let open = task.status.iter().flat_map(|status| status.pending_input.clone()).collect();
        Self { open, shown: None }
    }

    fn apply(&mut self, event: &Event) {
        match &event.kind {
            Some(event::Kind::InputRequest(request))
                if !self.open.iter().any(|one| one.request_id == request.request_id) =>
            {
                self.open.push_back(request.clone());
            }
            Some(event::Kind::InputReceived(given)) => {
                let id = given.input.as_ref().map(|input| input.request_id.as_str());
                self.open.retain(|one| Some(one.request_id.as_str()) != id);
            }
            _ => {}
        }
    }

    fn retain_pending(&mut self, task: &Task) {
        let pending = task.status.as_ref().map(|status| status.pending_input.as_slice()).unwrap_or_default();
        self.open.retain(|one| pending.iter().any(|other| other.request_id == one.request_id));
    }

    /// Returns the next question, unless it was returned before.
    fn next_unshown(&mut self) -> Option<InputRequest> {
        let next = self.open.front()?;
        if self.shown.as_ref() == Some(&next.request_id) {
            return None;
        }
        self.shown = Some(next.request_id.clone());
        Some(next.clone())
    }

    /// Converts a line to input; `None` if the question requires yes or no and it is neither.
    fn answer(&mut self, line: &str) -> Option<TaskInput> {
        let Some(question) = self.open.front() else {
            return Some(TaskInput { text: line.to_owned(), ..Default::default() });
        };
        let request_id = question.request_id.clone();
        let input = if question.kind() == InputKind::Permission {
            let (word, reason) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
            let allowed = TaskInput {
                request_id: request_id.clone(),
                decision: Decision::Allow.into(),
                ..Default::default()
            };
            let decision = match word.trim_end_matches([',', ':']).to_ascii_lowercase().as_str() {
                "s" | "session" if !question.rules.is_empty() => {
                    let rules = question.rules.iter().map(|offered| offered.rule.clone()).collect();
                    self.open.pop_front();
                    return Some(TaskInput { scope: PermissionScope::Session.into(), rules, ..allowed });
                }
                "e" | "edit" if !reason.trim().is_empty() => {
                    self.open.pop_front();
                    return Some(TaskInput { updated_input_json: reason.trim().to_owned(), ..allowed });
                }
                "y" | "yes" | "allow" => Decision::Allow,
                "n" | "no" | "deny" => Decision::Deny,
                _ => return None,
            };
            TaskInput {
                decision: decision.into(),
                text: reason.trim().to_owned(),
                request_id,
                ..Default::default()
            }
        } else {
            TaskInput { request_id, text: line.to_owned(), ..Default::default() }
        };
        self.open.pop_front();
        Some(input)
    }
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::PermissionRule;

    use super::*;

    fn asks(id: &str, kind: InputKind) -> Event {
        let request = InputRequest { request_id: id.into(), kind: kind.into(), ..Default::default() };
        Event { kind: Some(event::Kind::InputRequest(request)), ..Default::default() }
    }

    #[test]
    fn lines_answer_questions_in_order() {
        let mut questions = Questions::default();
        assert_eq!(
            questions.answer("continue").unwrap(),
            TaskInput { text: "continue".into(), ..Default::default() }
        );
        questions.apply(&asks("p", InputKind::Permission));
        questions.apply(&asks("p", InputKind::Permission));
        questions.apply(&asks("q", InputKind::Question));
        assert_eq!(questions.next_unshown().unwrap().request_id, "p");
        assert!(questions.next_unshown().is_none());
        assert!(questions.answer("perhaps").is_none());
        let mut offers = questions.open.front().cloned().unwrap();
        offers.rules = vec![PermissionRule { rule: "Bash(ls *)".into(), ..Default::default() }];
        let mut offering = Questions { open: [offers].into(), shown: None };
        let session = offering.answer("s").unwrap();
        assert_eq!(
            (session.scope(), session.rules.as_slice()),
            (PermissionScope::Session, &["Bash(ls *)".to_owned()][..])
        );
        assert!(questions.answer("s").is_none(), "no rule is offered");
        let input = questions.answer("no, too risky").unwrap();
        assert_eq!(
            (input.request_id.as_str(), input.decision(), input.text.as_str()),
            ("p", Decision::Deny, "too risky")
        );
        assert_eq!(questions.next_unshown().unwrap().request_id, "q");
        assert_eq!(questions.answer("blue").unwrap().request_id, "q");
        assert_eq!(questions.answer("more").unwrap().request_id, "");
    }
}
