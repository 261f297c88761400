//! Directories and files that the CLI needs: their paths and their creation. Knows nothing of processes.

use std::io;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;

use super::options::Options;
use super::project::Project;
use crate::layout::{Scratch, Sibling};
use crate::program_dir;

/// Paths that the CLI is configured with.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// Settings and transcripts. Next to a kept workspace, so that a session lives as long as the workspace.
    pub(super) config: PathBuf,
    pub(super) home: PathBuf,
    pub(super) temporary: PathBuf,
    /// Directory of the files that only Rota writes: programs that ran before, or run still, made everything else.
    own: PathBuf,
    /// Directories that the tools may use besides the workspace: input and output of the task, and those of the agent.
    pub(super) given: Vec<PathBuf>,
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
    let kept = Sibling(workspace).config().filter(|_| keep);
    kept.unwrap_or_else(|| Scratch(scratch).claude())
}

/// Returns the directories of input and output of a task.
pub(super) fn exchanged(scratch: &Path) -> [PathBuf; 2] {
    [Scratch(scratch).context(), Scratch(scratch).output()]
}

/// Returns all directories that the CLI may use besides the workspace.
pub(super) fn given(options: &Options, scratch: &Path) -> impl Iterator<Item = PathBuf> {
    exchanged(scratch).into_iter().chain(options.claude.add_dirs.iter().map(PathBuf::from))
}

impl Files {
    /// `project`: the set-up of the repository, if it is loaded.
    pub(super) fn new(
        options: &Options,
        project: Option<&Project>,
        workspace: &Path,
        scratch: &Path,
    ) -> Self {
        let own = Scratch(scratch).settings();
        let file = |wanted: bool, name: &str| wanted.then(|| own.join(name));
        Self {
            config: config(options.keep, workspace, scratch),
            home: Scratch(scratch).home(),
            temporary: Scratch(scratch).tmp(),
            given: given(options, scratch).collect(),
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
            own,
        }
    }

    /// Returns the directory of the CLI's memory, where it has it by itself.
    pub(super) fn memory(&self) -> PathBuf {
        self.config.join(TRANSCRIPTS).join("memory")
    }

    /// Creates the directories and files. `settings`: the CLI's, as JSON.
    pub(super) async fn write(&self, options: &Options, settings: Option<&str>) -> io::Result<()> {
        let directories = [&self.config, &self.home, &self.temporary, &self.own].map(PathBuf::clone);
        // Settings of MCP servers, those of subagents too, may contain tokens.
        let texts = [
            (&self.mcp, options.mcp.as_deref().unwrap_or_default()),
            (&self.settings, settings.unwrap_or_default()),
            (&self.agents, options.agents.as_deref().unwrap_or_default()),
            (&self.system_prompt, options.claude.system_prompt.as_str()),
            (&self.append_system_prompt, options.claude.append_system_prompt.as_str()),
        ];
        let texts = texts.map(|(path, text)| path.clone().map(|path| (path, text.to_owned())));
        let write = move || {
            for directory in &directories {
                within(directory, program_dir::make)?;
            }
            for (path, text) in texts.into_iter().flatten() {
                within(&path, |folder, name| program_dir::replace(folder, name, text.as_bytes()))?;
            }
            Ok(())
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }
}

/// Does something with the directory above a path, and the path's name in it.
fn within<T>(path: &Path, work: impl FnOnce(&Dir, &Path) -> io::Result<T>) -> io::Result<T> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    program_dir::open(folder).and_then(|folder| work(&folder, Path::new(name)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rota_proto::v1::{ClaudeRuntime, Runtime, TaskSpec, Workspace, WorkspaceMode, runtime};
    use rota_proto::worker::v1::Assign;

    use super::*;
    use crate::runtimes::Environment;

    #[tokio::test]
    async fn repository_cannot_bring_the_config_directory() {
        let directory = tempfile::tempdir().unwrap();
        let workspace = directory.path().join("kept");
        fs::create_dir_all(workspace.join(".rota/claude/skills")).unwrap();
        let spec = TaskSpec {
            workspace: Some(Workspace { mode: WorkspaceMode::Keep.into(), ..Workspace::default() }),
            ..TaskSpec::default()
        };
        let assign = Assign { spec: Some(spec), ..Assign::default() };
        let options = Options::new(&assign, &Environment::default(), false).unwrap();
        let scratch = directory.path().join("scratch");
        fs::create_dir(&scratch).unwrap();
        let files = Files::new(&options, None, &workspace, &scratch);
        files.write(&options, None).await.unwrap();
        assert!(!files.config.starts_with(&workspace), "{}", files.config.display());
        assert_eq!(fs::read_dir(&files.config).unwrap().count(), 0);
        // Nor can an agent that replaced it by a link.
        fs::remove_dir(&files.config).unwrap();
        symlink(&workspace, &files.config).unwrap();
        assert!(files.write(&options, None).await.is_err());
    }
    /// `setup`, and the agent before a further round, may have put anything in the scratch directory.
    #[tokio::test]
    async fn programs_cannot_redirect_what_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let (scratch, victim) = (directory.path().join("scratch"), directory.path().join("victim"));
        fs::create_dir(&scratch).unwrap();
        fs::write(&victim, "of the user").unwrap();
        let claude = ClaudeRuntime {
            system_prompt: "be".to_owned(),
            append_system_prompt: "kind".to_owned(),
            ..ClaudeRuntime::default()
        };
        let runtime = Some(Runtime { kind: Some(runtime::Kind::Claude(claude)) });
        let assign = Assign { spec: Some(TaskSpec { runtime, ..TaskSpec::default() }), ..Assign::default() };
        let options = Options::new(&assign, &Environment::default(), false).unwrap();
        let project = Project::default();
        let files = Files::new(&options, Some(&project), &directory.path().join("work"), &scratch);
        symlink(&victim, scratch.join("settings.json")).unwrap();
        fs::create_dir(scratch.join("system-prompt")).unwrap();
        nix::unistd::mkfifo(&scratch.join("append-system-prompt"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for round in ["first", "second"] {
            files.write(&options, Some(round)).await.unwrap();
            assert_eq!(fs::read_to_string(files.settings.as_ref().unwrap()).unwrap(), round);
        }
        assert_eq!(fs::read_to_string(files.system_prompt.as_ref().unwrap()).unwrap(), "be");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "of the user");
        // The worker did not break it.
        fs::remove_dir(scratch.join("home")).unwrap();
        symlink(directory.path(), scratch.join("home")).unwrap();
        let failed = files.write(&options, Some("third")).await.unwrap_err();
        assert!(!program_dir::is_of_machine(&failed), "{failed}");
    }
}
