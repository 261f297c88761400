//! Environment of an attempt. Inherits nothing from the worker but PATH; pure otherwise.

use std::collections::BTreeMap;
use std::path::Path;

use rota_proto::worker::v1::Assign;
use rota_telemetry::{export, trace};

use crate::layout::Scratch;
use crate::runtimes::{Environment, context};

/// Builds the environment and moves the secrets out of the assignment, so that they are in one place only.
///
/// Precedence, lowest first: defaults, the agent's and the task's variables, the agent's secrets, the task's
/// secrets, and Rota's own variables.
pub(super) fn build(assign: &mut Assign, of_agent: BTreeMap<String, String>, scratch: &Path) -> Environment {
    let path = rota_telemetry::env::var("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let mut environment = Environment::default();
    let mut set = |name: &str, value: String| environment.0.insert(name.to_owned(), value);
    set("PATH", path);
    set("HOME", Scratch(scratch).home().to_string_lossy().into_owned());
    set("TMPDIR", Scratch(scratch).tmp().to_string_lossy().into_owned());
    set("LANG", "C.UTF-8".to_owned());
    if assign.traceparent.parse::<trace::TraceContext>().is_ok_and(|context| context.sampled) {
        for (name, value) in export::child_environment() {
            set(&name, value);
        }
        set(
            "OTEL_RESOURCE_ATTRIBUTES",
            format!("rota.task.id={},rota.attempt={}", assign.task_id, assign.attempt),
        );
    }
    if let Some(spec) = &assign.spec {
        for (name, value) in &spec.environment {
            set(name, value.clone());
        }
    }
    for (name, value) in of_agent.into_iter().chain(std::mem::take(&mut assign.secrets)) {
        set(&name, value);
    }
    set(context::CONTEXT_VAR, Scratch(scratch).context().to_string_lossy().into_owned());
    set(context::OUTPUT_VAR, Scratch(scratch).output().to_string_lossy().into_owned());
    set(context::CHECKPOINT_VAR, Scratch(scratch).checkpoint().to_string_lossy().into_owned());
    set("ROTA_TASK_ID", assign.task_id.clone());
    set("ROTA_ATTEMPT", assign.attempt.to_string());
    set("ROTA_FENCE", assign.fence.to_string());
    for (name, value) in [
        ("ROTA_NAMESPACE", &assign.namespace),
        ("ROTA_AGENT", &assign.agent),
        ("ROTA_ALIAS", &assign.alias),
        ("TRACEPARENT", &assign.traceparent),
        ("TRACESTATE", &assign.tracestate),
    ] {
        if !value.is_empty() {
            set(name, value.clone());
        }
    }
    environment
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::TaskSpec;

    use super::*;

    #[test]
    fn later_layers_override_earlier_ones() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let spec = TaskSpec {
            environment: [pair("LANG", "de"), pair("KEY", "plain"), pair("ROTA_FENCE", "0")].into(),
            ..TaskSpec::default()
        };
        let mut assign = Assign {
            task_id: "t".to_owned(),
            fence: 7,
            spec: Some(spec),
            secrets: [pair("KEY", "sealed")].into(),
            ..Assign::default()
        };
        let of_agent = [pair("KEY", "pool"), pair("POOL", "pool"), pair("LANG", "fr")].into();
        let built = build(&mut assign, of_agent, Path::new("/s"));
        assert_eq!((built.0["LANG"].as_str(), built.0["POOL"].as_str()), ("fr", "pool"));
        assert_eq!(built.0["KEY"], "sealed");
        assert_eq!(built.0["ROTA_FENCE"], "7");
        assert_eq!(built.0["HOME"], "/s/home");
        assert!(!built.0.contains_key("TRACEPARENT"));
        assert!(assign.secrets.is_empty());
        assert!(!format!("{built:?}").contains("sealed"));
    }
}
