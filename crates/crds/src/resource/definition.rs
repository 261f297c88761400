//! CustomResourceDefinitions: the schemas of the types, made structural, with the CEL rules.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::rules::{Kind, Rule, rules};

pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        definition_of_agents(),
        definition_of_tasks(),
        definition_of_workflows(),
        definition_of_templates(),
        definition_of_schedules(),
    ]
}

pub fn definition_of_agents() -> CustomResourceDefinition {
    finish(super::Agent::crd(), Kind::Agent)
}

pub fn definition_of_tasks() -> CustomResourceDefinition {
    finish(super::Task::crd(), Kind::Task)
}

pub fn definition_of_workflows() -> CustomResourceDefinition {
    finish(super::Workflow::crd(), Kind::Workflow)
}

pub fn definition_of_templates() -> CustomResourceDefinition {
    finish(super::WorkflowTemplate::crd(), Kind::WorkflowTemplate)
}

pub fn definition_of_schedules() -> CustomResourceDefinition {
    finish(super::Schedule::crd(), Kind::Schedule)
}

/// Serializes a definition to YAML with sorted keys.
pub fn to_yaml(definition: &CustomResourceDefinition) -> Result<String, String> {
    let value = serde_json::to_value(definition).map_err(|error| error.to_string())?;
    serde_saphyr::to_string(&sorted(value)).map_err(|error| error.to_string())
}

/// Sorts keys explicitly: any crate in the dependency tree may enable the feature that preserves insertion order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: std::collections::BTreeMap<_, _> =
                map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(map.into_iter().collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
        plain => plain,
    }
}

fn finish(mut definition: CustomResourceDefinition, kind: Kind) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        let mut value = serde_json::to_value(&*schema).unwrap_or_default();
        tidy(&mut value);
        defaults(&mut value, kind);
        for rule in rules().into_iter().filter(|rule| rule.kind == kind) {
            put(&mut value, &rule);
        }
        if let Ok(finished) = serde_json::from_value::<JSONSchemaProps>(value) {
            *schema = finished;
        }
    }
    definition
}

/// Removes parts of the generated schemas that a cluster rejects or does not need.
fn tidy(schema: &mut Value) {
    let Some(node) = schema.as_object_mut() else { return };
    // Optional fields are omitted, never null.
    node.remove("nullable");
    node.remove("title");
    // A cluster prunes unknown fields itself, and rejects this keyword next to its own.
    if node.get("additionalProperties") == Some(&json!(false)) {
        node.remove("additionalProperties");
    }
    // Defaults belong to the server.
    node.remove("default");
    match node.get("format").and_then(Value::as_str) {
        Some("int32" | "int64" | "date-time" | "double") | None => {}
        // Kubernetes has no unsigned integers.
        Some("uint64") => drop(node.insert("format".to_owned(), json!("int64"))),
        Some(_) => drop(node.remove("format")),
    }
    for (key, child) in node.iter_mut() {
        match (key.as_str(), child) {
            ("properties", Value::Object(fields)) => fields.values_mut().for_each(tidy),
            ("items" | "additionalProperties", child) => tidy(child),
            _ => {}
        }
    }
}

/// Adds the only defaults, each of which the cluster requires.
fn defaults(schema: &mut Value, kind: Kind) {
    let (at, default) = match kind {
        // `kubectl scale` and autoscalers fail without it.
        Kind::Agent => ("spec.replicas", json!(0)),
        // What was not reconciled yet is pending.
        Kind::Task | Kind::Workflow => ("status.phase", json!("Pending")),
        Kind::WorkflowTemplate | Kind::Schedule => return,
    };
    if let Some(node) = find(schema, at) {
        node.insert("default".to_owned(), default);
    }
}

fn put(schema: &mut Value, rule: &Rule) {
    let Some(node) = find(schema, &rule.at) else { return };
    let rules = node.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    if let Some(rules) = rules.as_array_mut() {
        rules.push(json!({ "rule": rule.rule, "message": rule.message }));
    }
}

fn find<'a>(schema: &'a mut Value, at: &str) -> Option<&'a mut Map<String, Value>> {
    let mut node = schema;
    for part in at.split('.').filter(|part| !part.is_empty()) {
        node = node.get_mut("properties")?.get_mut(part)?;
    }
    node.as_object_mut()
}
