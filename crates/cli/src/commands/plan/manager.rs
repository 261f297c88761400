//! The agent that plans: what it is asked, and what it answers.

use rota_proto::v1::{self, target};
use rota_proto::{labels, names};
use serde_json::Value;

use super::Plan;
use super::proposal::{MIN_SHARE, Member, schema};
use crate::commands::follow::{Destination, View, to_end};
use crate::commands::state_of;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{first_line, money};

/// Agents that a prompt lists, and capabilities of one.
const MAX_TEAM: usize = 100;
const MAX_CAPABILITIES: usize = 50;
/// Bytes of an earlier plan that a prompt repeats.
const MAX_REPEATED: usize = 64 << 10;

/// End of a task that plans.
pub(super) enum Answer {
    Data(Value),
    /// The task has not succeeded.
    Failed(String),
}

/// An agent that plans, and the others of its namespace.
pub(super) struct Manager<'a> {
    context: &'a Context,
    plan: &'a Plan,
    work: &'a str,
    workspace: Option<v1::Workspace>,
    team: Vec<Member>,
    /// Cost of planning so far, in millionths of a US dollar.
    spent: i64,
    /// Data of the last answer.
    last: Option<Value>,
}

impl<'a> Manager<'a> {
    pub(super) async fn new(
        context: &'a Context,
        plan: &'a Plan,
        work: &'a str,
        workspace: Option<v1::Workspace>,
    ) -> anyhow::Result<Self> {
        let agents = context.client.all_agents(&context.parent(false)).await?;
        let member = |agent: v1::Agent| Member {
            name: names::last(&agent.name).to_owned(),
            capabilities: agent.spec.unwrap_or_default().capabilities.into_iter().collect(),
        };
        let team: Vec<_> = agents.into_iter().map(member).collect();
        if !team.iter().any(|member| member.name == plan.agent) {
            let text = format!("agent {} does not exist", plan.agent);
            return Err(Failure::new(Exit::NotFound, text)
                .hint("name the agent that plans with --agent; `rota agents` lists them")
                .into());
        }
        Ok(Self { context, plan, work, workspace, team, spent: 0, last: None })
    }

    pub(super) fn team(&self) -> &[Member] {
        &self.team
    }

    /// Returns what planning has left of the budget, if there is one.
    pub(super) fn left(&self) -> Result<Option<i64>, Failure> {
        let Some(budget) = &self.plan.budget_usd else { return Ok(None) };
        match rest(budget.micro, self.spent) {
            Some(left) => Ok(Some(left)),
            None => {
                let text = format!("planning has cost {}, and left less than a cent", money(self.spent));
                Err(Failure::new(Exit::Failed, text).hint("raise --budget-usd"))
            }
        }
    }

    /// Asks for a plan, or for another one because of problems of the last. Returns `None` if Ctrl-C came first.
    pub(super) async fn ask(&mut self, problems: &[String]) -> anyhow::Result<Option<Answer>> {
        let request = v1::CreateTaskRequest {
            parent: names::namespace(&self.context.namespace),
            task: Some(self.task(problems)?),
            ..Default::default()
        };
        let task = Box::pin(self.context.client.create_task(request)).await.map_err(anyhow::Error::from)?;
        self.context.reporter.line(&format!("task {}", task.uid));
        let to = if self.plan.quiet { Destination::None } else { Destination::Stderr };
        let mut view = View::new(self.context, to, false);
        let Some(ended) = to_end(self.context, &task.name, 0, &mut view).await? else { return Ok(None) };
        let state = state_of(&ended);
        let status = ended.status.unwrap_or_default();
        self.spent += status.usage.map_or(0, |usage| usage.cost_micro_usd);
        if state != v1::TaskState::Succeeded {
            let failure = status.failure.unwrap_or_default();
            let what = if state == v1::TaskState::Cancelled { "was cancelled" } else { "has failed" };
            let why = first_line(&failure.message, 500);
            return Ok(Some(Answer::Failed(format!("the agent {what}: {why}"))));
        }
        let result = status.result.unwrap_or_default();
        let data = match result.data {
            Some(data) => serde_json::to_value(data)?,
            // Runtimes without data may answer with a text.
            None => serde_json::from_str(&result.text).unwrap_or(Value::Null),
        };
        self.last = Some(data.clone());
        Ok(Some(Answer::Data(data)))
    }

