//! `rota drain`: lets workers finish.

use clap::Args;
use rota_proto::v1::DrainAgentRequest;

use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  rota drain coder
  rota drain coder --worker coder-1 --only-idle";

/// Let an agent's workers finish what they run and take nothing new
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Drain {
    /// The agent
    pub agent: String,
    /// Only this worker
    #[arg(long, value_name = "NAME")]
    pub worker: Option<String>,
    /// Only what runs nothing now
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
        if !context.out.for_eyes() {
            context.out.value(&answer)?;
        } else if answer.workers.is_empty() {
            context.talk.say("no worker was drained");
        }
        for worker in answer.workers.iter().filter(|_| context.out.for_eyes()) {
            context.out.line(&format!("worker/{} draining", rota_proto::names::last(worker)))?;
        }
        Ok(Exit::Ok)
    }
}
