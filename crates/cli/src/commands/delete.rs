//! `rota delete`: deletes agents. Tasks cannot be deleted, only cancelled; their records are kept.

use clap::{Args, Subcommand};
use rota_proto::v1::DeleteAgentRequest;

use crate::context::Context;
use crate::exit::Exit;

/// Delete an agent
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  rota delete agent coder\n  rota delete agent coder --ignore-not-found"
)]
pub struct Delete {
    #[command(subcommand)]
    pub what: What,
}

/// Resource to delete.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Delete an agent: its workers are drained, its pending tasks wait for an agent of the same name
    Agent {
        /// Name of the agent
        name: String,
        /// Succeed if the agent does not exist
        #[arg(long)]
        ignore_not_found: bool,
        /// Also delete an agent that belongs to a resource of a Kubernetes cluster which is no more
        #[arg(long)]
        force: bool,
    },
}

impl Delete {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let What::Agent { name, ignore_not_found, force } = self.what;
        let full = context.agent(&name)?;
        let request = DeleteAgentRequest {
            name: full.clone(),
            allow_missing: ignore_not_found,
            force,
            ..Default::default()
        };
        context.client.delete_agent(request).await?;
        context.out.line(&format!("agent/{} deleted", rota_proto::names::last(&full)))?;
        Ok(Exit::Ok)
    }
}
