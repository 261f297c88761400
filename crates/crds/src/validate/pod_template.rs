//! Validation of templates that are merged into pods. What makes a pod a worker is the operator's: a template adds to it and
//! does not change it.

use k8s_openapi::api::core::v1;
use serde_json::Value;

use super::Check;
use super::pod::{RESERVED, RESERVED_PREFIX, is_reserved};
use crate::{Json, Violation};

/// Name of the container that runs the worker.
const WORKER: &str = "worker";
/// Variables by which a worker knows itself and its control plane.
const RESERVED_VARIABLES: [&str; 3] = ["POD_NAME", "POD_UID", "HOME"];
const RESERVED_VARIABLE_PREFIX: &str = "ROTA_";
/// Settings of workers and of their log, which a template may have; arguments of the operator take precedence.
const SETTINGS: [&str; 2] = ["ROTA_WORKER_", "ROTA_LOG"];

/// Checks a template that is merged into the pods of all agents.
pub fn pod_template(template: &Json) -> Vec<Violation> {
    let mut found = Vec::new();
    Check { path: String::new(), found: &mut found }.template(template);
    found
}

impl Check<'_> {
    pub(super) fn template(&mut self, template: &Json) {
        let Some(parsed) = self.typed::<v1::PodTemplateSpec>(template) else { return };
        if let Some(Value::Object(metadata)) = template.0.get("metadata") {
            for key in metadata.keys().filter(|key| !["labels", "annotations"].contains(&key.as_str())) {
                self.field("metadata")
                    .field(key)
                    .fail("is not for templates, which have labels and annotations");
            }
        }
        let metadata = parsed.metadata.unwrap_or_default();
        for (name, words) in [("labels", metadata.labels), ("annotations", metadata.annotations)] {
            for key in words.unwrap_or_default().keys().filter(|key| is_reserved(key)) {
                self.field("metadata").field(name).field(key).fail("is reserved for the operator");
            }
        }
        let spec = parsed.spec.unwrap_or_default();
        let mut at = self.field("spec");
        at.require(
            spec.restart_policy.is_none(),
            "restartPolicy must not be set: a worker that ends is replaced",
        );
        at.require(spec.ephemeral_containers.is_none(), "ephemeralContainers must not be set");
        at.volumes(&spec.volumes.unwrap_or_default());
        for (field, containers) in
            [("initContainers", spec.init_containers.unwrap_or_default()), ("containers", spec.containers)]
        {
            for (index, container) in containers.iter().enumerate() {
                let mut list = at.field(field);
                let mut item = list.item(index);
                item.field("name").dns_name(&container.name, 63);
                item.field("name").require(!container.name.starts_with(RESERVED_PREFIX), RESERVED);
                if field == "containers" && container.name == WORKER {
                    item.worker(container);
                } else {
                    item.field("name")
                        .require(container.name != WORKER, "is the name of the worker's container");
                    for mount in container.volume_mounts.iter().flatten() {
                        item.field("volumeMounts")
                            .require(!mount.name.starts_with(RESERVED_PREFIX), RESERVED);
                    }
                }
            }
        }
    }

    /// Checks what is added to the worker's container.
    fn worker(&mut self, container: &v1::Container) {
        self.require(container.args.is_none(), "args must not be set: they are the operator's");
        self.require(container.env_from.is_none(), "envFrom must not be set: name the variables in env");
        for variable in container.env.iter().flatten() {
            let name = variable.name.as_str();
            let setting = SETTINGS.iter().any(|prefix| name.starts_with(prefix));
            let reserved =
                RESERVED_VARIABLES.contains(&name) || name.starts_with(RESERVED_VARIABLE_PREFIX) && !setting;
            self.field("env").field(name).require(!reserved, "is reserved for the operator");
        }
        self.mounts(container.volume_mounts.as_deref().unwrap_or_default());
    }
}

/// Returns the paths of fields that a Kubernetes type does not have: those that are missing once it was read.
pub(super) fn unknown_fields(given: &Value, read: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(given, read, "", &mut found);
    found
}

fn compare(given: &Value, read: &Value, path: &str, found: &mut Vec<String>) {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => {
            for (key, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match read.get(key) {
                    Some(read) => compare(value, read, &path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(read)) => {
            for (index, (given, read)) in given.iter().zip(read).enumerate() {
                compare(given, read, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}
