//! JSON Schemas of messages, in the JSON form of protobuf.

use std::collections::BTreeMap;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::comments::Comments;
use crate::request::expression_of;

/// Schemas of all messages and enums that something refers to, by name.
pub(super) struct Schemas<'a> {
    comments: &'a Comments,
    schemas: BTreeMap<String, Value>,
}

impl<'a> Schemas<'a> {
    pub(super) fn new(comments: &'a Comments) -> Self {
        Self { comments, schemas: BTreeMap::new() }
    }

    pub(super) fn finish(self) -> BTreeMap<String, Value> {
        self.schemas
    }

    /// Returns a schema that refers to a message, which is added.
    pub(super) fn of_message(&mut self, message: &MessageDescriptor) -> Value {
        if let Some(schema) = well_known(message.full_name()) {
            return schema;
        }
        self.add(message);
        json!({ "$ref": format!("#/components/schemas/{}", name(message.full_name())) })
    }

    pub(super) fn add(&mut self, message: &MessageDescriptor) {
        let name = name(message.full_name());
        if self.schemas.contains_key(&name) {
            return;
        }
        // Entered first: messages contain themselves.
        self.schemas.insert(name.clone(), Value::Null);
        let mut schema = self.object(message, &[]);
        describe(&mut schema, self.comments.of_message(message));
        self.schemas.insert(name, schema);
    }

    /// Returns the schema of a message without some fields.
    pub(super) fn object(&mut self, message: &MessageDescriptor, without: &[&str]) -> Value {
        let mut properties = Map::new();
        for field in message.fields().filter(|field| !without.contains(&field.name())) {
            let mut schema = self.of_field(&field);
            if expression_of(&field).is_some() {
                schema = json!({ "type": ["integer", "string"] });
            }
            describe(&mut schema, self.comments.of_field(&field));
            properties.insert(field.json_name().to_owned(), schema);
        }
        json!({ "type": "object", "properties": properties })
    }

    pub(super) fn of_field(&mut self, field: &FieldDescriptor) -> Value {
        match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let values = self.of_kind(&entry.map_entry_value_field().kind());
                json!({ "type": "object", "additionalProperties": values })
            }
            kind => {
                let schema = self.of_kind(&kind);
                if field.is_list() { json!({ "type": "array", "items": schema }) } else { schema }
            }
        }
    }

    fn of_kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Message(message) => self.of_message(message),
            Kind::Enum(described) => self.of_enum(described),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            Kind::Double | Kind::Float => json!({ "type": "number" }),
            // Numbers of 64 bits are text, since JavaScript would round them.
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({ "type": "string", "format": "int64" }),
            Kind::Uint64 | Kind::Fixed64 => json!({ "type": "string", "format": "uint64" }),
            Kind::Uint32 | Kind::Fixed32 => json!({ "type": "integer", "minimum": 0 }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({ "type": "integer", "format": "int32" }),
        }
    }

    fn of_enum(&mut self, described: &EnumDescriptor) -> Value {
        let name = name(described.full_name());
        let values: Vec<_> = described.values().map(|value| value.name().to_owned()).collect();
        let mut schema = json!({ "type": "string", "enum": values });
        describe(&mut schema, self.comments.of_enum(described));
        self.schemas.entry(name.clone()).or_insert(schema);
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }
}

/// Returns the name of a schema: without our own package.
fn name(full: &str) -> String {
    full.strip_prefix("rota.v1.").unwrap_or(full).to_owned()
}

fn describe(schema: &mut Value, comment: &str) {
    if let Some(schema) = schema.as_object_mut().filter(|_| !comment.is_empty()) {
        schema.insert("description".to_owned(), json!(comment));
    }
}

/// Returns the schema of a type that has a JSON form of its own.
fn well_known(full: &str) -> Option<Value> {
    Some(match full.strip_prefix("google.protobuf.")? {
        "Timestamp" => json!({ "type": "string", "format": "date-time" }),
        "Duration" => json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$" }),
        "FieldMask" => json!({ "type": "string" }),
        "Struct" | "Empty" => json!({ "type": "object" }),
        "Value" => json!({}),
        "ListValue" => json!({ "type": "array" }),
        "Any" => json!({
            "type": "object", "properties": { "@type": { "type": "string" } }, "additionalProperties": true,
        }),
        _ => return None,
    })
}
