//! Rules for settings of the Claude Code CLI that every component must apply alike: what may be set, and what only an agent
//! may. Knows the names of the CLI's options, and nothing of its processes.

use crate::v1::ClaudeRuntime;
use pbjson_types::value::Kind;

/// The source of settings that a repository is.
pub const PROJECT: &str = "project";

const EFFORTS: [&str; 5] = ["low", "medium", "high", "xhigh", "max"];
const MAX_LIST: usize = 64;
const MAX_BETAS: usize = 32;
const MAX_TEXT: usize = 4096;

/// Options of the CLI that Rota sets itself, or that have a field.
const SET: [&str; 37] = [
    "add-dir",
    "agents",
    "allowed-tools",
    "allowedTools",
    "append-system-prompt",
    "append-system-prompt-file",
    "betas",
    "continue",
    "disallowed-tools",
    "disallowedTools",
    "effort",
    "fallback-model",
    "fork-session",
    "include-partial-messages",
    "input-format",
    "json-schema",
    "max-budget-usd",
    "max-turns",
    "mcp-config",
    "model",
    "output-format",
    "permission-mode",
    "permission-prompt-tool",
    "permission-prompts",
    "plugin-dir",
    "print",
    "resume",
    "resume-session-at",
    "session-id",
    "session-mirror",
    "setting-sources",
    "settings",
    "strict-mcp-config",
    "system-prompt",
    "system-prompt-file",
    "system-prompt-snapshot",
    "tools",
];

/// Options that end the run, take it elsewhere, or break what Rota depends on.
const UNUSABLE: [&str; 54] = [
    "agent",
    "agent-id",
    "agent-name",
    "agent-type",
    "allow-dangerously-skip-permissions",
    "attach-serve",
    "await-initialize",
    "background",
    "bare",
    "bg",
    "chrome",
    "cloud",
    "cwd",
    "dangerously-load-development-channels",
    "dangerously-skip-permissions",
    "debug-file",
    "desktop",
    "enable-auto-mode",
    "environment",
    "from-link",
    "from-pr",
    "help",
    "ide",
    "ignore-persisted-trust",
    "inherit-permission-mode",
    "init",
    "init-only",
    "initialize-fields",
    "maintenance",
    "managed-settings",
    "managed-settings-in-initialize",
    "no-session-persistence",
    "parent-session-id",
    "plugin-dir-no-mcp",
    "plugin-url",
    "prefill",
    "project-config-root",
    "rc",
    "remote",
    "remote-control",
    "remote-control-session-name-prefix",
    "replay-user-messages",
    "restricted",
    "rewind-files",
    "safe-mode",
    "sdk-url",
    "session-tunnel",
    "team-name",
    "teammate-mode",
    "teleport",
    "tmux",
    "trust-workspace",
    "version",
    "worktree",
];

/// Who answers the model's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Anthropic's API, or a server with the same one.
    Anthropic,
    /// Amazon Bedrock, with keys or tokens of AWS.
    Bedrock,
    /// Google Vertex AI, with credentials of Google Cloud.
    Vertex,
    /// Microsoft Foundry, with keys of Azure.
    Foundry,
}

impl Provider {
    /// Returns the provider that variables choose, as the CLI reads them.
    pub fn of<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Self {
        let is_on =
            |name: &str| get(name).is_some_and(|value| !matches!(value, "" | "0" | "false" | "no" | "off"));
        let chosen = [
            ("CLAUDE_CODE_USE_BEDROCK", Self::Bedrock),
            ("CLAUDE_CODE_USE_VERTEX", Self::Vertex),
            ("CLAUDE_CODE_USE_FOUNDRY", Self::Foundry),
        ];
        chosen
            .into_iter()
            .find_map(|(name, provider)| is_on(name).then_some(provider))
            .unwrap_or(Self::Anthropic)
    }

    /// Returns the name of the provider.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "the Anthropic API",
            Self::Bedrock => "Amazon Bedrock",
            Self::Vertex => "Google Vertex AI",
            Self::Foundry => "Microsoft Foundry",
        }
    }

    /// Returns the variables that carry the credentials, as text.
    pub fn credentials(self) -> &'static str {
        match self {
            Self::Anthropic => {
                "ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN, or CLAUDE_CODE_OAUTH_TOKEN (from `claude setup-token`)"
            }
            Self::Bedrock => "AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            Self::Vertex => "GOOGLE_APPLICATION_CREDENTIALS (the path of a file)",
            Self::Foundry => "ANTHROPIC_FOUNDRY_API_KEY",
        }
    }

    /// Returns the settings that calls need besides: one name of each list.
    pub fn needs(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Anthropic => &[],
            Self::Bedrock => &[&["AWS_REGION"]],
            Self::Vertex => &[&["ANTHROPIC_VERTEX_PROJECT_ID"], &["CLOUD_ML_REGION"]],
            Self::Foundry => &[&["ANTHROPIC_FOUNDRY_RESOURCE", "ANTHROPIC_FOUNDRY_BASE_URL"]],
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Name of the field, as in the API.
    pub field: &'static str,
    /// Entry of the field, if it is a list.
    pub index: Option<usize>,
    /// What is wrong, as in `must be …`.
    pub message: String,
}