    fn task(&self, problems: &[String]) -> anyhow::Result<v1::Task> {
        let budget = self.left()?.unwrap_or(0);
        let schema = serde_json::from_value(schema(self.plan.max_subtasks.into()))?;
        let spec = v1::TaskSpec {
            title: format!("Plan: {}", first_line(self.work, 80)),
            prompt: self.prompt(problems),
            target: Some(v1::Target { kind: Some(target::Kind::Agent(self.plan.agent.clone())) }),
            workspace: self.workspace.clone(),
            limits: Some(v1::Limits {
                timeout: Some(pbjson_types::Duration::from(self.plan.timeout.0)),
                budget_micro_usd: budget,
                ..Default::default()
            }),
            // What is invalid is sent back with its problems, which a further attempt would not know.
            retry: Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() }),
            result_schema: Some(Box::new(schema)),
            ..Default::default()
        };
        let labels = [(labels::PLANNER.to_owned(), "true".to_owned())].into();
        Ok(v1::Task { spec: Some(Box::new(spec)), labels, ..Default::default() })
    }

    fn prompt(&self, problems: &[String]) -> String {
        let mut team: Vec<_> = self.team.iter().filter(|one| !one.capabilities.is_empty()).collect();
        let more = team.len().saturating_sub(MAX_TEAM);
        team.truncate(MAX_TEAM);
        let line = |member: &&Member| {
            let words: Vec<_> =
                member.capabilities.iter().take(MAX_CAPABILITIES).map(String::as_str).collect();
            format!("- {}\n", words.join(", "))
        };
        let mut sets: String = team.iter().map(line).collect();
        if sets.is_empty() {
            sets.push_str("- none: leave `capabilities` empty\n");
        }
        if more > 0 {
            sets.push_str(&format!("- and those of {more} more agents\n"));
        }
        let mut prompt = format!(
            "Plan the following work as subtasks for a team of agents. Do not do the work, and change no files: look at what is there as \
             far as the plan depends on it.\n\n<work>\n{}\n</work>\n\n\
             Propose at most {} subtasks, and no more than the work needs. Subtasks that do not depend on each other run at the same \
             time.\n\
             - `name`: lower-case letters, digits and `_`, beginning with a letter.\n\
             - `description`: all that its agent needs to know. The agent sees nothing of this plan, and of other subtasks only the answers \
             of those in `dependsOn`.\n\
             - `capabilities`: what an agent must be able to do, all of them from one line of the list below; empty if you should do it.\n\
             - `dependsOn`: names of subtasks that must end first, without cycles.\n\
             - `priority`: 0 to 10, where 5 is normal; `estimatedMinutes`: how long it will take.\n\n\
             Capabilities of the agents, one line for each:\n{sets}",
            self.work.trim(),
            self.plan.max_subtasks,
        );
        if !problems.is_empty() {
            prompt.push_str("\nYour last plan cannot be used:\n");
            for problem in problems {
                prompt.push_str(&format!("- {problem}\n"));
            }
            if let Some(last) = &self.last {
                let text: String = last.to_string().chars().take(MAX_REPEATED / 4).collect();
                prompt.push_str(&format!("\nIt was:\n{text}\n"));
            }
        }
        prompt
    }
}

/// Returns what is left of a budget, if it suffices for a subtask, or for the one task that the work becomes without a plan.
fn rest(budget: i64, spent: i64) -> Option<i64> {
    Some(budget - spent).filter(|left| *left >= MIN_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_of_a_budget_is_at_least_a_cent() {
        assert_eq!(rest(50_000, 20_000), Some(30_000));
        assert_eq!(rest(50_000, 40_000), Some(10_000));
        assert_eq!(rest(50_000, 40_001), None);
        assert_eq!(rest(50_000, 60_000), None);
    }
}
