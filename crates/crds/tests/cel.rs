//! CEL rules, each with a manifest that satisfies it and one that violates it. The manifests are in `cel/`, which the
//! end-to-end tests also submit to a real API server.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod cases;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use kube::core::cel;
use rota_crds::resource;
use serde_json::{Value, json};

fn cases() -> Vec<(String, cases::Case)> {
    cases::cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cel"))
}

fn compiled(kind: &str) -> (Value, cel::CompiledSchema) {
    let definition =
        resource::definitions().into_iter().find(|definition| definition.spec.names.kind == kind).unwrap();
    let mut schema =
        serde_json::to_value(&definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema)
            .unwrap();
    // The API server adds the schema of metadata itself.
    schema["properties"]["metadata"] =
        json!({ "type": "object", "properties": { "name": { "type": "string" } } });
    let compiled = cel::compile_schema(&schema);
    assert!(!compiled.has_errors(), "{:?}", compiled.compilation_errors());
    (schema, compiled)
}

/// Validates like an API server: applies defaults first.
fn verdict(object: &Value, old: Option<&Value>) -> Vec<String> {
    static ALL: LazyLock<Vec<(&str, (Value, cel::CompiledSchema))>> = LazyLock::new(|| {
        ["Agent", "Task", "Workflow", "WorkflowTemplate", "Schedule"]
            .map(|kind| (kind, compiled(kind)))
            .into()
    });
    let (_, (schema, rules)) = ALL.iter().find(|(kind, _)| object["kind"] == *kind).unwrap();
    let defaulted = |value| cel::apply_defaults(schema, value);
    let (object, old) = (defaulted(object), old.map(defaulted));
    match cel::Validator::new().validate_compiled(rules, &object, old.as_ref()) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

#[test]
fn each_rule_accepts_and_rejects() {
    for (place, cases::Case { message, accepted, rejected }) in cases() {
        assert_eq!(verdict(&accepted, None), [""; 0], "{place}");
        let is_change = accepted["metadata"] == rejected["metadata"];
        let found = verdict(&rejected, is_change.then_some(&accepted));
        assert_eq!(found, [message], "{place}");
        if is_change {
            assert_eq!(verdict(&accepted, Some(&accepted)), [""; 0], "{place}");
        }
        let is_transition = |rule: &resource::Rule| rule.message == found[0] && rule.rule.contains("oldSelf");
        if resource::rules().iter().any(is_transition) {
            assert!(is_change, "{place}");
            assert_eq!(verdict(&rejected, None), [""; 0], "{place}: invalid without the change");
        }
    }
}

#[test]
fn each_rule_has_a_case() {
    let tested: BTreeSet<_> = cases().into_iter().map(|(_, case)| case.message).collect();
    let rules: BTreeSet<_> = resource::rules().into_iter().map(|rule| rule.message).collect();
    assert_eq!(tested, rules);
}

#[test]
fn accepted_manifests_pass_validation() {
    for (place, cases::Case { accepted, .. }) in cases() {
        let documents = rota_crds::parse(&place, &accepted.to_string()).unwrap();
        assert_eq!(documents[0].object.validate(), [], "{place}");
    }
}

#[test]
fn rules_of_tasks_and_workflows_hold_in_schedules() {
    let schedule = |what: Value| {
        let mut spec = json!({ "cron": "0 3 * * *" });
        spec.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        verdict(&json!({ "kind": "Schedule", "metadata": { "name": "a" }, "spec": spec }), None)
    };
    assert_eq!(schedule(json!({ "task": { "prompt": "x", "agent": "a", "priority": "HIGH" } })), [""; 0]);
    let both = schedule(json!({ "task": { "prompt": "x", "agent": "a", "worker": "b" } }));
    assert_eq!(both, ["agent, agents, worker and capabilities are mutually exclusive"]);
    let secrets = schedule(json!({ "task": { "prompt": "x", "secrets": { "A": "b" } } }));
    assert!(secrets[0].starts_with("secrets in a Task are visible"), "{secrets:?}");
    let empty = schedule(json!({ "workflow": { "title": "x" } }));
    assert_eq!(empty, ["exactly one of steps and template is required"]);
}

#[test]
fn mutable_fields_may_change() {
    let task = |spec: Value| json!({ "kind": "Task", "metadata": { "name": "a" }, "spec": spec });
    let old = task(json!({ "prompt": "x", "priority": 3 }));
    for spec in [
        json!({ "prompt": "x", "priority": "HIGH" }),
        json!({ "prompt": "x", "desiredState": "Suspended" }),
        json!({ "prompt": "x", "desiredState": "Cancelled" }),
        json!({ "prompt": "x", "ttlAfterFinished": "1h" }),
    ] {
        assert_eq!(verdict(&task(spec), Some(&old)), [""; 0]);
    }
}
