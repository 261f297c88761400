//! Reader of the JSON schemas that schemars derives from the manifests' types. Does not know the manifests.

use serde_json::Value;

use super::table::anchor;

#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) schema: &'a Value,
}

impl Reader<'_> {
    pub(super) fn description(&self) -> String {
        text(self.schema, "description")
    }

    /// Rows of the values of an enum, with their descriptions.
    pub(super) fn choices(&self) -> Vec<Vec<String>> {
        let plain = list(self.schema, "enum").iter().map(|value| (value, String::new()));
        let described = list(self.schema, "oneOf")
            .iter()
            .filter(|one| one.get("const").is_some())
            .map(|one| (&one["const"], text(one, "description")));
        plain
            .chain(described)
            .map(|(value, description)| vec![format!("`{}`", bare(value)), description])
            .collect()
    }

    /// Rows of the fields: name, type and description, in order of declaration.
    pub(super) fn fields(&self) -> Vec<Vec<String>> {
        let Some(fields) = self.schema["properties"].as_object() else { return Vec::new() };
        let required = list(self.schema, "required");
        fields
            .iter()
            .map(|(name, field)| {
                let must = if required.iter().any(|one| one == name) { " (required)" } else { "" };
                vec![format!("`{name}`"), format!("{}{must}", type_of(field)), text(field, "description")]
            })
            .collect()
    }
}

fn type_of(field: &Value) -> String {
    if let Some(name) = field["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("[{name}](#{})", anchor(name));
    }
    for union in ["anyOf", "oneOf", "allOf"] {
        let names: Vec<_> =
            list(field, union).iter().filter(|one| one["type"] != "null").map(type_of).collect();
        if !names.is_empty() {
            return names.join(" or ");
        }
    }
    let kinds = match &field["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect()
        }
        _ => vec!["anything"],
    };
    let one = |kind: &str| match kind {
        "array" => format!("list of {}", type_of(&field["items"])),
        "object" if field["additionalProperties"].is_object() => {
            format!("map to {}", type_of(&field["additionalProperties"]))
        }
        kind => kind.to_owned(),
    };
    kinds.into_iter().map(one).collect::<Vec<_>>().join(" or ")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().replace('\n', " ")
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_of_fields() {
        for (schema, name) in [
            (json!({"type": "string"}), "string"),
            (json!({"type": ["integer", "null"]}), "integer"),
            (json!({"type": ["integer", "string"]}), "integer or string"),
            (json!({"type": "array", "items": {"type": "string"}}), "list of string"),
            (json!({"type": "object", "additionalProperties": {"type": "string"}}), "map to string"),
            (json!({"$ref": "#/$defs/Limits"}), "[Limits](#limits)"),
            (json!({"anyOf": [{"$ref": "#/$defs/Limits"}, {"type": "null"}]}), "[Limits](#limits)"),
            (json!(true), "anything"),
        ] {
            assert_eq!(type_of(&schema), name);
        }
    }
}
