//! `rota capabilities`: lists capabilities.

use clap::Args;

use super::get;
use crate::context::Context;
use crate::exit::Exit;

/// List the capabilities available now, each with its agents, workers and free slots
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  rota capabilities\n  rota capabilities -o json")]
pub struct Capabilities {}

impl Capabilities {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        get::capabilities(context).await
    }
}
