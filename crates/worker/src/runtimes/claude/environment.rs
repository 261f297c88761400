//! The CLI's environment. Pure.
//!
//! Three layers: what the session gave; then settings that make the CLI quiet and bounded, unless the
//! task or its agent names them itself; then those that this driver depends on, whatever anybody says.

use rota_proto::worker::v1::Assign;

use super::files::Files;
use crate::runtimes::Environment;

/// May be overridden by an agent's or a task's own `environment`.
const DEFAULTS: [(&str, &str); 5] = [
    ("DISABLE_TELEMETRY", "1"),
    ("DISABLE_ERROR_REPORTING", "1"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    // A model that does not begin to answer is tried again; a long answer is not cut by this.
    ("API_TIMEOUT_MS", "300000"),
];

/// The driver counts on these.
const FIXED: [(&str, &str); 2] = [
    // One result for each turn, time-outs that kill, subagents that are waited for.
    ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1"),
    // A failed start says why in a result line.
    ("CLAUDE_CODE_STARTUP_FAILURE_RESULTS", "1"),
];

/// Makes the CLI send its spans; only where somebody named a place for them.
const TRACING: [(&str, &str); 4] = [
    ("CLAUDE_CODE_ENABLE_TELEMETRY", "1"),
    ("CLAUDE_CODE_ENHANCED_TELEMETRY_BETA", "1"),
    ("CLAUDE_CODE_PROPAGATE_TRACEPARENT", "1"),
    ("OTEL_TRACES_EXPORTER", "otlp"),
];

/// Where spans go.
const COLLECTOR: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

pub(super) fn build(given: &Environment, assign: &Assign, files: &Files) -> Environment {
    let mut all = given.0.clone();
    let named = assign.spec.as_ref().map(|spec| &spec.environment);
    let own = |name: &str| named.is_some_and(|named| named.contains_key(name));
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();

    for (name, value) in DEFAULTS {
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
    if COLLECTOR.iter().any(|name| all.contains_key(*name)) {
        for (name, value) in TRACING {
            all.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    for (name, value) in FIXED {
        all.insert(name.to_owned(), value.to_owned());
    }
    all.insert("CLAUDE_CONFIG_DIR".to_owned(), path(&files.config));
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
        build(&given, &assign, &Files::new(&options, Path::new("/w"), Path::new("/s")))
    }

    #[test]
    fn layers() {
        let spec = TaskSpec {
            environment: [("API_TIMEOUT_MS", "5"), ("TMPDIR", "/x"), ("HOME", "/mine")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..TaskSpec::default()
        };
        let built = built(spec, &[("ANTHROPIC_BASE_URL", "http://proxy"), ("DISABLE_TELEMETRY", "0")]);
        let get = |name: &str| built.0.get(name).map(String::as_str);
        assert_eq!(get("ANTHROPIC_BASE_URL"), Some("http://proxy"));
        assert_eq!(get("DISABLE_TELEMETRY"), Some("1"), "only a task's or agent's word counts");
        assert_eq!(get("API_TIMEOUT_MS"), Some("5"));
        assert_eq!(get("HOME"), Some("/mine"));
        assert_eq!(get("TMPDIR"), Some("/s/tmp"));
        assert_eq!(get("CLAUDE_CONFIG_DIR"), Some("/s/claude"));
        assert_eq!(get("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS"), Some("1"));
        assert_eq!(get("TRACEPARENT"), Some("00-a-b-01"));
        assert_eq!(get("CLAUDE_CODE_ENABLE_TELEMETRY"), None);
    }

    #[test]
    fn spans_go_where_somebody_asked_for_them() {
        for name in COLLECTOR {
            let built = built(TaskSpec::default(), &[(name, "http://collector")]);
            assert_eq!(built.0.get("CLAUDE_CODE_ENABLE_TELEMETRY").map(String::as_str), Some("1"));
        }
    }

    #[test]
    fn a_kept_workspace_keeps_the_transcript() {
        let workspace = Workspace { mode: WorkspaceMode::Keep.into(), ..Workspace::default() };
        let spec = TaskSpec { workspace: Some(workspace), ..TaskSpec::default() };
        let built = built(spec, &[]);
        assert_eq!(built.0["CLAUDE_CONFIG_DIR"], "/w/.rota/claude");
        assert_eq!(built.0["HOME"], "/s/home");
    }
}
