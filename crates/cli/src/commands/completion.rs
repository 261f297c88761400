//! `rota completion`: a script for a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
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
    /// The shell
    pub shell: Shell,
}

impl Completion {
    pub fn run(self) -> anyhow::Result<Exit> {
        // Into memory first: the generator would panic over a closed pipe.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "rota", &mut script);
        Out::new(Format::Table, Color::Never).bytes(&script)?;
        Ok(Exit::Ok)
    }
}
