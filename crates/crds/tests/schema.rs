//! Checks the definitions against the Kubernetes API conventions. Exceptions are listed with their reasons.

use std::collections::BTreeSet;

use rota_crds::resource;
use serde_json::Value;

/// Fields that deviate from the conventions: convention, path, reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("bool", "Task.spec.strict", "will never have a third value"),
    ("bool", "Task.spec.fork", "will never have a third value"),
    ("bool", "Agent.spec.workspace.shared", "will never have a third value"),
    ("bool", "Task.spec.workspace.shared", "will never have a third value"),
    ("bool", "Agent.spec.workspace.git.push.pullRequest.draft", "a switch of forges"),
    ("bool", "Task.spec.workspace.git.push.pullRequest.draft", "a switch of forges"),
    ("bool", "Agent.spec.runtime.claude.failOnDeniedTools", "will never have a third value"),
    ("bool", "Task.spec.runtime.claude.failOnDeniedTools", "will never have a third value"),
    ("bool", "Agent.spec.runtime.claude.projectHooks", "a switch of the CLI"),
    ("bool", "Agent.spec.runtime.claude.projectMcpServers", "a switch of the CLI"),
    ("bool", "Task.spec.runtime.claude.projectHooks", "a switch of the CLI"),
    ("bool", "Task.spec.runtime.claude.projectMcpServers", "a switch of the CLI"),
    ("bool", "Agent.spec.runtime.scripted.steps[].recall", "a step of a script"),
    ("bool", "Task.spec.runtime.scripted.steps[].recall", "a step of a script"),
    ("bool", "Agent.spec.runtime.scripted.steps[].hang", "a step of a script, for tests and demos"),
    ("bool", "Agent.spec.runtime.scripted.steps[].spawnOrphan", "a step of a script"),
    ("bool", "Agent.spec.runtime.scripted.steps[].killWorker", "a step of a script"),
    ("bool", "Task.spec.runtime.scripted.steps[].hang", "a step of a script"),
    ("bool", "Task.spec.runtime.scripted.steps[].spawnOrphan", "a step of a script"),
    ("bool", "Task.spec.runtime.scripted.steps[].killWorker", "a step of a script"),
    ("bool", "Schedule.spec.paused", "will never have a third value"),
    ("float", "Agent.spec.runtime.scripted.steps[].progress", "a fraction, as in the API"),
    ("float", "Agent.spec.runtime.scripted.steps[].fail.probability", "a fraction"),
    ("float", "Task.spec.runtime.scripted.steps[].progress", "a fraction"),
    ("float", "Task.spec.runtime.scripted.steps[].fail.probability", "a fraction"),
    ("default", "Agent.spec.replicas", "the scale subresource fails without it"),
    ("default", "Task.status.phase", "a task that was not reconciled yet is pending"),
    ("default", "Workflow.status.phase", "a workflow that was not reconciled yet is pending"),
];

/// Collects all fields with their paths and schemas.
fn walk<'a>(at: String, schema: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    if let Some(fields) = schema["properties"].as_object() {
        for (name, field) in fields {
            walk(format!("{at}.{name}"), field, found);
        }
    }
    if schema["items"].is_object() {
        walk(format!("{at}[]"), &schema["items"], found);
    }
    if schema["additionalProperties"].is_object() {
        walk(format!("{at}{{}}"), &schema["additionalProperties"], found);
    }
    found.push((at, schema));
}

/// Returns the conventions that a field violates.
fn violations(schema: &Value) -> Vec<&'static str> {
    let has = |key: &str| schema.get(key).is_some();
    let free = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let mut violations = Vec::new();
    let mut note = |wrong: bool, what| violations.extend(wrong.then_some(what));
    match schema["type"].as_str() {
        Some("boolean") => note(true, "bool"),
        Some("number") => note(true, "float"),
        Some("integer") => note(!has("format"), "format"),
        Some("string") => note(!has("maxLength") && !has("enum"), "bounded string"),
        Some("array") => note(!has("maxItems"), "bounded list"),
        Some("object") if has("additionalProperties") => note(!has("maxProperties"), "bounded map"),
        Some("object") => note(!has("properties") && !free, "fields"),
        _ => note(schema["x-kubernetes-int-or-string"] != true, "type"),
    }
    note(has("default"), "default");
    note(has("nullable"), "nullable");
    note(schema["additionalProperties"] == false, "closed");
    for other in ["oneOf", "anyOf", "allOf", "not", "$ref", "title", "definitions", "uniqueItems", "const"] {
        note(has(other), "structural");
    }
    violations
}

