//! Kinds of custom resources that a controller can watch, and how their objects are read: tolerantly, since the cluster
//! may have definitions of a newer version, and without what no reconciler uses.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use rota_core::text::prefix;
use rota_crds::resource::{self, Agent, Schedule, Task, Workflow, WorkflowTemplate, condition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

/// Annotation in which `kubectl apply` keeps a second copy of the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Reason of objects that cannot be read.
const INVALID_OBJECT: &str = "InvalidObject";
const MAX_MESSAGE_BYTES: usize = 1024;

/// Kind of custom resource that a controller reconciles.
pub(crate) trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Returns the schema of this version's definition.
    fn schema() -> &'static JSONSchemaProps;

    /// Adds to a status that the object cannot be read.
    fn report_invalid(status: &mut Map<String, Value>, metadata: &ObjectMeta, message: &str);
}

impl Kind for Agent {
    fn schema() -> &'static JSONSchemaProps {
        static SCHEMA: LazyLock<JSONSchemaProps> = LazyLock::new(|| schema(resource::definition_of_agents()));
        &SCHEMA
    }

    fn report_invalid(status: &mut Map<String, Value>, metadata: &ObjectMeta, message: &str) {
        // A fixed time, so that a repeated report changes nothing.
        let since = metadata.creation_timestamp.clone().unwrap_or(Time(jiff::Timestamp::UNIX_EPOCH));
        let conditions = [condition::ACCEPTED, condition::READY].map(|type_| {
            json!({
                "type": type_, "status": "False", "reason": INVALID_OBJECT, "message": message,
                "observedGeneration": metadata.generation, "lastTransitionTime": since,
            })
        });
        status.insert("conditions".to_owned(), json!(conditions));
        status.insert("message".to_owned(), json!(message));
    }
}

impl Kind for Task {
    fn schema() -> &'static JSONSchemaProps {
        static SCHEMA: LazyLock<JSONSchemaProps> = LazyLock::new(|| schema(resource::definition_of_tasks()));
        &SCHEMA
    }

    fn report_invalid(status: &mut Map<String, Value>, _metadata: &ObjectMeta, message: &str) {
        // Phase and id stay: the task may have been accepted by a newer version.
        status.insert("reason".to_owned(), json!(INVALID_OBJECT));
        status.insert("message".to_owned(), json!(message));
    }
}

impl Kind for Workflow {
    fn schema() -> &'static JSONSchemaProps {
        static SCHEMA: LazyLock<JSONSchemaProps> =
            LazyLock::new(|| schema(resource::definition_of_workflows()));
        &SCHEMA
    }

    fn report_invalid(status: &mut Map<String, Value>, _metadata: &ObjectMeta, message: &str) {
        // Phase and id stay: the workflow may have been accepted by a newer version.
        status.insert("reason".to_owned(), json!(INVALID_OBJECT));
        status.insert("message".to_owned(), json!(message));
    }
}

impl Kind for WorkflowTemplate {
    fn schema() -> &'static JSONSchemaProps {
        static SCHEMA: LazyLock<JSONSchemaProps> =
            LazyLock::new(|| schema(resource::definition_of_templates()));
        &SCHEMA
    }

    fn report_invalid(status: &mut Map<String, Value>, _metadata: &ObjectMeta, message: &str) {
        status.insert("message".to_owned(), json!(message));
    }
}

impl Kind for Schedule {
    fn schema() -> &'static JSONSchemaProps {
        static SCHEMA: LazyLock<JSONSchemaProps> =
            LazyLock::new(|| schema(resource::definition_of_schedules()));
        &SCHEMA
    }

    fn report_invalid(status: &mut Map<String, Value>, _metadata: &ObjectMeta, message: &str) {
        status.insert("message".to_owned(), json!(message));
    }
}

fn schema(definition: CustomResourceDefinition) -> JSONSchemaProps {
    let version = definition.spec.versions.into_iter().next();
    version.and_then(|version| version.schema?.open_api_v3_schema).unwrap_or_default()
}

/// Watched object, which may have failed to deserialize: an invalid object must not end the watch of the others.
#[derive(Debug, Clone)]
pub(crate) struct Guarded<K>(pub Result<K, Invalid>);

/// Object that this version cannot read, for example because of a value that a newer one has introduced.
#[derive(Debug, Clone)]
pub(crate) struct Invalid {
    pub error: String,
    pub metadata: ObjectMeta,
    status: Map<String, Value>,
}

impl Invalid {
    /// Returns the status that reports this, unless it was written already.
    pub(crate) fn status<K: Kind>(&self) -> Option<Map<String, Value>> {
        let mut status = self.status.clone();
        let message = format!("this version of the operator cannot read the object: {}", self.error);
        K::report_invalid(&mut status, &self.metadata, prefix(&message, MAX_MESSAGE_BYTES));
        (status != self.status).then_some(status)
    }
}

