//! Size of a result: one that no message takes would be sent again in every session.

use pbjson_types::{Struct, Value, value};
use prost::Message;
use rota_proto::limits::{MESSAGE_ELEMENTS, RESULT_BYTES};
use rota_proto::v1::{Failure, FailureClass, TaskResult};

use crate::report::failure;

/// Elements of a result: those of a message, without those that every result has.
const MAX_ELEMENTS: usize = MESSAGE_ELEMENTS - 64;
/// Messages within one another, of the 100 that decoders take. A list in a list is two of them, an object in an object three.
const MAX_DEPTH: usize = 90;

/// Returns the failure of an attempt whose result is too large.
pub(crate) fn too_large(result: &TaskResult) -> Option<Failure> {
    let (elements, depth) = result.data.as_ref().map_or((0, 0), of_struct);
    let elements = result.files.len() + elements;
    let bytes = result.encoded_len();
    let text = if depth > MAX_DEPTH {
        "the data of the result has too many lists and objects within one another: at most 28 are stored"
            .to_owned()
    } else if bytes > RESULT_BYTES {
        format!("the result has {bytes} bytes; at most {RESULT_BYTES} are stored")
    } else if elements > MAX_ELEMENTS {
        format!("the result has {elements} texts, lists and values; at most {MAX_ELEMENTS} are stored")
    } else {
        return None;
    };
    let hint = "write large results to files in the workspace, and return their names".to_owned();
    Some(Failure { hint, ..failure(FailureClass::Invalid, text) })
}

/// Counts the elements, with the name, the value and the pair of each field, and the levels.
fn of_struct(data: &Struct) -> (usize, usize) {
    let (elements, depth) = sum(data.fields.values());
    (1 + 2 * data.fields.len() + elements, if depth > 0 { 2 + depth } else { 1 })
}

fn of_value(value: &Value) -> (usize, usize) {
    let (elements, depth) = match &value.kind {
        Some(value::Kind::StringValue(_)) => (1, 0),
        Some(value::Kind::StructValue(data)) => of_struct(data),
        Some(value::Kind::ListValue(list)) => {
            let (elements, depth) = sum(&list.values);
            (1 + elements, 1 + depth)
        }
        _ => (0, 0),
    };
    (1 + elements, 1 + depth)
}

fn sum<'a>(values: impl IntoIterator<Item = &'a Value>) -> (usize, usize) {
    values
        .into_iter()
        .map(of_value)
        .fold((0, 0), |(elements, depth), (more, deep)| (elements + more, depth.max(deep)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::runtimes::structs;

    #[test]
    fn deep_data_is_refused() {
        let nested = |levels, wrap: fn(serde_json::Value) -> serde_json::Value| {
            let value = (0..levels).fold(json!(1), |value, _| wrap(value));
            let data = structs::from_json(json!({ "a": value }));
            let result = TaskResult { data, ..TaskResult::default() };
            let decodes = TaskResult::decode(&result.encode_to_vec()[..]).is_ok();
            (too_large(&result).is_none(), decodes)
        };
        let (list, object): (fn(_) -> _, fn(_) -> _) =
            (|value| json!([value]), |value| json!({ "a": value }));
        assert_eq!((nested(40, list), nested(28, object)), ((true, true), (true, true)));
        assert_eq!((nested(60, list), nested(60, object)), ((false, false), (false, false)));
    }

    #[test]
    fn dense_data_is_more_than_its_text() {
        let too_large = |data, files: usize| {
            let data = structs::from_json(data);
            let files = vec![String::new(); files];
            too_large(&TaskResult { data, files, ..TaskResult::default() }).map(|failed| failed.message)
        };
        assert_eq!(too_large(json!({"a": vec![1; 70_000], "b": "x".repeat(1000)}), 100), None);
        for (data, files, wanted) in [
            (json!({"a": vec![1; 500_000]}), 0, "bytes"),
            (json!({"a": vec![json!({}); 200_000]}), 0, "values"),
            (json!({}), 300_000, "values"),
        ] {
            let message = too_large(data, files).unwrap();
            assert!(message.contains(wanted), "{message}");
        }
    }
}
