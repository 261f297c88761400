//! Converts manifests to API messages. Total for valid manifests; unset fields stay unset, so that all defaults are the
//! server's.

mod agent;
mod runtime;
mod schedule;
mod task;
mod workflow;

use crate::{HumanDuration, Json, Time};

fn duration(duration: Option<HumanDuration>) -> Option<pbjson_types::Duration> {
    duration.map(|duration| duration.0.into())
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