impl<'de, K: Kind> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(LAST_APPLIED);
            }
        }
        for field in ["spec", "status"] {
            let properties = K::schema().properties.as_ref();
            if let (Some(value), Some(schema)) =
                (object.get_mut(field), properties.and_then(|properties| properties.get(field)))
            {
                prune(value, schema);
            }
        }
        let error = match K::deserialize(&object) {
            Ok(read) => return Ok(Self(Ok(read))),
            Err(error) => error,
        };
        // A status of a newer version is replaced; the spec counts.
        let status = object.as_object_mut().and_then(|object| object.remove("status"));
        if status.is_some()
            && let Ok(read) = K::deserialize(&object)
        {
            return Ok(Self(Ok(read)));
        }
        let metadata = object.get("metadata").cloned().unwrap_or_default();
        Ok(Self(Err(Invalid {
            error: error.to_string(),
            metadata: serde_json::from_value(metadata).map_err(serde::de::Error::custom)?,
            status: match status {
                Some(Value::Object(status)) => status,
                _ => Map::new(),
            },
        })))
    }
}

/// Removes fields that the schema does not have, as the cluster does with those that its definition does not have.
fn prune(value: &mut Value, schema: &JSONSchemaProps) {
    if schema.x_kubernetes_preserve_unknown_fields == Some(true) {
        return;
    }
    match value {
        Value::Object(fields) => {
            if let Some(properties) = &schema.properties {
                fields.retain(|name, _| properties.contains_key(name));
                for (name, field) in fields.iter_mut() {
                    if let Some(schema) = properties.get(name) {
                        prune(field, schema);
                    }
                }
            } else if let Some(JSONSchemaPropsOrBool::Schema(schema)) = &schema.additional_properties {
                fields.values_mut().for_each(|field| prune(field, schema));
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                items.iter_mut().for_each(|item| prune(item, schema));
            }
        }
        _ => {}
    }
}

impl<K: Kind> Resource for Guarded<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(spec: Value, status: Value) -> Guarded<Agent> {
        let annotations = json!({LAST_APPLIED: "{}", "a": "b"});
        let metadata = json!({"name": "x", "annotations": annotations, "managedFields": [{"manager": "kubectl"}],
            "creationTimestamp": "2030-01-01T00:00:00Z"});
        let object = json!({"apiVersion": "rota.dev/v1alpha1", "kind": "Agent", "metadata": metadata,
            "spec": spec, "status": status});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn unknown_fields_are_tolerated() {
        let pod = json!({"image": "i", "newPodField": 1, "resources": {"limits": {"example.com/x": "1"}}});
        let spec = json!({"runtime": {"scripted": {"newRuntimeField": {}}}, "replicas": 2, "newField": [1], "pod": pod});
        let read = agent(spec, json!({"replicas": 1, "newStatusField": true})).0.unwrap();
        assert_eq!((read.spec.replicas, read.status.unwrap().replicas), (2, 1));
        let resources = read.spec.pod.unwrap().resources.unwrap();
        assert!(resources.0.contains_key("limits"), "verbatim fields are kept");
    }

    #[test]
    fn unknown_words_in_status_are_tolerated() {
        let object = json!({"apiVersion": "rota.dev/v1alpha1", "kind": "Task", "metadata": {"name": "x"},
            "spec": {"agent": "a"}, "status": {"phase": "NewPhase"}});
        let read: Guarded<Task> = serde_json::from_value(object).unwrap();
        assert_eq!(read.0.unwrap().status, None);
    }

    #[test]
    fn copies_of_the_object_are_dropped() {
        let read = agent(json!({"runtime": {"scripted": {}}}), Value::Null);
        assert_eq!(read.meta().managed_fields, None);
        let annotations = read.meta().annotations.as_ref().unwrap();
        assert_eq!(annotations.keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn invalid_objects_report_it_once() {
        let spec = json!({"runtime": {"scripted": {}}, "management": "NewWord"});
        let Err(invalid) = agent(spec.clone(), json!({"replicas": 1})).0 else { panic!("it was read") };
        let status = invalid.status::<Agent>().unwrap();
        assert_eq!((&status["replicas"], &status["conditions"][0]["type"]), (&json!(1), &json!("Accepted")));
        assert!(status["message"].as_str().unwrap().contains("NewWord"));
        let Err(reported) = agent(spec, Value::Object(status)).0 else { panic!("it was read") };
        assert_eq!(reported.status::<Agent>(), None);
        assert_eq!(reported.metadata.name.as_deref(), Some("x"));
    }
}
