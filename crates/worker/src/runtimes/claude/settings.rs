//! Settings that the CLI is given as a file, which precede those of a repository. Pure.

use std::collections::BTreeSet;

use rota_proto::claude::Provider;
use rota_proto::credential::variables;
use rota_proto::v1::Failure;
use serde_json::{Map, Value};

use super::environment::{fixed, is_fixed};
use super::files::Files;
use super::options::Options;
use super::project::Project;
use super::untrusted;
use crate::runtimes::{Environment, structs};

/// Builds the settings; `None` if there is nothing to set. `project`: the repository's set-up, if it is loaded. `secrets`: names
/// of the variables of the environment that are secrets. Fails if the repository has what nothing can override.
pub(super) fn build(
    options: &Options,
    project: Option<&Project>,
    files: &Files,
    environment: &Environment,
    secrets: &BTreeSet<String>,
) -> Result<Option<String>, Failure> {
    let claude = &options.claude;
    let own = claude.settings.as_ref().map(structs::to_json);
    let own = match own {
        Some(Value::Object(own)) => own,
        _ if project.is_none() => return Ok(None),
        _ => Map::new(),
    };
    let (mut settings, mut overrides) = (Map::new(), Map::new());
    if let Some(project) = project {
        settings = untrusted::settings(&files.memory());
        // The CLI keeps credentials out of all settings, so that they need not be in a file.
        let is_credential = |name: &str| variables(Provider::Anthropic).any(|known| known == name);
        let keep_out = |name: &str| secrets.contains(name) && is_credential(name);
        overrides = project.overrides(&environment.0, claude.project_hooks, fixed(), keep_out)?;
    }
    // What the agent sets precedes both.
    settings.extend(own);
    if project.is_some() && !claude.project_hooks {
        settings.insert("disableAllHooks".to_owned(), Value::Bool(true));
    }
    if let Some(Value::Object(own)) = settings.remove("env") {
        let own = own.into_iter().filter(|(name, _)| !is_fixed(name));
        overrides.extend(own);
    }
    if !overrides.is_empty() {
        settings.insert("env".to_owned(), Value::Object(overrides));
    }
    Ok(Some(Value::Object(settings).to_string()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rota_proto::v1::{ClaudeRuntime, Runtime, TaskSpec, runtime};
    use rota_proto::worker::v1::Assign;
    use serde_json::json;

    use super::*;

    fn built(claude: ClaudeRuntime, project: Option<&Project>) -> Option<Value> {
        let runtime = Runtime { kind: Some(runtime::Kind::Claude(claude)) };
        let spec = TaskSpec { runtime: Some(runtime), ..TaskSpec::default() };
        let assign = Assign { spec: Some(spec), ..Assign::default() };
        let environment = [("TMPDIR", "/s/tmp"), ("ANTHROPIC_API_KEY", "secret"), ("DATABASE", "mine")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let environment = Environment(environment);
        let options = Options::new(&assign, &environment, false).unwrap();
        let secrets = ["ANTHROPIC_API_KEY", "DATABASE"].map(str::to_owned).into();
        let files = Files::new(&options, project, Path::new("/w"), Path::new("/s"));
        let text = build(&options, project, &files, &environment, &secrets).unwrap();
        text.map(|text| serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn nothing_is_set_without_need() {
        assert_eq!(built(ClaudeRuntime::default(), None), None);
    }

    #[test]
    fn repository_is_overridden_and_agent_is_not() {
        let variables =
            ["ANTHROPIC_API_KEY", "BASH_ENV", "DATABASE", "MODE", "TMPDIR"].map(str::to_owned).into();
        let project = Project { variables, ..Project::default() };
        let own = json!({"env": {"MODE": "test", "TMPDIR": "/x"}, "otelHeadersHelper": "/bin/own"});
        let claude = ClaudeRuntime {
            setting_sources: vec!["project".to_owned()],
            settings: structs::from_json(own.clone()),
            ..ClaudeRuntime::default()
        };
        let settings = built(claude, Some(&project)).unwrap();
        let env = &settings["env"];
        assert_eq!(
            [&env["BASH_ENV"], &env["DATABASE"], &env["MODE"], &env["TMPDIR"]],
            ["", "mine", "test", "/s/tmp"]
        );
        assert_eq!(env.get("ANTHROPIC_API_KEY"), None);
        assert_eq!(env["CLAUDE_CODE_DISABLE_BACKGROUND_TASKS"], "", "what the environment has");
        assert_eq!(
            (&settings["otelHeadersHelper"], &settings["apiKeyHelper"]),
            (&json!("/bin/own"), &json!(""))
        );
        assert_eq!(settings["autoMemoryDirectory"], "/s/claude/projects/rota/memory");
        assert!(settings["disableAllHooks"] == true && settings["sandbox"]["enabled"] == false);
        let alone = ClaudeRuntime { settings: structs::from_json(own), ..ClaudeRuntime::default() };
        assert_eq!(
            built(alone, None),
            Some(json!({"env": {"MODE": "test"}, "otelHeadersHelper": "/bin/own"}))
        );
    }

    #[test]
    fn hooks_that_are_switched_on_keep_their_variables() {
        let variables = ["MODE", "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS"].map(str::to_owned).into();
        let project = Project { variables, has_hooks: true, ..Project::default() };
        let claude = ClaudeRuntime {
            setting_sources: vec!["project".to_owned()],
            project_hooks: true,
            ..ClaudeRuntime::default()
        };
        let settings = built(claude, Some(&project)).unwrap();
        let env = settings["env"].as_object().unwrap();
        assert!(
            !env.contains_key("MODE") && env.contains_key("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS"),
            "{env:?}"
        );
        assert_eq!((settings.get("disableAllHooks"), &settings["apiKeyHelper"]), (None, &json!("")));
    }
}
