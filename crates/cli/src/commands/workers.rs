//! `rota workers`: short for `rota get workers`.

use clap::Args;

use super::get;
use crate::context::Context;
use crate::exit::Exit;

/// List workers
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  rota workers\n  rota workers --agent coder")]
pub struct Workers {
    /// Only this agent's
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
}

impl Workers {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        get::workers(context, self.agent.as_deref().unwrap_or_default(), None, self.all_namespaces).await
    }
}