impl ClaudeRuntime {
    /// Returns whether the CLI loads the set-up of the repository.
    pub fn loads_project(&self) -> bool {
        self.setting_sources.iter().any(|source| source == PROJECT)
    }

    /// Returns whether code of the repository runs without any permission.
    pub fn runs_project_code(&self) -> bool {
        self.project_hooks || self.project_mcp_servers
    }

    /// Returns the first field that only agents may set and that these settings change.
    pub fn changes_of_agent_only(&self, agent: &ClaudeRuntime) -> Option<&'static str> {
        let differs = |own: &[String], base: &[String]| !own.is_empty() && own != base;
        [
            ("setting_sources", differs(&self.setting_sources, &agent.setting_sources)),
            ("project_hooks", self.project_hooks && !agent.project_hooks),
            ("project_mcp_servers", self.project_mcp_servers && !agent.project_mcp_servers),
            ("extra_args", differs(&self.extra_args, &agent.extra_args)),
        ]
        .into_iter()
        .find_map(|(field, changes)| changes.then_some(field))
    }

    /// Returns the first setting that cannot be used.
    pub fn problem(&self) -> Option<Problem> {
        let of = |field, message: &str| Problem { field, index: None, message: message.to_owned() };
        let in_list = |field, list: &[String], most: usize, check: &dyn Fn(&str) -> Option<String>| {
            if list.len() > most {
                let message = format!("has {} entries; at most {most} are allowed", list.len());
                return Some(Problem { field, index: None, message });
            }
            let mut found = list.iter().enumerate().map(|(index, entry)| (index, check(entry)));
            found.find_map(|(index, message)| Some(Problem { field, index: Some(index), message: message? }))
        };
        let source = |source: &str| (source != PROJECT).then(|| format!("must be {PROJECT}"));
        in_list("setting_sources", &self.setting_sources, 1, &source)
            .or_else(|| {
                let switch = if self.project_hooks { "project_hooks" } else { "project_mcp_servers" };
                let needs = self.runs_project_code() && !self.loads_project();
                needs.then(|| of(switch, "needs `project` in the setting sources"))
            })
            .or_else(|| {
                // The CLI runs the hooks of all settings, or none.
                let hooks =
                    self.settings.as_ref().is_some_and(|settings| settings.fields.contains_key("hooks"));
                let kept_out = hooks && self.loads_project() && !self.project_hooks;
                let text =
                    "must not have hooks while those of the repository are off: the CLI runs both or none";
                kept_out.then(|| of("settings", text))
            })
            .or_else(|| {
                let agents = self.agents.iter().flat_map(|agents| agents.fields.values());
                let wrong =
                    agents.map(|agent| &agent.kind).any(|kind| !matches!(kind, Some(Kind::StructValue(_))));
                wrong.then(|| of("agents", "must have an object for each name"))
            })
            .or_else(|| {
                let known = self.effort.is_empty() || EFFORTS.contains(&self.effort.as_str());
                (!known).then(|| of("effort", &format!("must be one of {}", EFFORTS.join(", "))))
            })
            .or_else(|| in_list("betas", &self.betas, MAX_BETAS, &word))
            .or_else(|| in_list("add_dirs", &self.add_dirs, MAX_LIST, &directory))
            .or_else(|| in_list("plugin_dirs", &self.plugin_dirs, MAX_LIST, &directory))
            .or_else(|| in_list("extra_args", &self.extra_args, MAX_LIST, &argument))
    }
}

