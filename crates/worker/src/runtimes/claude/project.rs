//! What a repository brings along that the CLI would load: read before the CLI starts, since some of it runs code or changes
//! where requests go. Knows files, and nothing of the CLI's options.
//!
//! The CLI applies the `env` of a repository's settings over its own environment: a variable such as `BASH_ENV` runs code with
//! the first shell, without any permission, and others undo what Rota sets. No option leaves them out, so each is overridden, and
//! what cannot be is refused.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use nix::fcntl::OFlag;
use rota_proto::v1::{ClaudeRuntime, Failure};
use serde_json::{Map, Value};

use super::options::{Options, invalid};
use super::{files, subagents, untrusted};
use crate::program_dir;

/// Settings of the repository, relative to the workspace.
const SETTINGS: &str = ".claude/settings.json";
/// MCP servers of the repository.
const MCP: &str = ".mcp.json";
/// Limit of bytes for a file.
const MAX_BYTES: u64 = 1 << 20;
/// Characters of a text of the repository that a message quotes.
const MAX_QUOTED: usize = 100;
/// Settings that choose what an agent can leave open.
const CHOICES: [&str; 3] = ["model", "effortLevel", "agent"];

/// What is known of a repository's set-up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Project {
    /// Names of the variables that its settings set.
    pub(super) variables: Vec<String>,
    /// Whether its settings have hooks.
    pub(super) has_hooks: bool,
    /// What its settings choose, by the name of the setting.
    pub(super) choices: Vec<(&'static str, String)>,
    /// Names of its subagents that would have more permissions than the agent.
    pub(super) subagents: Vec<String>,
    /// Its MCP servers, if it has any.
    pub(super) mcp: Option<PathBuf>,
}

impl Project {
    /// Reads the set-up of the repository in a workspace, and the subagents of the further directories that the CLI is given. Fails
    /// with class INVALID if it cannot be read as certainly as the CLI reads it, or has what can be neither left out nor overridden,
    /// unless its code is trusted.
    pub(super) async fn read(workspace: &Path, scratch: &Path, options: &Options) -> Result<Self, Failure> {
        let (workspace, given) = (workspace.to_owned(), files::given(options, scratch).collect::<Vec<_>>());
        let (trusted, mode) = (options.claude.project_hooks, options.mode.clone());
        let search = !trusted && mode != "bypassPermissions";
        let read = tokio::task::spawn_blocking(move || {
            let mut project = read(&workspace, trusted)?;
            if search {
                let found = subagents::escalating(&workspace, &given, &mode);
                project.subagents = found.map_err(|error| unreadable("the subagents", &error))?;
            }
            Ok(project)
        });
        read.await.unwrap_or_else(|error| Err(unreadable(SETTINGS, &error)))
    }

    /// Returns the variables that the settings of the CLI must set so that none of the repository's takes effect without being switched
    /// on. `environment` is the one that the CLI starts with, `fixed` are the names that are Rota's whatever is switched on, and
    /// `keep_out` decides on those that the CLI itself keeps out of all settings. Fails if one would mean something without a value.
    pub(super) fn overrides(
        &self,
        environment: &BTreeMap<String, String>,
        hooks: bool,
        fixed: impl Iterator<Item = &'static str>,
        keep_out: impl Fn(&str) -> bool,
    ) -> Result<Map<String, Value>, Failure> {
        let always = fixed.chain(untrusted::variables().filter(|_| !hooks)).map(str::to_owned);
        let names = always.chain(self.variables.iter().filter(|_| !hooks).cloned());
        let mut all = Map::new();
        for name in names.filter(|name| !keep_out(name)) {
            let value = environment.get(&name);
            if value.is_none() && untrusted::is_never_empty(&name) {
                return Err(refused(&format!("set the variable {name}, which nothing can override")));
            }
            all.insert(name, Value::String(value.cloned().unwrap_or_default()));
        }
        Ok(all)
    }

    /// Describes what its settings choose of what the agent leaves open, if they do.
    pub(super) fn chosen(&self, agent: &ClaudeRuntime) -> Option<String> {
        let open = |name: &str| match name {
            "model" => agent.model.is_empty(),
            "effortLevel" => agent.effort.is_empty(),
            _ => true,
        };
        let open = self.choices.iter().filter(|(name, _)| open(name));
        let texts: Vec<_> = open.map(|(name, value)| format!("{name} {value}")).collect();
        (!texts.is_empty()).then(|| format!("the settings of the repository choose {}", texts.join(", ")))
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
            (
                !self.subagents.is_empty(),
                format!("subagents with more permissions than the agent: {}", self.subagents.join(", ")),
            ),
        ]
        .into_iter()
        .filter_map(|(left_out, text)| left_out.then_some(text))
        .collect();
        (!parts.is_empty())
            .then(|| format!("the repository's set-up is loaded without its {}", parts.join(", ")))
    }
}

