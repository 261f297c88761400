//! What a repository brings along that the CLI would load: read before the CLI starts, since some of it runs code or changes
//! where requests go. Knows files, and nothing of the CLI's options.
//!
//! The CLI applies the `env` of a repository's settings over its own environment: a variable such as `BASH_ENV` runs code with
//! the first shell, without any permission, and others undo what Rota sets. No option leaves them out, so each is overridden.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use nix::fcntl::OFlag;
use rota_proto::v1::Failure;
use serde_json::{Map, Value};

use super::options::invalid;

/// Settings of the repository, relative to the workspace.
const SETTINGS: &str = ".claude/settings.json";
/// MCP servers of the repository.
const MCP: &str = ".mcp.json";
/// Limit of bytes for either file.
const MAX_BYTES: u64 = 1 << 20;

/// What is known of a repository's set-up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Project {
    /// Names of the variables that its settings set.
    pub(super) variables: Vec<String>,
    /// Whether its settings have hooks.
    pub(super) has_hooks: bool,
    /// Its MCP servers, if it has any.
    pub(super) mcp: Option<PathBuf>,
}

impl Project {
    /// Reads the set-up of the repository in a workspace. Fails with class INVALID if it cannot be read as certainly as the CLI
    /// reads it: what is unknown cannot be overridden.
    pub(super) async fn read(workspace: &Path) -> Result<Self, Failure> {
        let workspace = workspace.to_owned();
        let read = tokio::task::spawn_blocking(move || read(&workspace)).await;
        read.unwrap_or_else(|error| Err(unreadable(SETTINGS, &error)))
    }

    /// Returns what the settings of the CLI must set so that nothing of the repository's takes effect without being switched on.
    /// `environment` is the one that the CLI starts with, `fixed` decides on the names that are Rota's whatever is switched on, and
    /// `keep_out` on those that the CLI itself keeps out of all settings.
    pub(super) fn overrides(
        &self,
        environment: &BTreeMap<String, String>,
        hooks: bool,
        fixed: impl Fn(&str) -> bool,
        keep_out: impl Fn(&str) -> bool,
    ) -> Map<String, Value> {
        let named = self.variables.iter().filter(|name| (!hooks || fixed(name)) && !keep_out(name));
        let value = |name: &String| environment.get(name).cloned().unwrap_or_default();
        named.map(|name| (name.clone(), Value::String(value(name)))).collect()
    }

    /// Describes what is left out, if anything is.
    pub(super) fn left_out(&self, hooks: bool, mcp: bool) -> Option<String> {
        let variables = match self.variables.len() {
            1 => "1 variable".to_owned(),
            count => format!("{count} variables"),
        };
        let parts: Vec<String> = [
            (self.has_hooks && !hooks, "hooks (projectHooks)".to_owned()),
            (!self.variables.is_empty() && !hooks, format!("{variables} (projectHooks)")),
            (self.mcp.is_some() && !mcp, "MCP servers (projectMcpServers)".to_owned()),
        ]
        .into_iter()
        .filter_map(|(left_out, text)| left_out.then_some(text))
        .collect();
        (!parts.is_empty())
            .then(|| format!("the repository's set-up is loaded without its {}", parts.join(", ")))
    }
}

fn read(workspace: &Path) -> Result<Project, Failure> {
    let root = Dir::open_ambient_dir(workspace, ambient_authority());
    let root = root.map_err(|error| unreadable("the workspace", &error))?;
    let mut project = Project::default();
    if let Some(text) = text(&root, SETTINGS).map_err(|error| unreadable(SETTINGS, &error))? {
        // The CLI takes the mark of the byte order; other parsers do not.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let settings: Value = serde_json::from_str(text).map_err(|error| unreadable(SETTINGS, &error))?;
        let variables = settings.get("env").and_then(Value::as_object);
        project.variables = variables.map(|all| all.keys().cloned().collect()).unwrap_or_default();
        project.has_hooks =
            settings.get("hooks").is_some_and(|hooks| !hooks.as_object().is_some_and(Map::is_empty));
    }
    let mcp = text(&root, MCP).map_err(|error| unreadable(MCP, &error))?;
    project.mcp = mcp.map(|_| workspace.join(MCP));
    Ok(project)
}

