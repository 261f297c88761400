//! `rota completion`: prints completion scripts for shells.

use clap::Args;
use clap_complete::Shell;

use crate::exit::Exit;
use crate::output::{Color, Format, Out};

const EXAMPLES: &str = "\
Examples:
  rota completion bash > ~/.local/share/bash-completion/completions/rota
  rota completion zsh > \"${fpath[1]}/_rota\"
  rota completion fish > ~/.config/fish/completions/rota.fish";

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Completion {
    /// Shell to complete in
    pub shell: Shell,
}

impl Completion {
    /// Prints the script for `program`, the whole command line.
    pub fn run(self, mut program: clap::Command) -> anyhow::Result<Exit> {
        // Generated in memory, since the generator panics on a closed pipe.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "rota", &mut script);
        Out::new(Format::Table, Color::Never).bytes(&script)?;
        Ok(Exit::Ok)
    }
}