/// `trusted`: its code may run, so that no setting can do more.
fn read(workspace: &Path, trusted: bool) -> Result<Project, Failure> {
    let root = program_dir::open(workspace);
    let root = root.map_err(|error| unreadable("the workspace", &error))?;
    let mut project = Project::default();
    if let Some(text) = text(&root, SETTINGS).map_err(|error| unreadable(SETTINGS, &error))? {
        // The CLI takes the mark of the byte order; other parsers do not.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let settings: Value = serde_json::from_str(text).map_err(|error| unreadable(SETTINGS, &error))?;
        let names = settings.as_object().into_iter().flat_map(Map::keys);
        if let Some(name) = names.filter(|_| !trusted).find(|name| !untrusted::is_known(name)) {
            return Err(refused(&format!("have {}, which Rota does not know", short(name))));
        }
        let variables = settings.get("env").and_then(Value::as_object);
        project.variables = variables.map(|all| all.keys().cloned().collect()).unwrap_or_default();
        // Rota writes them into settings of its own.
        if let Some(name) = project.variables.iter().find(|name| !trusted && !is_variable(name)) {
            return Err(refused(&format!("set {}, which is no name of a variable", short(name))));
        }
        project.has_hooks =
            settings.get("hooks").is_some_and(|hooks| !hooks.as_object().is_some_and(Map::is_empty));
        let choice = |name| Some((name, short(settings.get(name)?.as_str()?)));
        project.choices = CHOICES.into_iter().filter_map(choice).collect();
    }
    let mcp = text(&root, MCP).map_err(|error| unreadable(MCP, &error))?;
    project.mcp = mcp.map(|_| workspace.join(MCP));
    Ok(project)
}

