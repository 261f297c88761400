//! The page of settings, and one JSON schema per component. The components derive both from one struct each
//! and print the schema for `--print-schema`.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use super::MARK;
use super::cli::{HOME, run};
use super::table::table;

const COMPONENTS: &[&str] = &["server", "worker", "operator", "dev"];

pub(super) fn page(rota: &Path) -> anyhow::Result<String> {
    let mut text = format!(
        "{MARK}\n\n# Configuration\n\nEvery setting of a component is a key of its TOML file (`--config FILE`), an environment variable and a \
         flag. Flags\noverride variables, which override the file, which overrides the defaults. Unknown keys and variables are \
         errors.\nIn a variable, a list is separated by commas, and a boolean is `true`, `1`, `false` or `0`.\n\
         `--print-config` prints the effective settings.\n"
    );
    for component in COMPONENTS {
        let schema: Value = serde_json::from_str(&run(rota, &[component, "--print-schema"])?)
            .with_context(|| format!("schema of rota {component}"))?;
        let properties = schema["properties"].as_object().context("a schema without properties")?;
        let rows: Vec<_> = properties.iter().map(|(key, property)| row(key, property)).collect();
        text += &format!(
            "\n## rota {component}\n\n{}",
            table(&["Key", "Type", "Default", "Description", "Flag", "Environment variable"], &rows)
        );
    }
    Ok(text)
}

fn row(key: &str, property: &Value) -> Vec<String> {
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    let default = match &property["default"] {
        Value::Null => String::new(),
        Value::String(text) => text.replace(HOME, "~"),
        Value::Array(list) if list.is_empty() => String::new(),
        other => other.to_string(),
    };
    let text = |name: &str| property[name].as_str().unwrap_or_default();
    let (description, described) = split_default(text("description"));
    vec![
        code(key),
        type_name(property).to_owned(),
        if default.is_empty() { described.to_owned() } else { code(&default) },
        description.to_owned(),
        code(text("x-flag")),
        code(text("x-env")),
    ]
}

/// Splits off a default that depends on other things than the settings, such as `[default: unlimited]`.
fn split_default(description: &str) -> (&str, &str) {
    description
        .strip_suffix(']')
        .and_then(|text| text.rsplit_once(" [default: "))
        .unwrap_or((description, ""))
}

fn type_name(property: &Value) -> &str {
    // Only durations have a pattern.
    let duration = |one: &Value| !one["pattern"].is_null();
    if duration(property) || property["anyOf"].as_array().is_some_and(|any| any.iter().any(duration)) {
        return "duration";
    }
    let name = match &property["type"] {
        Value::Array(types) => types.first().and_then(Value::as_str),
        one => one.as_str(),
    };
    match name {
        Some("array") => "list of strings",
        other => other.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_show_type_default_and_names() {
        let duration = json!({
            "type": "string", "pattern": "x", "default": "5s", "description": "Interval",
            "x-flag": "--heartbeat", "x-env": "ROTA_SERVER_HEARTBEAT"
        });
        assert_eq!(
            row("heartbeat", &duration),
            ["`heartbeat`", "duration", "`5s`", "Interval", "`--heartbeat`", "`ROTA_SERVER_HEARTBEAT`"]
        );
        let optional = json!({
            "type": ["string", "null"], "default": null, "description": "Key [default: none]",
            "x-env": "ROTA_SERVER_TLS_KEY"
        });
        assert_eq!(
            row("tls_key", &optional),
            ["`tls_key`", "string", "none", "Key", "", "`ROTA_SERVER_TLS_KEY`"]
        );
    }
}