/// Reads a file of the repository, which may be a link, but not to anything outside.
fn text(root: &Dir, path: &str) -> io::Result<Option<String>> {
    let options = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).clone();
    let file = match root.open_with(path, &options) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        file => file?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| io::Error::other("not UTF-8"))
}

fn unreadable(file: &str, error: &dyn std::fmt::Display) -> Failure {
    invalid(
        &format!("failed to read {file} of the repository: {error}"),
        "correct the file, or remove `project` from the agent's settingSources",
    )
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::FailureClass;

    use super::*;

    fn repository(settings: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".claude")).unwrap();
        std::fs::write(folder.path().join(SETTINGS), settings).unwrap();
        folder
    }

    #[tokio::test]
    async fn set_up_is_found_as_the_cli_finds_it() {
        let folder =
            repository("\u{feff}{\"env\":{\"A\":\"1\"},\"env\":{\"B\":\"2\"},\"hooks\":{\"Stop\":[]}}");
        let project = Project::read(folder.path()).await.unwrap();
        assert_eq!((project.variables, project.has_hooks, project.mcp), (vec!["B".to_owned()], true, None));
        std::fs::rename(folder.path().join(SETTINGS), folder.path().join("other.json")).unwrap();
        std::os::unix::fs::symlink("../other.json", folder.path().join(SETTINGS)).unwrap();
        std::fs::write(folder.path().join(MCP), "{}").unwrap();
        let project = Project::read(folder.path()).await.unwrap();
        assert!(project.variables == ["B"] && project.mcp.is_some(), "a link within: {project:?}");
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(Project::read(empty.path()).await.unwrap(), Project::default());
    }

    #[tokio::test]
    async fn uncertain_settings_are_refused() {
        // The CLI's parser takes the first two.
        for text in [r#"{"env":{"A":"\ud800"}}"#, r#"{"x":1e999,"env":{"A":"1"}}"#, "{", "// {}"] {
            let failed = Project::read(repository(text).path()).await.unwrap_err();
            assert_eq!(failed.class(), FailureClass::Invalid, "{text}");
        }
        let folder = repository("{}");
        std::fs::remove_file(folder.path().join(SETTINGS)).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join(SETTINGS)).unwrap();
        Project::read(folder.path()).await.unwrap_err();
        std::fs::remove_file(folder.path().join(SETTINGS)).unwrap();
        nix::unistd::mkfifo(&folder.path().join(SETTINGS), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let failed = Project::read(folder.path()).await.unwrap_err();
        assert!(failed.message.contains("not a regular file"), "{failed:?}");
    }

    #[test]
    fn variables_are_overridden() {
        let variables = ["BASH_ENV", "PATH", "FIXED", "KEY"].map(str::to_owned).into();
        let project = Project { variables, has_hooks: true, mcp: None };
        let environment = [("PATH", "/bin"), ("FIXED", "1"), ("KEY", "secret")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let overrides = |hooks| {
            let all = project.overrides(&environment, hooks, |name| name == "FIXED", |name| name == "KEY");
            Value::Object(all).to_string()
        };
        assert_eq!(overrides(false), r#"{"BASH_ENV":"","FIXED":"1","PATH":"/bin"}"#);
        assert_eq!(overrides(true), r#"{"FIXED":"1"}"#);
        let left_out = project.left_out(false, false).unwrap();
        assert!(
            left_out.ends_with("without its hooks (projectHooks), 4 variables (projectHooks)"),
            "{left_out}"
        );
        assert_eq!(project.left_out(true, true), None);
    }
}
