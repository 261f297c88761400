//! Data of results against the schemas of their tasks. Workers of others do not check it. Knows nothing of runtimes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use pbjson_types::Struct;
use prost::Message;
use rota_core::task::Task;
use rota_core::{Fence, Namespace, TaskId};
use rota_proto::limits::RESULT_BYTES;
use rota_proto::num::whole;
use rota_proto::result_schema::{mismatch, unusable};
use rota_proto::v1::{Failure, TaskSpec};
use rota_proto::worker::v1::{self as wire, result::Kind};
use rota_telemetry::redact::PLACEHOLDER;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tonic::Status;

use crate::store_client::StoreClient;
use crate::wire::check::MAX_TEXT;
use crate::wire::schema::{self, Schema};

/// Attempts that are remembered to have no schema, at most.
const MAX_PLAIN: usize = 1 << 16;
/// Memory of the schemas that are kept.
const MAX_KEPT_BYTES: usize = 64 << 20;

pub(crate) type Attempt = (Namespace, TaskId, Fence);

/// Schemas of results that were used last, and the attempts whose results have to fit none.
#[derive(Default)]
pub(crate) struct ResultSchemas {
    /// Attempts that were sent by this process. For the results of all others, the task is read.
    plain: Mutex<HashSet<Attempt>>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Compiled schemas by the digests of their texts.
    schemas: HashMap<[u8; 32], Arc<Schema>>,
    /// Digests in the order in which they were added.
    order: VecDeque<[u8; 32]>,
    memory: usize,
}

impl ResultSchemas {
    /// Remembers an attempt that is about to be sent, if its result has to fit no schema.
    pub(crate) fn note_sent(&self, task: &Task, spec: Option<&TaskSpec>) {
        if spec.is_none_or(|spec| spec.result_schema.is_some()) {
            return;
        }
        let mut plain = self.plain.lock();
        // Those of attempts whose results never came.
        if plain.len() >= MAX_PLAIN {
            plain.clear();
        }
        plain.insert((task.namespace.clone(), task.id, task.fence));
    }

    /// Whether this process has sent an attempt whose result has to fit no schema. Asked once, when the result is there.
    pub(crate) fn take_plain(&self, attempt: &Attempt) -> bool {
        self.plain.lock().remove(attempt)
    }

    /// Returns the failure that takes the place of a result if its data does not fit the schema of its task.
    pub(crate) async fn mismatch(
        self: &Arc<Self>,
        store: &StoreClient,
        (namespace, id, _): &Attempt,
        result: &wire::Result,
    ) -> Result<Option<Failure>, Status> {
        let done = match &result.kind {
            Some(Kind::Succeeded(done)) => Some(done),
            _ => result.undelivered.as_ref(),
        };
        let size = |data: &Struct| data.encoded_len();
        // One that is too large fails without it.
        let Some(done) = done.filter(|done| done.data.as_ref().map_or(0, size) <= RESULT_BYTES) else {
            return Ok(None);
        };
        // Of a task that does not exist, no result is accepted.
        let Some(task) = store.record(namespace, *id).await? else { return Ok(None) };
        let spec = store.payload(&task).await?.unwrap_or_default();
        let Some(schema) = TaskSpec::decode(spec).unwrap_or_default().result_schema else {
            return Ok(None);
        };
        let (data, schemas) = (done.data.clone(), Arc::clone(self));
        let checked = tokio::task::spawn_blocking(move || schemas.failure(&schema, data.as_ref())).await;
        checked.map_err(|_| Status::internal("the check of a result panicked"))
    }

    fn failure(&self, schema: &Struct, data: Option<&Struct>) -> Option<Failure> {
        // As the worker has it, which the messages quote.
        let json = |fields: &Struct| serde_json::to_value(fields).map_or(Value::Null, whole);
        let schema = match self.schema(json(schema)) {
            Ok(schema) => schema,
            Err(status) => return Some(unusable(status.message())),
        };
        let data = data.map_or(Value::Null, json);
        // The worker has checked texts and names before they were redacted.
        let checked = schema::check_besides(&schema, &data, |text| text.contains(PLACEHOLDER));
        checked.err().map(|(_, why)| mismatch(&why))
    }

