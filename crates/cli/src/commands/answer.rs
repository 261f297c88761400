//! `rota answer`: answers a question of a task, without following it.

use std::io::Read;

use clap::{ArgGroup, Args, ValueEnum};
use rota_proto::v1::{
    Decision, GetTaskRequest, InputKind, InputRequest, PermissionScope, SendTaskInputRequest, TaskInput,
};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::question::question;

const EXAMPLES: &str = "\
Examples:
  rota answer build                                   # shows what is asked, with the rules that could be allowed
  rota answer build --allow
  rota answer build --allow --for session             # and what its rules fit, until the task ends
  rota answer build --allow --for agent --rule 'Bash(npm test *)'
  rota answer build --allow --edit '{\"command\": \"npm test\"}'
  rota answer build --deny \"use the staging host\"
  rota answer build blue";

/// Answer a question of a task, or show what it asks
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES, group = ArgGroup::new("decision"))]
pub struct Answer {
    /// Id or name of the task
    pub task: String,
    /// Answer, or message to the agent with a decision
    #[arg(value_name = "TEXT")]
    pub text: Option<String>,
    /// Allow the use of the tool
    #[arg(long, group = "decision")]
    pub allow: bool,
    /// Deny the use of the tool; the agent reads TEXT
    #[arg(long, group = "decision")]
    pub deny: bool,
    /// For how long it is allowed: `agent` needs --rule
    #[arg(long = "for", value_name = "SCOPE", default_value = "once", requires = "allow")]
    pub scope: Scope,
    /// Rule of the question that is allowed within the scope [default: all of them]; repeatable
    #[arg(long = "rule", value_name = "RULE", requires = "allow")]
    pub rules: Vec<String>,
    /// Input that the tool gets instead, as a JSON object; `-` reads it from standard input
    #[arg(long, value_name = "JSON", requires = "allow")]
    pub edit: Option<String>,
    /// Id of the question [default: the oldest that is open]
    #[arg(long, value_name = "ID")]
    pub request: Option<String>,
}

/// For how long a permission is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// Only the call that is asked about
    Once,
    /// The task, with its later attempts
    Session,
    /// All later tasks of the agent
    Agent,
}

impl Answer {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let task = context.client.get_task(GetTaskRequest { name: context.task(&self.task)? }).await?;
        let open = task.status.map(|status| status.pending_input).unwrap_or_default();
        if self.text.is_none() && !self.allow && !self.deny {
            for asked in &open {
                context.out.line(&format!("{}\n  id: {}", question(asked), asked.request_id))?;
            }
            if open.is_empty() {
                context.reporter.line("the task asks nothing");
            }
            return Ok(Exit::Ok);
        }
        let wanted = |asked: &&InputRequest| self.request.as_ref().is_none_or(|id| *id == asked.request_id);
        let Some(asked) = open.iter().find(wanted) else {
            return Err(Failure::usage("the task has no such open question".to_owned())
                .hint(format!("see what it asks with `rota answer {}`", self.task))
                .into());
        };
        let input = self.input(asked)?;
        let request = SendTaskInputRequest { name: task.name, input: Some(input) };
        context.client.send_task_input(request).await?;
        context.reporter.line(&question(asked));
        Ok(Exit::Ok)
    }

    fn input(&self, asked: &InputRequest) -> anyhow::Result<TaskInput> {
        let decision = match (self.allow, self.deny) {
            (true, _) => Decision::Allow,
            (_, true) => Decision::Deny,
            _ => Decision::Unspecified,
        };
        if asked.kind() == InputKind::Permission && decision == Decision::Unspecified {
            return Err(Failure::usage("the task asks for a permission".to_owned())
                .hint("answer with --allow or --deny".to_owned())
                .into());
        }
        let scope = match self.scope {
            Scope::Once => PermissionScope::Unspecified,
            Scope::Session => PermissionScope::Session,
            Scope::Agent => PermissionScope::Agent,
        };
        if self.scope == Scope::Agent && self.rules.is_empty() {
            return Err(
                Failure::usage("--for agent needs --rule: it holds for all later tasks".to_owned()).into()
            );
        }
        let rules = match (self.scope, self.rules.is_empty()) {
            (Scope::Session, true) => asked.rules.iter().map(|offered| offered.rule.clone()).collect(),
            _ => self.rules.clone(),
        };
        if self.scope == Scope::Session && rules.is_empty() {
            return Err(Failure::usage(
                "there is no rule for this call: it can be allowed once only".to_owned(),
            )
            .into());
        }
        let updated_input_json = match self.edit.as_deref() {
            Some("-") => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                text
            }
            given => given.unwrap_or_default().to_owned(),
        };
        Ok(TaskInput {
            request_id: asked.request_id.clone(),
            decision: decision.into(),
            text: self.text.clone().unwrap_or_default(),
            scope: scope.into(),
            rules,
            updated_input_json,
        })
    }
}
