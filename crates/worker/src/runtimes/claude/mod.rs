//! The Claude Code CLI as a runtime: one process for each attempt, driven over its stream-json and
//! control protocols. This file is its face; it knows nothing of sessions with the control plane.
//!
//! ```text
//! options  what is wanted        argv, environment, files, prompt   how the CLI is told
//! process  the seam to supervise reader, lines, control, send       what goes over the pipes
//! conversation  the loop         record, permission, usage          what lines mean
//! run      one attempt           classify                           how its end is judged
//! ```

mod argv;
mod classify;
mod control;
mod conversation;
mod environment;
mod events;
mod files;
mod lines;
mod options;
mod permission;
mod process;
mod prompt;
mod reader;
mod record;
mod run;
mod send;
mod text;
mod usage;
mod version;

#[cfg(test)]
mod tests;

use async_trait::async_trait;

pub use version::version;

use crate::runtimes::{Attempt, Channels, Outcome, Runtime};

/// The program when none is named.
const PROGRAM: &str = "claude";

/// Does attempts with the Claude Code CLI.
pub struct Claude {
    start: Box<dyn process::Start>,
    root: bool,
}

impl Claude {
    /// One that runs the CLI under supervision.
    pub fn new() -> Self {
        Self { start: Box::new(process::Supervised), root: nix::unistd::geteuid().is_root() }
    }
}

impl Default for Claude {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Claude {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claude").field("root", &self.root).finish_non_exhaustive()
    }
}

#[async_trait]
impl Runtime for Claude {
    async fn run(&self, attempt: Attempt, mut channels: Channels) -> Outcome {
        run::run(self.start.as_ref(), &attempt, &mut channels, self.root).await
    }
}