/// Whether a shell takes a name for that of a variable.
fn is_variable(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Quotes a text of the repository.
fn short(text: &str) -> String {
    format!("{:?}", text.chars().take(MAX_QUOTED).collect::<String>())
}

/// Reads a file of the repository, which may be a link, but not to anything outside.
pub(super) fn text(root: &Dir, path: &str) -> io::Result<Option<String>> {
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

/// Failure for settings whose effect cannot be left out.
fn refused(what: &str) -> Failure {
    invalid(
        &format!("the settings of the repository ({SETTINGS}) {what}"),
        "remove it there, or set `projectHooks` in the agent if the repository may run code",
    )
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{FailureClass, Runtime, TaskSpec, runtime};
    use rota_proto::worker::v1::Assign;

    use super::*;
    use crate::runtimes::Environment;

    fn repository(settings: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".claude")).unwrap();
        std::fs::write(folder.path().join(SETTINGS), settings).unwrap();
        folder
    }

    fn options(claude: ClaudeRuntime) -> Options {
        let runtime = Runtime { kind: Some(runtime::Kind::Claude(claude)) };
        let spec = TaskSpec { runtime: Some(runtime), ..TaskSpec::default() };
        Options::new(&Assign { spec: Some(spec), ..Assign::default() }, &Environment::default(), false)
            .unwrap()
    }

    async fn set_up(folder: &Path) -> Result<Project, Failure> {
        Project::read(folder, Path::new("/none"), &options(ClaudeRuntime::default())).await
    }

    #[tokio::test]
    async fn set_up_is_found_as_the_cli_finds_it() {
        let folder =
            repository("\u{feff}{\"env\":{\"A\":\"1\"},\"env\":{\"B\":\"2\"},\"hooks\":{\"Stop\":[]}}");
        let project = set_up(folder.path()).await.unwrap();
        assert_eq!((project.variables, project.has_hooks, project.mcp), (vec!["B".to_owned()], true, None));
        std::fs::rename(folder.path().join(SETTINGS), folder.path().join("other.json")).unwrap();
        std::os::unix::fs::symlink("../other.json", folder.path().join(SETTINGS)).unwrap();
        std::fs::write(folder.path().join(MCP), "{}").unwrap();
        let project = set_up(folder.path()).await.unwrap();
        assert!(project.variables == ["B"] && project.mcp.is_some(), "a link within: {project:?}");
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(set_up(empty.path()).await.unwrap(), Project::default());
    }

    /// An earlier round may have written them.
    #[tokio::test]
    async fn subagents_of_further_directories_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let (scratch, added) = (folder.path().join("scratch"), folder.path().join("added"));
        let [context, output] = files::exchanged(&scratch);
        for (directory, name) in [(&context, "given"), (&output, "left"), (&added, "added")] {
            std::fs::create_dir_all(directory.join(".claude/agents")).unwrap();
            let text = format!("---\nname: {name}\npermissionMode: bypassPermissions\n---\n");
            std::fs::write(directory.join(".claude/agents/a.md"), text).unwrap();
        }
        let claude =
            ClaudeRuntime { add_dirs: vec![added.to_str().unwrap().to_owned()], ..ClaudeRuntime::default() };
        let workspace = tempfile::tempdir().unwrap();
        let project = Project::read(workspace.path(), &scratch, &options(claude)).await.unwrap();
        assert_eq!(project.subagents, ["added", "given", "left"]);
    }

    #[tokio::test]
    async fn uncertain_settings_are_refused() {
        // The CLI's parser takes the first two.
        for text in [r#"{"env":{"A":"\ud800"}}"#, r#"{"x":1e999,"env":{"A":"1"}}"#, "{", "// {}"] {
            let failed = set_up(repository(text).path()).await.unwrap_err();
            assert_eq!(failed.class(), FailureClass::Invalid, "{text}");
        }
        let folder = repository("{}");
        std::fs::remove_file(folder.path().join(SETTINGS)).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join(SETTINGS)).unwrap();
        set_up(folder.path()).await.unwrap_err();
        std::fs::remove_file(folder.path().join(SETTINGS)).unwrap();
        nix::unistd::mkfifo(&folder.path().join(SETTINGS), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let failed = set_up(folder.path()).await.unwrap_err();
        assert!(failed.message.contains("not a regular file"), "{failed:?}");
    }

    #[tokio::test]
    async fn unknown_settings_are_refused_without_trust() {
        let folder = repository(r#"{"futureHelper": "./run", "model": "m", "agent": "a"}"#);
        let failed = set_up(folder.path()).await.unwrap_err();
        assert_eq!(failed.class(), FailureClass::Invalid);
        assert!(failed.message.contains("have \"futureHelper\", which Rota does not know"), "{failed:?}");
        let trusting = ClaudeRuntime {
            setting_sources: vec!["project".to_owned()],
            project_hooks: true,
            ..ClaudeRuntime::default()
        };
        let project = Project::read(folder.path(), Path::new("/none"), &options(trusting)).await.unwrap();
        let chosen = project.chosen(&ClaudeRuntime::default()).unwrap();
        assert!(chosen.ends_with(r#"choose model "m", agent "a""#), "{chosen}");
        let own = ClaudeRuntime { model: "own".to_owned(), ..ClaudeRuntime::default() };
        assert!(project.chosen(&own).unwrap().ends_with(r#"choose agent "a""#));
    }

    #[tokio::test]
    async fn names_of_variables_have_no_commands() {
        for name in ["A$(touch x)", "A`x`", "", "1A", "A B", "A\\nB", "Ä", "A-B"] {
            let failed =
                set_up(repository(&format!(r#"{{"env":{{"{name}":"1"}}}}"#)).path()).await.unwrap_err();
            assert!(failed.message.ends_with("which is no name of a variable"), "{failed:?}");
        }
        let project = set_up(repository(r#"{"env":{"_a1":"1"}}"#).path()).await.unwrap();
        assert_eq!(project.variables, ["_a1"]);
    }

    #[test]
    fn variables_are_overridden() {
        let variables = ["BASH_ENV", "PATH", "KEY", "OWN"].map(str::to_owned).into();
        let project = Project { variables, has_hooks: true, ..Project::default() };
        let environment = [("PATH", "/bin"), ("FIXED", "1"), ("KEY", "secret")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let overrides = |project: &Project, hooks| {
            project.overrides(&environment, hooks, ["FIXED"].into_iter(), |name| name == "KEY")
        };
        let all = overrides(&project, false).unwrap();
        let get = |name: &str| all.get(name).and_then(Value::as_str);
        assert_eq!((get("BASH_ENV"), get("OWN"), get("PATH")), (Some(""), Some(""), Some("/bin")));
        assert_eq!((get("FIXED"), get("KEY")), (Some("1"), None));
        assert_eq!(get("LD_PRELOAD"), Some(""), "a file that appears later may set it");
        assert_eq!(Value::Object(overrides(&project, true).unwrap()).to_string(), r#"{"FIXED":"1"}"#);
        let left_out = project.left_out(false, false).unwrap();
        assert!(
            left_out.ends_with("without its hooks (projectHooks), 4 variables (projectHooks)"),
            "{left_out}"
        );
        assert_eq!(project.left_out(true, true), None);
        // An empty one would switch the check of certificates off.
        let project = Project { variables: vec!["GIT_SSL_NO_VERIFY".to_owned()], ..Project::default() };
        let failed = overrides(&project, false).unwrap_err();
        assert!(failed.message.contains("GIT_SSL_NO_VERIFY"), "{failed:?}");
        overrides(&project, true).unwrap();
    }
}
