//! When to use colors. `NO_COLOR` (<https://no-color.org>) is respected unless a flag overrides it.

use std::io::IsTerminal;

use rota_telemetry::env;

/// When to use colors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    pub fn for_stdout(self) -> bool {
        self.decide(std::io::stdout().is_terminal())
    }

    pub fn for_stderr(self) -> bool {
        self.decide(std::io::stderr().is_terminal())
    }

    fn decide(self, terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                terminal
                    && env::var_os("NO_COLOR").is_none()
                    && env::var("TERM").is_none_or(|term| term != "dumb")
            }
        }
    }
}
