//! `rota workers`: short for `rota get workers`, and for `rota describe worker`.

use clap::Args;

use super::{describe, get};
use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  rota workers
  rota workers --agent coder
  rota workers coder-1";

/// List workers, or show one in detail
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Workers {
    /// Worker to show in detail: session, activity and utilization
    pub name: Option<String>,
    /// Only workers of this agent
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    pub agent: Option<String>,
    /// Include all namespaces
    #[arg(long, short = 'A', conflicts_with = "name")]
    pub all_namespaces: bool,
}

impl Workers {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        if let Some(name) = &self.name {
            return describe::worker(context, name).await;
        }
        get::workers(context, self.agent.as_deref().unwrap_or_default(), None, self.all_namespaces).await
    }
}