fn word(text: &str) -> Option<String> {
    let is_word = (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    (!is_word).then(|| "must consist of letters, digits, `.`, `_` and `-`".to_owned())
}

fn directory(path: &str) -> Option<String> {
    let absolute = path.starts_with('/') && !path.split('/').any(|part| part == "..");
    let usable = absolute && !path.contains('\0') && path.len() <= MAX_TEXT;
    (!usable).then(|| "must be an absolute path without `..`".to_owned())
}

/// Returns why an argument is refused. The name of an option is a part of the argument, so that no value becomes one.
fn argument(argument: &str) -> Option<String> {
    let name = argument.strip_prefix("--").map(|rest| rest.split_once('=').map_or(rest, |(name, _)| name));
    let Some(name) = name.filter(|name| !name.is_empty() && word(name).is_none()) else {
        return Some("must be `--NAME` or `--NAME=VALUE`".to_owned());
    };
    if argument.contains('\0') || argument.len() > MAX_TEXT {
        return Some("must have at most 4096 bytes, and no zero byte".to_owned());
    }
    if SET.contains(&name) {
        return Some(format!("must not be --{name}, which Rota sets"));
    }
    UNUSABLE.contains(&name).then(|| format!("must not be --{name}, which attempts cannot use"))
}

#[cfg(test)]
mod tests {
    use pbjson_types::{Struct, Value};

    use super::*;

    fn problem(change: impl FnOnce(&mut ClaudeRuntime)) -> Option<(&'static str, Option<usize>, String)> {
        let mut claude = ClaudeRuntime::default();
        change(&mut claude);
        claude.problem().map(|found| (found.field, found.index, found.message))
    }

    fn object(name: &str, value: impl Into<Value>) -> Struct {
        Struct { fields: [(name.to_owned(), value.into())].into() }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn usable_settings_have_no_problem() {
        let found = problem(|claude| {
            claude.setting_sources = words(&["project"]);
            (claude.project_hooks, claude.project_mcp_servers) = (true, true);
            claude.settings = Some(object("hooks", Struct::default()));
            claude.agents = Some(object("reviewer", Struct::default()));
            claude.effort = "high".into();
            claude.betas = words(&["context-1m-2025-08-07"]);
            claude.add_dirs = words(&["/srv/data"]);
            claude.extra_args = words(&["--brief", "--autocompact=200000", "--name=--model"]);
        });
        assert_eq!(found, None);
    }

    #[test]
    fn arguments_of_rota_are_refused() {
        for (argument, part) in [
            ("--model=opus", "which Rota sets"),
            ("--settings={}", "which Rota sets"),
            ("--allowedTools=Bash", "which Rota sets"),
            ("--dangerously-skip-permissions", "cannot use"),
            ("--rc", "cannot use"),
            ("--init-only", "cannot use"),
            ("--debug-file=/x", "cannot use"),
            ("-p", "--NAME"),
            ("--", "--NAME"),
            ("--=x", "--NAME"),
            ("do something else", "--NAME"),
            ("--two words=x", "--NAME"),
        ] {
            let (field, index, message) =
                problem(|claude| claude.extra_args = words(&["--brief", argument])).unwrap();
            assert_eq!((field, index), ("extra_args", Some(1)), "{argument}");
            assert!(message.contains(part), "{argument}: {message}");
        }
    }

    #[test]
    fn unusable_settings_are_named() {
        let hooks = |claude: &mut ClaudeRuntime| {
            claude.setting_sources = words(&["project"]);
            claude.settings = Some(object("hooks", Struct::default()));
        };
        assert_eq!(problem(hooks).unwrap().0, "settings");
        assert_eq!(problem(|claude| claude.setting_sources = words(&["user"])).unwrap().0, "setting_sources");
        assert_eq!(problem(|claude| claude.project_hooks = true).unwrap().0, "project_hooks");
        assert_eq!(problem(|claude| claude.project_mcp_servers = true).unwrap().0, "project_mcp_servers");
        assert_eq!(problem(|claude| claude.effort = "huge".into()).unwrap().0, "effort");
        assert_eq!(problem(|claude| claude.betas = words(&["a b"])).unwrap().0, "betas");
        assert_eq!(problem(|claude| claude.add_dirs = words(&["data"])).unwrap().0, "add_dirs");
        assert_eq!(problem(|claude| claude.plugin_dirs = words(&["/a/../b"])).unwrap().0, "plugin_dirs");
        let agents = object("x", 3.0);
        assert_eq!(problem(|claude| claude.agents = Some(agents)).unwrap().0, "agents");
    }

    #[test]
    fn variables_choose_the_provider() {
        let of = |set: &str| Provider::of(|name| (name == set).then_some("1"));
        assert_eq!(of("ANTHROPIC_API_KEY"), Provider::Anthropic);
        assert_eq!(of("CLAUDE_CODE_USE_BEDROCK"), Provider::Bedrock);
        assert_eq!(of("CLAUDE_CODE_USE_VERTEX"), Provider::Vertex);
        assert_eq!(of("CLAUDE_CODE_USE_FOUNDRY"), Provider::Foundry);
        for off in ["", "0", "false", "no", "off"] {
            assert_eq!(Provider::of(|_| Some(off)), Provider::Anthropic, "{off}");
        }
    }

    #[test]
    fn trust_is_a_matter_of_the_agent() {
        let agent = ClaudeRuntime { setting_sources: words(&["project"]), ..Default::default() };
        let task = ClaudeRuntime { model: "opus".into(), ..agent.clone() };
        assert_eq!(task.changes_of_agent_only(&agent), None);
        assert_eq!(task.changes_of_agent_only(&ClaudeRuntime::default()), Some("setting_sources"));
        let hooks = ClaudeRuntime { project_hooks: true, ..agent.clone() };
        assert_eq!(hooks.changes_of_agent_only(&agent), Some("project_hooks"));
        let extra = ClaudeRuntime { extra_args: words(&["--brief"]), ..Default::default() };
        assert_eq!(extra.changes_of_agent_only(&agent), Some("extra_args"));
    }
}
