//! Directories and files that the CLI needs: their paths and their creation. Knows nothing of processes.

use std::path::{Path, PathBuf};

use tokio::fs;

use super::options::Options;
use super::project::Project;
use crate::runtimes::context;

/// Paths that the CLI is configured with.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// Settings and transcripts. Next to a kept workspace, so that a session lives as long as the workspace.
    pub(super) config: PathBuf,
    pub(super) home: PathBuf,
    pub(super) temporary: PathBuf,
    /// Input and output of the task, which the tools may use.
    pub(super) exchanged: [PathBuf; 2],
    pub(super) mcp: Option<PathBuf>,
    /// The repository's own, in the workspace.
    pub(super) project_mcp: Option<PathBuf>,
    pub(super) settings: Option<PathBuf>,
    pub(super) agents: Option<PathBuf>,
    pub(super) system_prompt: Option<PathBuf>,
    pub(super) append_system_prompt: Option<PathBuf>,
}

/// Folder of transcripts in the configuration directory, whatever the directory that the CLI runs in.
pub(super) const TRANSCRIPTS: &str = "projects/rota";
/// Name of the folder, as the CLI is given it.
pub(super) const PROJECT: &str = "rota";

/// Returns the directory of settings and transcripts. `keep`: the workspace outlives the attempt.
pub(super) fn config(keep: bool, workspace: &Path, scratch: &Path) -> PathBuf {
    let kept = crate::workspace::config_directory(workspace).filter(|_| keep);
    kept.unwrap_or_else(|| scratch.join("claude"))
}

impl Files {
    /// `project`: the set-up of the repository, if it is loaded.
    pub(super) fn new(
        options: &Options,
        project: Option<&Project>,
        workspace: &Path,
        scratch: &Path,
    ) -> Self {
        let file = |wanted: bool, name: &str| wanted.then(|| scratch.join(name));
        Self {
            config: config(options.keep, workspace, scratch),
            home: scratch.join("home"),
            temporary: scratch.join("tmp"),
            exchanged: [context::context(scratch), context::output(scratch)],
            // Files, since arguments are limited in length and visible to every process of the machine.
            mcp: file(options.mcp.is_some(), "mcp.json"),
            project_mcp: project
                .filter(|_| options.claude.project_mcp_servers)
                .and_then(|project| project.mcp.clone()),
            settings: file(project.is_some() || options.claude.settings.is_some(), "settings.json"),
            agents: file(options.agents.is_some(), "agents.json"),
            system_prompt: file(!options.claude.system_prompt.is_empty(), "system-prompt"),
            append_system_prompt: file(
                !options.claude.append_system_prompt.is_empty(),
                "append-system-prompt",
            ),
        }
    }

    /// Returns the directory of the CLI's memory, where it has it by itself.
    pub(super) fn memory(&self) -> PathBuf {
        self.config.join(TRANSCRIPTS).join("memory")
    }

    /// Creates the directories and files. `settings`: the CLI's, as JSON.
    pub(super) async fn write(&self, options: &Options, settings: Option<&str>) -> std::io::Result<()> {
        for directory in [&self.config, &self.home, &self.temporary] {
            fs::create_dir_all(directory).await?;
        }
        if !fs::symlink_metadata(&self.config).await?.is_dir() {
            let text = format!("{} is a link", self.config.display());
            return Err(std::io::Error::new(std::io::ErrorKind::NotADirectory, text));
        }
        let texts = [
            (&self.mcp, options.mcp.as_deref().unwrap_or_default()),
            (&self.settings, settings.unwrap_or_default()),
            (&self.agents, options.agents.as_deref().unwrap_or_default()),
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

/// Writes a file that only this user can read: settings of MCP servers, those of subagents too, may contain tokens.
async fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt;
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).await?;
    file.write_all(text.as_bytes()).await?;
    file.flush().await
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{TaskSpec, Workspace, WorkspaceMode};
    use rota_proto::worker::v1::Assign;

    use super::*;
    use crate::runtimes::Environment;

    #[tokio::test]
    async fn repository_cannot_bring_the_config_directory() {
        let directory = tempfile::tempdir().unwrap();
        let workspace = directory.path().join("kept");
        fs::create_dir_all(workspace.join(".rota/claude/skills")).await.unwrap();
        let spec = TaskSpec {
            workspace: Some(Workspace { mode: WorkspaceMode::Keep.into(), ..Workspace::default() }),
            ..TaskSpec::default()
        };
        let assign = Assign { spec: Some(spec), ..Assign::default() };
        let options = Options::new(&assign, &Environment::default(), false).unwrap();
        let files = Files::new(&options, None, &workspace, &directory.path().join("scratch"));
        files.write(&options, None).await.unwrap();
        assert!(!files.config.starts_with(&workspace), "{}", files.config.display());
        assert_eq!(std::fs::read_dir(&files.config).unwrap().count(), 0);
        // Nor can an agent that replaced it by a link.
        std::fs::remove_dir(&files.config).unwrap();
        std::os::unix::fs::symlink(&workspace, &files.config).unwrap();
        assert!(files.write(&options, None).await.is_err());
    }
}
