//! `rota agents`: short for `rota get agents`.

use std::collections::BTreeMap;

use clap::Args;

use super::get;
use crate::context::Context;
use crate::exit::Exit;

/// List agents
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  rota agents\n  rota agents -A -o json")]
pub struct Agents {
    /// Include all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
}

impl Agents {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        get::agents(context, self.all_namespaces, BTreeMap::new()).await
    }
}
