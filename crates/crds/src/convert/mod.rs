//! Manifests as API messages. Total: what a valid manifest cannot hold is not thought of here, and
//! what is left out stays out, so that defaults are the server's alone.

mod agent;
mod runtime;
mod task;

use crate::{Json, Span, Time};

fn duration(span: Option<Span>) -> Option<pbjson_types::Duration> {
    span.map(|span| span.0.into())
}

fn timestamp(time: Option<Time>) -> Option<pbjson_types::Timestamp> {
    time.map(|Time(time)| pbjson_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    })
}

fn structure(json: &Option<Json>) -> Option<pbjson_types::Struct> {
    json.as_ref().map(|json| json.0.iter().map(|(key, value)| (key.clone(), self::value(value))).collect())
}

fn value(json: &serde_json::Value) -> pbjson_types::Value {
    use pbjson_types::value::Kind;
    use serde_json::Value as J;
    let kind = match json {
        J::Null => Kind::NullValue(0),
        J::Bool(value) => Kind::BoolValue(*value),
        J::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        J::String(text) => Kind::StringValue(text.clone()),
        J::Array(items) => {
            Kind::ListValue(pbjson_types::ListValue { values: items.iter().map(value).collect() })
        }
        J::Object(fields) => Kind::StructValue(
            fields.iter().map(|(key, field)| (key.clone(), value(field))).collect::<pbjson_types::Struct>(),
        ),
    };
    pbjson_types::Value { kind: Some(kind) }
}
