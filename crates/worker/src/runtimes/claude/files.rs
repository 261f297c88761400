//! Directories and files that the CLI needs: their paths and their creation. Knows nothing of processes.

use std::path::{Path, PathBuf};

use tokio::fs;

use super::options::Options;

/// Paths that the CLI is configured with.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// Settings and transcripts. Next to a kept workspace, so that a session lives as long as the workspace.
    pub(super) config: PathBuf,
    pub(super) home: PathBuf,
    pub(super) temporary: PathBuf,
    pub(super) mcp: Option<PathBuf>,
    pub(super) system_prompt: Option<PathBuf>,
    pub(super) append_system_prompt: Option<PathBuf>,
}

impl Files {
    pub(super) fn new(options: &Options, workspace: &Path, scratch: &Path) -> Self {
        let config = if options.keep { workspace.join(".rota") } else { scratch.to_owned() };
        let file = |wanted: bool, name: &str| wanted.then(|| scratch.join(name));
        Self {
            config: config.join("claude"),
            home: scratch.join("home"),
            temporary: scratch.join("tmp"),
            // Files, since arguments are limited in length and visible to every process of the machine.
            mcp: file(options.mcp.is_some(), "mcp.json"),
            system_prompt: file(!options.claude.system_prompt.is_empty(), "system-prompt"),
            append_system_prompt: file(
                !options.claude.append_system_prompt.is_empty(),
                "append-system-prompt",
            ),
        }
    }

    /// Creates the directories and files.
    pub(super) async fn write(&self, options: &Options) -> std::io::Result<()> {
        for directory in [&self.config, &self.home, &self.temporary] {
            fs::create_dir_all(directory).await?;
        }
        if options.keep {
            // The workspace may be a repository, which transcripts do not belong to.
            fs::write(self.config.join(".gitignore"), "*\n").await?;
        }
        let texts = [
            (&self.mcp, options.mcp.as_deref().unwrap_or_default()),
            (&self.system_prompt, options.claude.system_prompt.as_str()),
            (&self.append_system_prompt, options.claude.append_system_prompt.as_str()),
        ];
        for (path, text) in texts {
            if let Some(path) = path {
                write_private(path, text).await?;
            }
        }
        Ok(())
    }
}

/// Writes a file that only this user can read: settings of MCP servers may contain tokens.
async fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt;
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).await?;
    file.write_all(text.as_bytes()).await?;
    file.flush().await
}
