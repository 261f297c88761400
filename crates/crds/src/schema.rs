//! Schemas of maps, whose sizes no attribute can limit.

use schemars::{Schema, SchemaGenerator, json_schema};

pub(crate) fn environment(_: &mut SchemaGenerator) -> Schema {
    map(256, 131_072)
}

pub(crate) fn labels(_: &mut SchemaGenerator) -> Schema {
    map(64, 63)
}

pub(crate) fn annotations(_: &mut SchemaGenerator) -> Schema {
    map(64, 16_384)
}

fn map(entries: u32, length: u32) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": entries,
        "additionalProperties": { "type": "string", "maxLength": length }
    })
}
