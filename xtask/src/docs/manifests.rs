//! Page of manifests, and their JSON schemas for editors.

use std::collections::BTreeMap;

use anyhow::Context;
use schemars::JsonSchema;
use serde_json::Value;

use super::MARK;
use super::schema::Reader;
use super::table::table;

/// Returns the JSON schema of a manifest.
pub(super) fn schema<T: JsonSchema>() -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(&schema_of::<T>())?))
}

/// Returns the schema with sorted keys: whether maps keep their order is a feature that any crate of the tree may turn on, and
/// pages must not depend on what else was built.
fn schema_of<T: JsonSchema>() -> Value {
    let mut schema: Value = schemars::schema_for!(T).into();
    schema.sort_all_objects();
    schema
}

pub(super) fn page() -> anyhow::Result<String> {
    let kinds = [
        ("Agent", schema_of::<rota_crds::Agent>()),
        ("Task", schema_of::<rota_crds::Task>()),
        ("Workflow", schema_of::<rota_crds::Workflow>()),
        ("WorkflowTemplate", schema_of::<rota_crds::WorkflowTemplate>()),
        ("Schedule", schema_of::<rota_crds::Schedule>()),
    ];
    let mut text = format!(
        "{MARK}\n\n# Manifests\n\n`apiVersion: {}`. `rota apply -f` and `kubectl apply -f` take the same text. Unknown fields are errors.\n",
        rota_crds::API_VERSION
    );
    let mut definitions = BTreeMap::new();
    for (kind, schema) in &kinds {
        definitions.extend(schema["$defs"].as_object().context("a schema has no definitions")?);
        text += &section(&format!("{kind} (kind)"), "##", schema);
    }
    text += "\n## Parts\n";
    for (name, schema) in definitions {
        text += &section(name, "###", schema);
    }
    Ok(text)
}

fn section(name: &str, level: &str, schema: &Value) -> String {
    let reader = Reader { schema };
    let mut text = format!("\n{level} {name}\n\n{}\n", reader.description());
    let choices = table(&["Value", ""], &reader.choices());
    let fields = table(&["Field", "Type", ""], &reader.fields());
    for part in [choices, fields].iter().filter(|part| !part.is_empty()) {
        text += "\n";
        text += part;
    }
    text
}
