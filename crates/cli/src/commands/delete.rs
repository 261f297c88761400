//! `rota delete`: removes an agent. Tasks are not deleted but cancelled; their records stay.

use clap::{Args, Subcommand};
use rota_proto::v1::DeleteAgentRequest;

use crate::context::Context;
use crate::exit::Exit;

/// Remove an agent
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  rota delete agent coder\n  rota delete agent coder --ignore-not-found"
)]
pub struct Delete {
    #[command(subcommand)]
    pub what: What,
}

/// What can be removed.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Remove an agent; its workers are drained, its waiting tasks wait for one of that name
    Agent {
        /// Its name
        name: String,
        /// Succeed when there is no such agent
        #[arg(long)]
        ignore_not_found: bool,
    },
}

impl Delete {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let What::Agent { name, ignore_not_found } = self.what;
        let full = context.agent(&name)?;
        let request = DeleteAgentRequest { name: full.clone(), allow_missing: ignore_not_found };
        context.client.delete_agent(request).await?;
        context.out.line(&format!("agent/{} deleted", rota_proto::names::last(&full)))?;
        Ok(Exit::Ok)
    }
}
