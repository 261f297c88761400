//! Runtime for the Claude Code CLI: one process per attempt, driven over the CLI's stream-json and control
//! protocols. Knows nothing of sessions with the control plane.
//!
//! ```text
//! options       settings of an attempt    argv, environment, files, prompt    input of the CLI
//! project       set-up of a repository    subagents, untrusted, settings      what of it takes effect
//! process       seam to `supervise`       reader, lines, blocks, control, send    wire format
//! conversation  event loop                record, permission, usage           meaning of lines
//! run           one attempt               classify                            result or failure class
//! ```

mod argv;
mod blocks;
mod classify;
mod control;
mod conversation;
mod counts;
mod environment;
mod events;
mod files;
mod installed;
mod lines;
mod options;
mod permission;
mod previous;
mod probe;
mod process;
mod project;
mod prompt;
mod reader;
mod record;
mod run;
mod send;
mod settings;
mod subagents;
mod surrogates;
mod untrusted;
mod usage;
mod version;

#[cfg(test)]
mod tests;

use std::path::Path;

use async_trait::async_trait;

pub use blocks::{Block, Content};
pub(crate) use installed::Installed;
pub use version::version;

use crate::prices::Prices;
use crate::runtimes::{Attempt, Channels, CheckpointFolder, RunReport, Runtime};

/// Returns which parts that this driver uses a program lacks, each with what becomes of attempts. Tried out once per version, without a
/// model; `state` keeps the result.
pub async fn missing(program: &std::path::Path, state: &std::path::Path) -> Vec<String> {
    Installed::new(Some(program.to_owned())).missing(state).await
}

/// Program of agents that name none.
pub(crate) const DEFAULT_PROGRAM: &str = "claude";

pub struct Claude {
    start: Box<dyn process::Start>,
    root: bool,
    prices: Prices,
}

impl Claude {
    /// Creates the runtime, which runs the CLI under supervision.
    pub fn new() -> Self {
        Self {
            start: Box::new(process::Supervised),
            root: nix::unistd::geteuid().is_root(),
            prices: Prices::default(),
        }
    }

    /// Uses these prices where the CLI reports no cost.
    #[must_use]
    pub fn with_prices(self, prices: Prices) -> Self {
        Self { prices, ..self }
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
    async fn run(&self, attempt: &Attempt, channels: &mut Channels) -> RunReport {
        run::run(self.start.as_ref(), attempt, channels, self.root, &self.prices).await
    }

    fn checkpoint(&self, attempt: &Attempt) -> Option<CheckpointFolder> {
        let second = run::second_conversation(&attempt.conversation);
        let own = [&attempt.conversation, &second, &attempt.assign.resume_session];
        let conversations = own.into_iter().filter(|id| !id.is_empty()).cloned().collect();
        let config = files::config(options::keeps(&attempt.assign), &attempt.workspace, &attempt.scratch);
        // The agent cannot replace the directory above.
        let (root, name) = (config.parent()?.to_owned(), config.file_name()?);
        let within = Path::new(name).join(files::TRANSCRIPTS);
        Some(CheckpointFolder { root, within, conversations, folders: Vec::new() })
    }
}
