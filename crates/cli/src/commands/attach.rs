//! `rota attach`: follows a running task, hands it what one types, and asks what it asks.

use std::collections::VecDeque;
use std::io::IsTerminal;

use clap::Args;
use futures::StreamExt;
use rota_proto::v1::{
    Decision, Event, GetTaskRequest, InputKind, InputRequest, SendTaskInputRequest, Task, TaskInput, event,
};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::follow::{To, View};
use super::signals::Interrupt;
use super::{outcome, say_goes_on};
use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  rota attach build
  echo \"use the new parser\" | rota attach build";

/// Give a running task input, and answer its questions
///
/// Each line of standard input becomes a message to the agent, or the answer to what it asked last:
/// `y` or `n` (and a reason, if you like) for a permission, a text for a question.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Attach {
    /// The task's id or name
    pub task: String,
}

impl Attach {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let task = context.client.get_task(GetTaskRequest { name: context.task(&self.task)? }).await?;
        let mut view = View::new(context, To::Stdout, false);
        let mut asked = Questions::of(&task);
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let (mut input, mut last) = (Input::Open, None);
        let mut interrupt = Interrupt::listen()?;
        let mut watch = context.client.watch_task(task.name.clone(), 0);
        loop {
            tokio::select! {
                answer = watch.next() => {
                    let Some(answer) = answer else { break };
                    let answer = answer?;
                    view.show(context, &answer.events)?;
                    answer.events.iter().for_each(|event| asked.note(event));
                    last = answer.task.or(last);
                    // What is still open is the task's to say; its log may hold old questions.
                    if let Some(task) = &last {
                        asked.keep(task);
                    }
                    if let Some(question) = asked.unasked() && std::io::stdin().is_terminal() {
                        view.finish(context)?;
                        context.talk.say(prompt(&question));
                    }
                }
                line = lines.next_line(), if matches!(input, Input::Open | Input::Read) => match line? {
                    Some(line) => {
                        input = Input::Read;
                        self.give(context, &task.name, asked.answer(&line)).await;
                    }
                    // Whoever has said something may have said all.
                    None => input = if input == Input::Open { Input::Missed } else { Input::Ended },
                },
                () = interrupt.heard() => {
                    view.finish(context)?;
                    say_goes_on(context, &task.name);
                    return Ok(Exit::Interrupted);
                }
            }
            if input == Input::Missed || (input == Input::Ended && !asked.open.is_empty()) {
                view.finish(context)?;
                let task = rota_proto::names::last(&task.name);
                context.talk.note("note", "standard input has ended: no answers can be given from here");
                context.talk.hint(&format!(
                    "answer in a terminal with `rota attach {task}`, or with `echo ANSWER | rota attach {task}`"
                ));
                input = Input::Told;
            }
        }
        view.finish(context)?;
        Ok(last.map_or(Exit::Failed, |task| outcome(&task)))
    }

    async fn give(&self, context: &Context, name: &str, input: Option<TaskInput>) {
        let Some(input) = input else {
            return context.talk.say("answer y or n, and a reason behind it if you like");
        };
        let request = SendTaskInputRequest { name: name.to_owned(), input: Some(input) };
        // A refused input is no reason to leave: the task may ask again.
        if let Err(error) = context.client.send_task_input(request).await {
            context.talk.error(&format!("the input was not taken: {error}"));
            error.hint.iter().for_each(|hint| context.talk.hint(hint));
        }
    }
}

/// How standard input stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// Nothing has come yet.
    Open,
    /// Something has come.
    Read,
    /// It has ended after something.
    Ended,
    /// It has ended before anything came.
    Missed,
    /// That has been talked about.
    Told,
}

fn prompt(question: &InputRequest) -> &'static str {
    match question.kind() {
        InputKind::Permission => "allow it? [y/n]",
        _ => "your answer:",
    }
}

/// What the agent has asked and nobody has answered, in order.
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

    fn note(&mut self, event: &Event) {
        match &event.kind {
            Some(event::Kind::InputRequest(request))
                if !self.open.iter().any(|one| one.request_id == request.request_id) =>
            {
                self.open.push_back(request.clone());
            }
            Some(event::Kind::InputGiven(given)) => {
                let id = given.input.as_ref().map(|input| input.request_id.as_str());
                self.open.retain(|one| Some(one.request_id.as_str()) != id);
            }
            _ => {}
        }
    }

    fn keep(&mut self, task: &Task) {
        let pending = task.status.as_ref().map(|status| status.pending_input.as_slice()).unwrap_or_default();
        self.open.retain(|one| pending.iter().any(|other| other.request_id == one.request_id));
    }

    /// The next question, once.
    fn unasked(&mut self) -> Option<InputRequest> {
        let next = self.open.front()?;
        if self.shown.as_ref() == Some(&next.request_id) {
            return None;
        }
        self.shown = Some(next.request_id.clone());
        Some(next.clone())
    }

    /// What a line means now; `None` where a yes or no is wanted and it is neither.
    fn answer(&mut self, line: &str) -> Option<TaskInput> {
        let Some(question) = self.open.front() else {
            return Some(TaskInput { text: line.to_owned(), ..Default::default() });
        };
        let request_id = question.request_id.clone();
        let input = if question.kind() == InputKind::Permission {
            let (word, reason) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
            let decision = match word.trim_end_matches([',', ':']).to_ascii_lowercase().as_str() {
                "y" | "yes" | "allow" => Decision::Allow,
                "n" | "no" | "deny" => Decision::Deny,
                _ => return None,
            };
            TaskInput { request_id, decision: decision.into(), text: reason.trim().to_owned() }
        } else {
            TaskInput { request_id, text: line.to_owned(), ..Default::default() }
        };
        self.open.pop_front();
        Some(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(id: &str, kind: InputKind) -> Event {
        let request = InputRequest { request_id: id.into(), kind: kind.into(), ..Default::default() };
        Event { kind: Some(event::Kind::InputRequest(request)), ..Default::default() }
    }

    #[test]
    fn lines_answer_questions_in_order_and_steer_otherwise() {
        let mut asked = Questions::default();
        assert_eq!(asked.answer("go on").unwrap(), TaskInput { text: "go on".into(), ..Default::default() });
        asked.note(&asks("p", InputKind::Permission));
        asked.note(&asks("p", InputKind::Permission));
        asked.note(&asks("q", InputKind::Question));
        assert_eq!(asked.unasked().unwrap().request_id, "p");
        assert!(asked.unasked().is_none());
        assert!(asked.answer("perhaps").is_none());
        let input = asked.answer("no, too risky").unwrap();
        assert_eq!(
            (input.request_id.as_str(), input.decision(), input.text.as_str()),
            ("p", Decision::Deny, "too risky")
        );
        assert_eq!(asked.unasked().unwrap().request_id, "q");
        assert_eq!(asked.answer("blue").unwrap().request_id, "q");
        assert_eq!(asked.answer("more").unwrap().request_id, "");
    }
}
