//! Settings that the CLI is given as a file, which precede those of a repository. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::environment::{is_credential, is_fixed};
use super::options::Options;
use super::project::Project;
use crate::runtimes::{Environment, structs};

/// Builds the settings; `None` if there is nothing to set. `project`: the repository's set-up, if it is loaded. `secrets`: names
/// of the variables of the environment that are secrets.
pub(super) fn build(
    options: &Options,
    project: Option<&Project>,
    environment: &Environment,
    secrets: &BTreeSet<String>,
) -> Option<String> {
    let claude = &options.claude;
    let own = claude.settings.as_ref().map(structs::to_json);
    let mut settings = match own {
        Some(Value::Object(own)) => own,
        _ if project.is_none() => return None,
        _ => Map::new(),
    };
    let mut variables = Map::new();
    if let Some(project) = project {
        // The CLI keeps credentials out of all settings, so that they need not be in a file.
        let keep_out = |name: &str| secrets.contains(name) && is_credential(name);
        variables = project.overrides(&environment.0, claude.project_hooks, is_fixed, keep_out);
        if !claude.project_hooks {
            settings.insert("disableAllHooks".to_owned(), Value::Bool(true));
        }
    }
    if let Some(Value::Object(own)) = settings.remove("env") {
        let own = own.into_iter().filter(|(name, _)| !is_fixed(name));
        variables.extend(own);
    }
    if !variables.is_empty() {
        settings.insert("env".to_owned(), Value::Object(variables));
    }
    Some(Value::Object(settings).to_string())
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{ClaudeRuntime, Runtime, TaskSpec, runtime};
    use rota_proto::worker::v1::Assign;

    use super::*;

    fn built(claude: ClaudeRuntime, project: Option<&Project>) -> Option<String> {
        let runtime = Runtime { kind: Some(runtime::Kind::Claude(claude)) };
        let spec = TaskSpec { runtime: Some(runtime), ..TaskSpec::default() };
        let assign = Assign { spec: Some(spec), ..Assign::default() };
        let environment = [("TMPDIR", "/s/tmp"), ("ANTHROPIC_API_KEY", "secret"), ("DATABASE", "mine")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let environment = Environment(environment);
        let options = Options::new(&assign, &environment, false).unwrap();
        let secrets = ["ANTHROPIC_API_KEY", "DATABASE"].map(str::to_owned).into();
        build(&options, project, &environment, &secrets)
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
        let own = serde_json::json!({"env": {"MODE": "test", "TMPDIR": "/x"}, "outputStyle": "Explanatory"});
        let claude = ClaudeRuntime {
            setting_sources: vec!["project".to_owned()],
            settings: structs::from_json(own.clone()),
            ..ClaudeRuntime::default()
        };
        assert_eq!(
            built(claude, Some(&project)).unwrap(),
            r#"{"disableAllHooks":true,"env":{"BASH_ENV":"","DATABASE":"mine","MODE":"test","TMPDIR":"/s/tmp"},"outputStyle":"Explanatory"}"#
        );
        let alone = ClaudeRuntime { settings: structs::from_json(own), ..ClaudeRuntime::default() };
        assert_eq!(built(alone, None).unwrap(), r#"{"env":{"MODE":"test"},"outputStyle":"Explanatory"}"#);
    }

    #[test]
    fn hooks_that_are_switched_on_keep_their_variables() {
        let variables = ["MODE", "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS"].map(str::to_owned).into();
        let project = Project { variables, has_hooks: true, mcp: None };
        let claude = ClaudeRuntime {
            setting_sources: vec!["project".to_owned()],
            project_hooks: true,
            ..ClaudeRuntime::default()
        };
        assert_eq!(
            built(claude, Some(&project)).unwrap(),
            r#"{"env":{"CLAUDE_CODE_DISABLE_BACKGROUND_TASKS":""}}"#,
            "whatever the environment has"
        );
    }
}
