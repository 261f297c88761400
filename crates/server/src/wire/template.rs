//! Templates of workflows: validation, and workflows from their parameters.

use std::collections::BTreeSet;

use pbjson_types::{Struct, Value};
use prost::Message;
use rota_proto::v1;
use tonic::Status;

use super::status::invalid;
use super::workflow::MAX_VALUES;
use super::{check, names, schema};

const MAX_DESCRIPTION: usize = 4 << 10;
const MAX_PARAMETERS: usize = 64;
const MAX_NAME: usize = 63;
/// Bytes of the JSON Schema of a parameter.
const MAX_SCHEMA: usize = 16 << 10;
/// Bytes of one version of a template.
const MAX_BYTES: usize = 2 << 20;
const FIELD: &str = "workflow_template.spec";

/// Returns the name of a template, and its version after `@`, or 0 for the newest.
pub(crate) fn name(field: &str, text: &str) -> Result<(String, i64), Status> {
    let Some((name, version)) = text.split_once('@') else { return Ok((names::alias(field, text)?, 0)) };
    let number = version.parse::<i64>().ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| invalid(field, "has no number above 0 after `@`"))?;
    Ok((names::alias(field, name)?, number))
}

/// Returns a value as JSON.
fn json<T: serde::Serialize>(field: &str, value: &T) -> Result<serde_json::Value, Status> {
    serde_json::to_value(value).map_err(|error| invalid(field, error.to_string()))
}

fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn parsed(field: &str, given: &Struct) -> Result<schema::Schema, Status> {
    schema::parse(field, &json(field, given)?, MAX_SCHEMA)
}

/// Checks a value of a parameter.
fn fits(field: &str, parameter: &v1::TemplateParameter, value: &Value) -> Result<(), Status> {
    let Some(schema) = &parameter.schema else { return Ok(()) };
    let schema = parsed(field, schema)?;
    let value = json(field, value)?;
    schema::check(&schema, &value)
        .map_err(|(_, why)| invalid(field, format!("parameter {}: {why}", parameter.name)))
}

/// Prefixes the references of a schema, which becomes a part of another one.
fn rebase(schema: &mut serde_json::Value, place: &str) {
    match schema {
        serde_json::Value::Array(list) => list.iter_mut().for_each(|one| rebase(one, place)),
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                match value {
                    serde_json::Value::String(target) if key == "$ref" => {
                        if let Some(pointer) = target.strip_prefix('#') {
                            *target = format!("{place}{pointer}");
                        }
                    }
                    other => rebase(other, place),
                }
            }
        }
        _ => {}
    }
}

/// Returns the schema of the inputs of workflows from a template: a rerun with other inputs needs to fulfil it, too.
fn inputs_schema(parameters: &[v1::TemplateParameter]) -> Result<serde_json::Value, Status> {
    let field = format!("{FIELD}.parameters");
    let (mut properties, mut dialects) = (serde_json::Map::new(), BTreeSet::new());
    for parameter in parameters {
        let mut schema = json(&field, &parameter.schema.clone().unwrap_or_default())?;
        rebase(&mut schema, &format!("#/properties/{}", parameter.name));
        if let (Some(object), Some(_)) = (schema.as_object_mut(), &parameter.schema) {
            let dialect = object.remove("$schema").and_then(|dialect| Some(dialect.as_str()?.to_owned()));
            let is_old = dialect.as_ref().is_some_and(|dialect| dialect.contains("draft-04"));
            object.remove(if is_old { "id" } else { "$id" });
            dialects.insert(dialect);
        }
        properties.insert(parameter.name.clone(), schema);
    }
    let required: Vec<_> = parameters.iter().map(|parameter| &parameter.name).collect();
    let mut all = serde_json::json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    });
    if dialects.len() > 1 {
        return Err(invalid(field, "have schemas with different \"$schema\""));
    }
    if let (Some(Some(dialect)), Some(object)) = (dialects.pop_first(), all.as_object_mut()) {
        object.insert("$schema".to_owned(), dialect.into());
    }
    Ok(all)
}

