//! `rota drain`: drains the workers of an agent.

use clap::Args;
use rota_proto::v1::DrainAgentRequest;

use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  rota drain coder
  rota drain coder --worker coder-1 --only-idle";

/// Drain an agent's workers: running tasks finish, no new ones start
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Drain {
    /// Agent whose workers are drained
    pub agent: String,
    /// Only this worker
    #[arg(long, value_name = "NAME")]
    pub worker: Option<String>,
    /// Only workers without a running task
    #[arg(long)]
    pub only_idle: bool,
}

impl Drain {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let request = DrainAgentRequest {
            name: context.agent(&self.agent)?,
            worker: self.worker.clone().unwrap_or_default(),
            only_idle: self.only_idle,
        };
        let answer = context.client.drain_agent(request).await?;
        if !context.out.is_human() {
            context.out.value(&answer)?;
        } else if answer.workers.is_empty() {
            context.reporter.line("no worker was drained");
        }
        for worker in answer.workers.iter().filter(|_| context.out.is_human()) {
            context.out.line(&format!("worker/{} draining", rota_proto::names::last(worker)))?;
        }
        Ok(Exit::Ok)
    }
}