    fn schema(&self, mut given: Value) -> Result<Arc<Schema>, Status> {
        // `Struct` has its fields in a random order.
        given.sort_all_objects();
        let digest: [u8; 32] = Sha256::digest(given.to_string()).into();
        let known = self.kept.lock().schemas.get(&digest).cloned();
        match known {
            Some(schema) => Ok(schema),
            None => {
                let schema = Arc::new(schema::parse("result_schema", &given, MAX_TEXT)?);
                self.kept.lock().add(digest, &schema);
                Ok(schema)
            }
        }
    }
}

impl Kept {
    fn add(&mut self, digest: [u8; 32], schema: &Arc<Schema>) {
        if schema.memory() > MAX_KEPT_BYTES || self.schemas.insert(digest, Arc::clone(schema)).is_some() {
            return;
        }
        self.order.push_back(digest);
        self.memory += schema.memory();
        while self.memory > MAX_KEPT_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            self.memory -= self.schemas.remove(&oldest).map_or(0, |schema| schema.memory());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Struct {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn failures_are_those_of_workers() {
        let schemas = ResultSchemas::default();
        let schema =
            fields(json!({"required": ["n"], "properties": {"n": {"minimum": 3}, "s": {"maxLength": 3}}}));
        let failure = |data: Option<&Struct>| schemas.failure(&schema, data).map(|failure| failure.message);
        assert_eq!(failure(Some(&fields(json!({"n": 3})))), None);
        let message = failure(Some(&fields(json!({"n": 2})))).unwrap();
        assert_eq!(
            message,
            "the data of the result does not fit its schema: 2 is less than the minimum of 3"
        );
        assert!(failure(Some(&fields(json!({})))).is_some());
        assert_eq!(failure(Some(&fields(json!({"n": 3, "s": "a [redacted]"})))), None);
        let lacks = failure(Some(&fields(json!({"s": "[redacted]"})))).unwrap();
        assert!(lacks.contains("required"), "{lacks}");
        let unusable = schemas.failure(&fields(json!({"type": "nonsense"})), None).unwrap();
        assert!(unusable.message.starts_with("the result schema: "), "{unusable:?}");
    }

    #[test]
    fn redacted_names_need_not_fit() {
        let schemas = ResultSchemas::default();
        let fails = |schema: Value, data: Value| {
            let part = json!({ "properties": { "a": schema } });
            schemas.failure(&fields(part), Some(&fields(json!({ "a": data })))).is_some()
        };
        let redacted = json!({ "[redacted]": 1 });
        for schema in [
            json!({ "required": ["key"] }),
            json!({ "properties": { "key": true }, "additionalProperties": false }),
            json!({ "properties": { "key": true }, "unevaluatedProperties": false }),
            json!({ "propertyNames": { "maxLength": 3 } }),
            json!({ "minProperties": 2 }),
            json!({ "const": { "key": 1 } }),
            json!({ "enum": [{ "key": 1 }] }),
            json!({ "anyOf": [{ "required": ["key"] }, { "required": ["other"] }] }),
            json!({ "patternProperties": { "^k": { "type": "integer" } }, "additionalProperties": { "type": "string" } }),
        ] {
            assert!(!fails(schema.clone(), redacted.clone()), "{schema}");
            assert!(fails(schema.clone(), json!({ "name": 1 })), "{schema}");
            // What is about none of the names still counts.
            let all = json!({ "allOf": [schema, { "properties": { "n": { "type": "string" } } }] });
            assert!(fails(all.clone(), json!({ "[redacted]": 1, "n": 1 })), "{all}");
        }
    }

    #[test]
    fn schemas_are_compiled_once_within_a_bound() {
        let schemas = ResultSchemas::default();
        let of = |at: usize| {
            let patterns: Vec<_> = (0..100).map(|n| json!({ "pattern": format!("^{at}-{n}$") })).collect();
            schemas.schema(json!({ "allOf": patterns })).unwrap()
        };
        let plain = |given| schemas.schema(given).unwrap();
        let (one, other) = (json!({"type": "object", "title": "a"}), json!({"title": "a", "type": "object"}));
        assert!(Arc::ptr_eq(&plain(one), &plain(other)));
        let first = of(0);
        assert!(Arc::ptr_eq(&first, &of(0)));
        for at in 1..10 {
            of(at);
            let kept = schemas.kept.lock();
            assert!(kept.memory <= MAX_KEPT_BYTES && kept.order.len() == kept.schemas.len());
        }
        assert!(!Arc::ptr_eq(&first, &of(0)), "it is the oldest");
    }
}