/// Validates the specification of a template. The steps of its workflow are checked when a workflow is created from it.
pub(crate) fn check(spec: &v1::WorkflowTemplateSpec) -> Result<(), Status> {
    check::length(&format!("{FIELD}.description"), &spec.description, MAX_DESCRIPTION)?;
    check::count(&format!("{FIELD}.parameters"), spec.parameters.len(), MAX_PARAMETERS)?;
    let mut names = BTreeSet::new();
    for (index, parameter) in spec.parameters.iter().enumerate() {
        let at = |field: &str| format!("{FIELD}.parameters[{index}].{field}");
        if !is_name(&parameter.name) {
            let why = "is not a name: use up to 63 letters, digits and '_', beginning with a letter";
            return Err(invalid(at("name"), why));
        }
        if !names.insert(&parameter.name) {
            return Err(invalid(at("name"), "is used twice"));
        }
        check::length(&at("description"), &parameter.description, MAX_DESCRIPTION)?;
        if let Some(schema) = &parameter.schema {
            parsed(&at("schema"), schema)?;
        }
        if let Some(default) = &parameter.default {
            fits(&at("default"), parameter, default)?;
        }
    }
    schema::parse(&format!("{FIELD}.parameters"), &inputs_schema(&spec.parameters)?, MAX_VALUES)?;
    let workflow =
        spec.workflow.as_ref().ok_or_else(|| invalid(format!("{FIELD}.workflow"), "is required"))?;
    if workflow.steps.is_empty() {
        return Err(invalid(format!("{FIELD}.workflow.steps"), "must not be empty"));
    }
    if workflow.inputs.is_some() || workflow.inputs_schema.is_some() || !workflow.input_files.is_empty() {
        let why = "must not be set: the parameters of the template are the inputs of the workflow";
        return Err(invalid(format!("{FIELD}.workflow.inputs"), why));
    }
    match spec.encoded_len() {
        bytes if bytes > MAX_BYTES => Err(invalid(FIELD, format!("is larger than {MAX_BYTES} bytes"))),
        _ => Ok(()),
    }
}

/// Returns the kinds that the tasks of a workflow name.
pub(crate) fn kinds(workflow: &v1::WorkflowSpec) -> Vec<&str> {
    use v1::workflow_step::Kind;
    let mut kinds = Vec::new();
    for step in workflow.steps.iter().chain(&workflow.finally) {
        match &step.kind {
            Some(Kind::Task(task)) => kinds.push(task.kind.as_str()),
            Some(Kind::Workflow(nested)) => kinds.extend(nested.spec.iter().flat_map(self::kinds)),
            Some(Kind::Merge(merge)) => {
                let on_conflict = merge.on_conflict.as_ref().and_then(|one| one.kind.as_ref());
                if let Some(v1::on_conflict::Kind::Task(task)) = on_conflict {
                    kinds.push(task.kind.as_str());
                }
            }
            _ => {}
        }
        kinds.extend(step.compensate.iter().map(|task| task.kind.as_str()));
    }
    kinds
}

