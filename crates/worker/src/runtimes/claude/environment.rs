//! Environment of the CLI. Pure.
//!
//! Three layers: the attempt's environment; settings that make the CLI quiet and bounded, unless the task or
//! its agent sets them; and settings that this driver depends on, which override everything.

use rota_proto::worker::v1::Assign;

use super::files::{Files, PROJECT};
use crate::runtimes::Environment;

/// Settings that an agent or a task may override in its `environment`.
const DEFAULT_VARS: [(&str, &str); 8] = [
    ("DISABLE_TELEMETRY", "1"),
    ("DISABLE_ERROR_REPORTING", "1"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    // A model that does not start to answer is retried; a long answer is not interrupted.
    ("API_TIMEOUT_MS", "300000"),
    // Tools of MCP servers have practically no limit otherwise; the CLI itself limits commands to ten minutes.
    ("MCP_TOOL_TIMEOUT", "1800000"),
    // The agent keeps a to-do list, from which its progress is known. Undocumented: without it there is only the last tool call.
    (concat!("CLAUDE_CODE_ENABLE_TO", "DO_TOOLS"), "1"),
    // As `TodoWrite`: a conversation that continues elsewhere lacks the files of the other tools.
    ("CLAUDE_CODE_ENABLE_TASKS", "0"),
];

/// Settings that the driver depends on.
const FIXED_VARS: [(&str, &str); 3] = [
    // One result per turn, timeouts that kill, and subagents that are awaited.
    ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1"),
    // A failed start reports its reason in a result line.
    ("CLAUDE_CODE_STARTUP_FAILURE_RESULTS", "1"),
    // Settings, such as those of a repository, neither move requests nor replace credentials.
    ("CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST", "1"),
];

/// Directories, which no setting moves either.
const FIXED_DIRECTORIES: [&str; 4] =
    ["CLAUDE_CONFIG_DIR", "CLAUDE_CODE_PROJECT_DIR_NAME", "TMPDIR", "CLAUDE_CODE_TMPDIR"];

/// Settings that make the CLI export its spans, set only if a collector is configured.
const TRACING_VARS: [(&str, &str); 4] = [
    ("CLAUDE_CODE_ENABLE_TELEMETRY", "1"),
    ("CLAUDE_CODE_ENHANCED_TELEMETRY_BETA", "1"),
    ("CLAUDE_CODE_PROPAGATE_TRACEPARENT", "1"),
    ("OTEL_TRACES_EXPORTER", "otlp"),
];

/// Variables that configure a collector.
const COLLECTOR_VARS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// Returns the variables that the driver depends on.
pub(super) fn fixed() -> impl Iterator<Item = &'static str> {
    FIXED_DIRECTORIES.into_iter().chain(FIXED_VARS.into_iter().map(|(name, _)| name))
}

/// Whether the driver depends on a variable.
pub(super) fn is_fixed(name: &str) -> bool {
    fixed().any(|fixed| fixed == name)
}

/// Returns the variables that do not depend on an attempt.
pub(super) fn of_every_attempt() -> impl Iterator<Item = (&'static str, &'static str)> {
    DEFAULT_VARS.into_iter().chain(FIXED_VARS)
}

pub(super) fn build(given: &Environment, assign: &Assign, files: &Files) -> Environment {
    let mut all = given.0.clone();
    let named = assign.spec.as_ref().map(|spec| &spec.environment);
    let own = |name: &str| named.is_some_and(|named| named.contains_key(name));
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();

    for (name, value) in DEFAULT_VARS {
        if !own(name) {
            all.insert(name.to_owned(), value.to_owned());
        }
    }
    if !own("HOME") {
        all.insert("HOME".to_owned(), path(&files.home));
    }
    all.entry("PATH".to_owned()).or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
    if !assign.traceparent.is_empty() {
        all.entry("TRACEPARENT".to_owned()).or_insert_with(|| assign.traceparent.clone());
    }
    if !assign.tracestate.is_empty() {
        all.entry("TRACESTATE".to_owned()).or_insert_with(|| assign.tracestate.clone());
    }
    if COLLECTOR_VARS.iter().any(|name| all.contains_key(*name)) {
        for (name, value) in TRACING_VARS {
            all.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    for (name, value) in FIXED_VARS {
        all.insert(name.to_owned(), value.to_owned());
    }
    all.insert("CLAUDE_CONFIG_DIR".to_owned(), path(&files.config));
    // Undocumented. Without it, no checkpoint finds the transcripts, and tasks start over.
    all.insert("CLAUDE_CODE_PROJECT_DIR_NAME".to_owned(), PROJECT.to_owned());
    all.insert("TMPDIR".to_owned(), path(&files.temporary));
    all.insert("CLAUDE_CODE_TMPDIR".to_owned(), path(&files.temporary));
    Environment(all)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rota_proto::v1::{TaskSpec, Workspace, WorkspaceMode};

    use super::*;
    use crate::runtimes::claude::options::Options;

    fn built(spec: TaskSpec, given: &[(&str, &str)]) -> Environment {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut given: std::collections::BTreeMap<String, String> = given.iter().map(pair).collect();
        given.extend(spec.environment.clone());
        let assign = Assign { spec: Some(spec), traceparent: "00-a-b-01".to_owned(), ..Assign::default() };
        let given = Environment(given);
        let options = Options::new(&assign, &given, false).unwrap();
        build(&given, &assign, &Files::new(&options, None, Path::new("/w"), Path::new("/s")))
    }

    #[test]
    fn later_layers_override_earlier_ones() {
        let spec = TaskSpec {
            environment: [("API_TIMEOUT_MS", "5"), ("TMPDIR", "/x"), ("HOME", "/mine")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..TaskSpec::default()
        };
        let built = built(spec, &[("ANTHROPIC_BASE_URL", "http://proxy"), ("DISABLE_TELEMETRY", "0")]);
        let get = |name: &str| built.0.get(name).map(String::as_str);
        assert_eq!(get("ANTHROPIC_BASE_URL"), Some("http://proxy"));
        assert_eq!(get("DISABLE_TELEMETRY"), Some("1"), "only a task's or agent's setting counts");
        assert_eq!(get("API_TIMEOUT_MS"), Some("5"));
        assert_eq!(get("HOME"), Some("/mine"));
        assert_eq!(get("TMPDIR"), Some("/s/tmp"));
        assert_eq!(get("CLAUDE_CONFIG_DIR"), Some("/s/claude"));
        assert_eq!(get("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS"), Some("1"));
        assert_eq!(get("CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST"), Some("1"));
        assert_eq!(get("TRACEPARENT"), Some("00-a-b-01"));
        assert_eq!(get("CLAUDE_CODE_ENABLE_TELEMETRY"), None);
    }

    #[test]
    fn collector_enables_tracing() {
        for name in COLLECTOR_VARS {
            let built = built(TaskSpec::default(), &[(name, "http://collector")]);
            assert_eq!(built.0.get("CLAUDE_CODE_ENABLE_TELEMETRY").map(String::as_str), Some("1"));
        }
    }

    #[test]
    fn kept_workspace_keeps_the_transcript() {
        let workspace = Workspace { mode: WorkspaceMode::Keep.into(), ..Workspace::default() };
        let spec = TaskSpec { workspace: Some(workspace), ..TaskSpec::default() };
        let built = built(spec, &[]);
        assert_eq!(built.0["CLAUDE_CONFIG_DIR"], "/.w.claude");
        assert_eq!(built.0["HOME"], "/s/home");
    }
}
