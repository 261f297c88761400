//! Arguments of the CLI. Pure.
//!
//! An option and its value are one argument (`--resume=X`): a value that begins with a dash is not taken for
//! an option, and options with several values do not swallow what follows.

use super::files::Files;
use super::options::Options;
use super::project::Project;

/// Session that the CLI starts or resumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Session {
    Fresh(String),
    Resumed(String),
    /// A new one that begins with all of another: what still writes into that one does not disturb it.
    Forked {
        from: String,
        id: String,
    },
}

impl Session {
    /// Returns the id of the session that must exist, or of the one that begins.
    pub(super) fn id(&self) -> &str {
        match self {
            Session::Fresh(id) | Session::Resumed(id) => id,
            Session::Forked { from, .. } => from,
        }
    }
}

/// Options that no setting of an agent or a task changes.
pub(super) const FIXED: [&str; 7] = [
    "-p",
    "--output-format=stream-json",
    "--verbose",
    // A long answer would be silent until it is complete.
    "--include-partial-messages",
    "--input-format=stream-json",
    // Otherwise the CLI denies what no rule allows, without a request.
    "--permission-prompt-tool=stdio",
    // Otherwise an appended prompt is ignored on resume.
    "--system-prompt-snapshot=off",
];

/// `project`: the set-up of the repository, if it is loaded.
pub(super) fn build(
    options: &Options,
    project: Option<&Project>,
    files: &Files,
    session: &Session,
) -> Vec<String> {
    let claude = &options.claude;
    let mut args: Vec<String> = FIXED.map(str::to_owned).into();
    // Ignores the settings of the machine, and those of the repository unless the agent trusts it.
    args.push(
        if claude.loads_project() { "--setting-sources=project" } else { "--setting-sources=" }.to_owned(),
    );
    let mut option = |name: &str, value: &str| {
        if !value.is_empty() {
            args.push(format!("--{name}={value}"));
        }
    };
    match session {
        Session::Fresh(id) => option("session-id", id),
        Session::Resumed(id) => option("resume", id),
        Session::Forked { from, id } => {
            option("resume", from);
            option("session-id", id);
        }
    }
    option("permission-mode", &options.mode);
    option("model", &claude.model);
    option("fallback-model", &claude.fallback_model);
    option("tools", &claude.tools.join(","));
    // Repeated, since a pattern may contain commas.
    for tool in &claude.allowed_tools {
        option("allowedTools", tool);
    }
    for tool in &claude.disallowed_tools {
        option("disallowedTools", tool);
    }
    for name in project.into_iter().flat_map(|project| &project.subagents) {
        option("disallowedTools", &format!("Agent({name})"));
    }
    let mut path = |name: &str, path: &Option<std::path::PathBuf>| {
        if let Some(path) = path {
            option(name, &path.to_string_lossy());
        }
    };
    path("system-prompt-file", &files.system_prompt);
    path("append-system-prompt-file", &files.append_system_prompt);
    // Of two servers with the same name, the later one counts.
    path("mcp-config", &files.project_mcp);
    path("mcp-config", &files.mcp);
    path("settings", &files.settings);
    path("agents", &files.agents);
    option("effort", &claude.effort);
    for directory in &files.given {
        option("add-dir", &directory.to_string_lossy());
    }
    for (name, values) in [("betas", &claude.betas), ("plugin-dir", &claude.plugin_dirs)] {
        for value in values {
            option(name, value);
        }
    }
    option("json-schema", options.schema.as_deref().unwrap_or_default());
    if options.max_turns > 0 {
        option("max-turns", &options.max_turns.to_string());
    }
    if options.budget_micro_usd > 0 {
        let (whole, part) = (options.budget_micro_usd / 1_000_000, options.budget_micro_usd % 1_000_000);
        option("max-budget-usd", &format!("{whole}.{part:06}"));
    }
    if matches!(session, Session::Forked { .. }) {
        args.push("--fork-session".to_owned());
    }
    // Always set: MCP servers of the machine are not the task's, and those of the repository are passed if they are wanted.
    args.push("--strict-mcp-config".to_owned());
    args.extend(claude.extra_args.iter().cloned());
    args
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rota_proto::v1::{ClaudeRuntime, Limits, Runtime, TaskSpec, runtime};
    use rota_proto::worker::v1::Assign;

    use super::*;
    use crate::runtimes::{Environment, structs};

    fn args(claude: ClaudeRuntime, limits: Limits, session: &Session) -> Vec<String> {
        let runtime = Runtime { kind: Some(runtime::Kind::Claude(claude)) };
        let spec = TaskSpec { runtime: Some(runtime), limits: Some(limits), ..TaskSpec::default() };
        let assign = Assign { spec: Some(spec), ..Assign::default() };
        let options = Options::new(&assign, &Environment::default(), false).unwrap();
        let project = Project {
            mcp: Some("/w/.mcp.json".into()),
            subagents: vec!["helper".to_owned()],
            ..Project::default()
        };
        let project = Some(&project).filter(|_| options.claude.loads_project());
        let files = Files::new(&options, project, Path::new("/w"), Path::new("/s"));
        build(&options, project, &files, session)
    }

    #[test]
    fn minimal_arguments() {
        let args = args(ClaudeRuntime::default(), Limits::default(), &Session::Fresh("id".to_owned()));
        assert_eq!(
            args.join(" "),
            "-p --output-format=stream-json --verbose --include-partial-messages --input-format=stream-json \
             --permission-prompt-tool=stdio --system-prompt-snapshot=off --setting-sources= \
             --session-id=id --permission-mode=acceptEdits --add-dir=/s/context --add-dir=/s/output --strict-mcp-config"
        );
    }

    #[test]
    fn all_arguments() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let schema = serde_json::json!({"type": "object", "maxProperties": 3});
        let claude = ClaudeRuntime {
            model: "haiku".to_owned(),
            fallback_model: "sonnet".to_owned(),
            tools: words(&["Bash", "Read"]),
            allowed_tools: words(&["Bash(git commit -m 'a,b')", "Read"]),
            disallowed_tools: words(&["WebFetch"]),
            permission_mode: "dontAsk".to_owned(),
            system_prompt: "be".to_owned(),
            append_system_prompt: "kind".to_owned(),
            mcp_servers: structs::from_json(serde_json::json!({"echo": {"command": "echo"}})),
            json_schema: structs::from_json(schema),
            setting_sources: words(&["project"]),
            project_mcp_servers: true,
            agents: structs::from_json(serde_json::json!({"reviewer": {"prompt": "p"}})),
            add_dirs: words(&["/srv/data"]),
            effort: "low".to_owned(),
            betas: words(&["a-1", "b-2"]),
            extra_args: words(&["--brief"]),
            plugin_dirs: words(&["/opt/plugin"]),
            ..ClaudeRuntime::default()
        };
        let limits = Limits { max_turns: 7, budget_micro_usd: 1_250_000, ..Limits::default() };
        let args = args(claude, limits, &Session::Resumed("-odd".to_owned()));
        for expected in [
            "--resume=-odd",
            "--permission-mode=dontAsk",
            "--model=haiku",
            "--fallback-model=sonnet",
            "--tools=Bash,Read",
            "--allowedTools=Bash(git commit -m 'a,b')",
            "--allowedTools=Read",
            "--disallowedTools=WebFetch",
            "--system-prompt-file=/settings/system-prompt",
            "--append-system-prompt-file=/settings/append-system-prompt",
            "--mcp-config=/w/.mcp.json",
            "--mcp-config=/settings/mcp.json",
            "--setting-sources=project",
            "--settings=/settings/settings.json",
            "--agents=/settings/agents.json",
            "--disallowedTools=Agent(helper)",
            "--add-dir=/srv/data",
            "--effort=low",
            "--betas=a-1",
            "--betas=b-2",
            "--plugin-dir=/opt/plugin",
            "--brief",
            "--strict-mcp-config",
            r#"--json-schema={"maxProperties":3,"type":"object"}"#,
            "--max-turns=7",
            "--max-budget-usd=1.250000",
        ] {
            assert!(args.iter().any(|arg| arg == expected), "{expected} is not in {args:?}");
        }
        assert!(!args.iter().any(|arg| arg.starts_with("--session-id")));
    }
}
