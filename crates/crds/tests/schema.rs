//! The definitions keep to the API conventions of Kubernetes. What does not is listed, with its reason.

use std::collections::BTreeSet;

use rota_crds::resource;
use serde_json::Value;

/// Fields that are not as the conventions have it.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("bool", "Task.spec.strict", "it has two values and will have no third"),
    ("bool", "Agent.spec.runtime.scripted.steps[].hang", "a step of a script, for tests and demos"),
    ("bool", "Agent.spec.runtime.scripted.steps[].spawnStray", "a step of a script"),
    ("bool", "Agent.spec.runtime.scripted.steps[].killWorker", "a step of a script"),
    ("bool", "Task.spec.runtime.scripted.steps[].hang", "a step of a script"),
    ("bool", "Task.spec.runtime.scripted.steps[].spawnStray", "a step of a script"),
    ("bool", "Task.spec.runtime.scripted.steps[].killWorker", "a step of a script"),
    ("float", "Agent.spec.runtime.scripted.steps[].progress", "a share, as the API has it"),
    ("float", "Agent.spec.runtime.scripted.steps[].fail.probability", "a share"),
    ("float", "Task.spec.runtime.scripted.steps[].progress", "a share"),
    ("float", "Task.spec.runtime.scripted.steps[].fail.probability", "a share"),
    (
        "default",
        "Agent.spec.replicas",
        "what `scale` shows must be there, or the API server answers with an error",
    ),
    ("default", "Task.status.phase", "a task that nobody has looked at yet waits"),
];

/// Where every field stands and what is said about it.
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

/// Which conventions one field breaks.
fn breaches(schema: &Value) -> Vec<&'static str> {
    let has = |key: &str| schema.get(key).is_some();
    let free = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let mut breaches = Vec::new();
    let mut note = |wrong: bool, what| breaches.extend(wrong.then_some(what));
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
    breaches
}

#[test]
fn conventions_hold_but_for_the_exceptions() {
    let mut broken = BTreeSet::new();
    for definition in resource::definitions() {
        let kind = definition.spec.names.kind.clone();
        let value = serde_json::to_value(&definition).unwrap();
        let mut fields = Vec::new();
        walk(kind, &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut fields);
        for (at, schema) in fields {
            broken.extend(breaches(schema).into_iter().map(|what| (what, at.clone())));
        }
    }
    let excepted: BTreeSet<_> = EXCEPTIONS.iter().map(|(what, at, _)| (*what, (*at).to_owned())).collect();
    let new: Vec<_> = broken.difference(&excepted).collect();
    assert_eq!(new, Vec::<&(&str, String)>::new(), "breaks a convention");
    let old: Vec<_> = excepted.difference(&broken).collect();
    assert_eq!(old, Vec::<&(&str, String)>::new(), "is no exception any more");
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
            assert!(inner || schema["description"].is_string(), "{at} says nothing about itself");
        }
    }
}

#[test]
fn conditions_are_first_and_a_map_and_columns_exist() {
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
            let mut at = root;
            for part in path.split('.').skip(1) {
                at = &at["properties"][part];
            }
            assert!(at["type"].is_string(), "{path} is not there");
        }
    }
}
