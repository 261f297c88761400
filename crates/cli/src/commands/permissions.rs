//! `rota permissions`: the rules that people have allowed for an agent.

use clap::Args;
use pbjson_types::FieldMask;
use rota_proto::v1::{GetAgentRequest, UpdateAgentRequest};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::text::plain;

const EXAMPLES: &str = "\
Examples:
  rota permissions coder
  rota permissions coder --remove 'Bash(npm test *)'

Rules are added by answering a question with `rota answer TASK --allow --for agent`.";

/// List the rules that people have allowed for an agent, or remove some
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Permissions {
    /// Name of the agent whose rules are listed
    pub agent: String,
    /// Rule of the agent to remove; repeatable
    #[arg(long, value_name = "RULE")]
    pub remove: Vec<String>,
}

impl Permissions {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let name = context.agent(&self.agent)?;
        let mut agent = context.client.get_agent(GetAgentRequest { name }).await?;
        let rules = &mut agent.spec.get_or_insert_default().permission_rules;
        if let Some(unknown) = self.remove.iter().find(|rule| !rules.contains(rule)) {
            return Err(Failure::usage(format!("agent {} has no rule {unknown:?}", self.agent)).into());
        }
        if !self.remove.is_empty() {
            rules.retain(|rule| !self.remove.contains(rule));
            let update_mask = Some(FieldMask { paths: vec!["spec.permission_rules".to_owned()] });
            let request = UpdateAgentRequest { agent: Some(agent), update_mask, ..Default::default() };
            agent = context.client.update_agent(request).await?;
        }
        let rules = agent.spec.map(|spec| spec.permission_rules).unwrap_or_default();
        if rules.is_empty() {
            context.reporter.line("no rules");
        }
        for rule in rules {
            context.out.line(&plain(&rule))?;
        }
        Ok(Exit::Ok)
    }
}