/// Returns the workflow of a template with parameters: the given ones, completed by their defaults.
pub(crate) fn instantiate(
    spec: &v1::WorkflowTemplateSpec,
    mut given: Struct,
) -> Result<v1::WorkflowSpec, Status> {
    let mut inputs = Struct::default();
    for parameter in &spec.parameters {
        let field = format!("parameters.{}", parameter.name);
        let value = match (given.fields.remove(&parameter.name), &parameter.default) {
            (Some(value), _) => {
                fits(&field, parameter, &value)?;
                value
            }
            (None, Some(default)) => default.clone(),
            (None, None) => return Err(invalid(field, "is required: it has no default")),
        };
        inputs.fields.insert(parameter.name.clone(), value);
    }
    if let Some(unknown) = given.fields.keys().next() {
        let why = format!("the template has no parameter {:?}", check::shorten(unknown));
        return Err(invalid("parameters", why));
    }
    let workflow = spec.workflow.clone().unwrap_or_default();
    let schema = serde_json::from_value(inputs_schema(&spec.parameters)?);
    let inputs_schema = schema.map_err(|error| invalid("parameters", error.to_string()))?;
    Ok(v1::WorkflowSpec { inputs: Some(inputs), inputs_schema: Some(inputs_schema), ..workflow })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(name: &str, schema: &str, default: &str) -> v1::TemplateParameter {
        let parsed = |text: &str| (!text.is_empty()).then(|| serde_json::from_str(text).unwrap());
        v1::TemplateParameter {
            name: name.to_owned(),
            schema: (!schema.is_empty()).then(|| serde_json::from_str(schema).unwrap()),
            default: parsed(default),
            ..Default::default()
        }
    }

    /// Returns a schema of some more bytes than these.
    fn described(bytes: usize) -> String {
        format!(r#"{{"description": "{}"}}"#, "x".repeat(bytes))
    }

    fn template(parameters: Vec<v1::TemplateParameter>) -> v1::WorkflowTemplateSpec {
        let step = v1::WorkflowStep { name: "build".to_owned(), ..Default::default() };
        let workflow = Some(v1::WorkflowSpec { steps: vec![step], ..Default::default() });
        v1::WorkflowTemplateSpec { parameters, workflow, ..Default::default() }
    }

    #[test]
    fn parameters_are_checked_and_completed() {
        let spec = template(vec![
            parameter("image", r#"{"type": "string", "minLength": 1}"#, ""),
            parameter("replicas", r#"{"type": "integer", "minimum": 1}"#, "2"),
        ]);
        check(&spec).unwrap();
        let given = |text: &str| serde_json::from_str::<Struct>(text).unwrap();
        let made = instantiate(&spec, given(r#"{"image": "a"}"#)).unwrap();
        let inputs = serde_json::to_value(made.inputs.unwrap()).unwrap();
        assert_eq!(inputs, serde_json::json!({"image": "a", "replicas": 2.0}));
        assert_eq!(made.steps.len(), 1);
        let schema = serde_json::to_value(made.inputs_schema.unwrap()).unwrap();
        let validator = schema::parse("schema", &schema, MAX_VALUES).unwrap();
        for (text, fits) in [
            (r#"{"image": "a", "replicas": 2}"#, true),
            (r#"{"image": "a"}"#, false),
            (r#"{"image": "a", "replicas": "two"}"#, false),
            (r#"{"image": "a", "replicas": 2, "size": 1}"#, false),
        ] {
            let value = serde_json::from_str(text).unwrap();
            assert_eq!(schema::check(&validator, &value).is_ok(), fits, "{text}");
        }
        for (text, word) in [
            ("{}", "no default"),
            (r#"{"image": ""}"#, "image"),
            (r#"{"image": "a", "replicas": 0}"#, "replicas"),
            (r#"{"image": "a", "size": 1}"#, "no parameter \"size\""),
        ] {
            let error = instantiate(&spec, given(text)).unwrap_err();
            assert!(error.message().contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn references_of_parameters_stay_within_them() {
        let list = r##"{"$id": "https://example.com/x", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": "string"}}}"##;
        let spec = template(vec![
            parameter("names", list, ""),
            parameter("sizes", &list.replace("string", "integer"), "[1]"),
        ]);
        check(&spec).unwrap();
        let made = instantiate(&spec, serde_json::from_str(r#"{"names": ["a"]}"#).unwrap()).unwrap();
        let schema = serde_json::to_value(made.inputs_schema.unwrap()).unwrap();
        let validator = schema::parse("schema", &schema, MAX_VALUES).unwrap();
        for (sizes, fits) in [(serde_json::json!([2]), true), (serde_json::json!(["b"]), false)] {
            let value = serde_json::json!({ "names": ["a"], "sizes": sizes });
            assert_eq!(schema::check(&validator, &value).is_ok(), fits, "{value}");
        }
        let mut spec = spec;
        let dialect = list.replacen('{', r#"{"$schema": "http://json-schema.org/draft-07/schema#", "#, 1);
        spec.parameters[0] = parameter("names", &dialect, "");
        assert!(check(&spec).unwrap_err().message().contains("different"));
    }

    #[test]
    fn invalid_templates_name_their_field() {
        for (spec, field) in [
            (template(vec![parameter("a b", "", "")]), "parameters[0].name"),
            (template(vec![parameter("a", "", ""), parameter("a", "", "")]), "parameters[1].name"),
            (template(vec![parameter("a", r#"{"type": "nonsense"}"#, "")]), "parameters[0].schema"),
            (template(vec![parameter("a", r#"{"type": "string"}"#, "1")]), "parameters[0].default"),
            (v1::WorkflowTemplateSpec::default(), "workflow"),
            (template((0..65).map(|index| parameter(&format!("p{index}"), "", "")).collect()), "parameters"),
            (template(vec![parameter("a", &described(17 << 10), "")]), "parameters[0].schema"),
            (
                template(
                    (0..5).map(|index| parameter(&format!("p{index}"), &described(15 << 10), "")).collect(),
                ),
                "parameters",
            ),
        ] {
            let error = check(&spec).unwrap_err();
            assert!(error.message().starts_with(&format!("{FIELD}.{field}: ")), "{error}");
        }
    }
}