#[test]
fn conventions_hold_except_for_listed_fields() {
    let mut broken = BTreeSet::new();
    for definition in resource::definitions() {
        let kind = definition.spec.names.kind.clone();
        let value = serde_json::to_value(&definition).unwrap();
        let mut fields = Vec::new();
        walk(kind, &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut fields);
        for (at, schema) in fields {
            // The task of a schedule is like any other.
            let at = at.replace("Schedule.spec.task.", "Task.spec.");
            broken.extend(violations(schema).into_iter().map(|what| (what, at.clone())));
        }
    }
    let excepted: BTreeSet<_> = EXCEPTIONS.iter().map(|(what, at, _)| (*what, (*at).to_owned())).collect();
    let new: Vec<_> = broken.difference(&excepted).collect();
    assert_eq!(new, Vec::<&(&str, String)>::new(), "violates a convention");
    let old: Vec<_> = excepted.difference(&broken).collect();
    assert_eq!(old, Vec::<&(&str, String)>::new(), "is no longer an exception");
}

/// The estimated cost of a rule counts for each element of a list or map that it is in, or that it looks at.
#[test]
fn no_rule_counts_per_element() {
    for definition in resource::definitions() {
        let kind = definition.spec.names.kind.clone();
        let value = serde_json::to_value(&definition).unwrap();
        let mut fields = Vec::new();
        walk(kind, &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut fields);
        for (at, _) in fields.iter().filter(|(_, schema)| schema["x-kubernetes-validations"].is_array()) {
            assert!(!at.contains(['[', '{']), "{at} has a rule for each element");
        }
    }
    for resource::Rule { at, rule, .. } in resource::rules() {
        for comprehension in [".all(", ".exists(", ".exists_one(", ".map(", ".filter("] {
            // A list that the rule itself consists of is short.
            let of_fields = |(end, _): (usize, &str)| !rule[..end].ends_with(']');
            assert!(!rule.match_indices(comprehension).any(of_fields), "{at}: {rule}");
        }
    }
}

#[test]
fn every_field_is_described() {
    for definition in resource::definitions() {
        let kind = definition.spec.names.kind.clone();
        let value = serde_json::to_value(&definition).unwrap();
        let mut fields = Vec::new();
        walk(kind, &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut fields);
        for (at, schema) in fields {
            let inner = at.ends_with(']') || at.ends_with('}');
            assert!(inner || schema["description"].is_string(), "{at} has no description");
        }
    }
}

#[test]
fn conditions_are_a_map_and_columns_exist() {
    for definition in resource::definitions() {
        let version = &serde_json::to_value(&definition).unwrap()["spec"]["versions"][0];
        let root = &version["schema"]["openAPIV3Schema"];
        let conditions = &root["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map");
        assert_eq!(conditions["x-kubernetes-list-map-keys"], serde_json::json!(["type"]));
        let mut paths: Vec<_> = version["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["jsonPath"].as_str().unwrap())
            .collect();
        let scale = &version["subresources"]["scale"];
        paths.extend(
            ["specReplicasPath", "statusReplicasPath", "labelSelectorPath"]
                .iter()
                .filter_map(|key| scale[key].as_str()),
        );
        for path in paths.iter().filter(|path| !path.starts_with(".metadata")) {
            // Of a list, a filter takes elements.
            let (list, element) = match path.split_once("[?(") {
                Some((list, rest)) => (list, rest.split_once(")]").unwrap().1),
                None => (*path, ""),
            };
            let inside = |root, path: &str| {
                path.split('.').skip(1).fold(root, |at: &serde_json::Value, part| &at["properties"][part])
            };
            let mut at = inside(root, list);
            if !element.is_empty() {
                at = inside(&at["items"], element);
            }
            assert!(at["type"].is_string(), "{path} does not exist");
        }
    }
}
