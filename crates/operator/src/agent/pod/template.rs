//! Merges templates into the pod of a worker, by Kubernetes' strategic rules: lists of containers, volumes, variables and
//! mounts by name, others as a whole.

use std::collections::BTreeMap;

use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};

use super::CONTAINER_NAME;

/// Annotation by which kubectl chooses a container.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// What templates decide of a pod.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) spec: PodSpec,
}

impl Parts {
    /// Adds others, which take precedence.
    pub(super) fn merge(&mut self, other: Self) {
        self.labels.extend(other.labels);
        self.annotations.extend(other.annotations);
        self.spec.merge_from(other.spec);
    }

    /// Returns the container of the worker, first among the containers. Others may run next to it.
    pub(super) fn worker(&mut self) -> Option<&mut Container> {
        let containers = &mut self.spec.containers;
        let index = containers.iter().position(|container| container.name == CONTAINER_NAME)?;
        containers[..=index].rotate_right(1);
        if containers.len() > 1 {
            let annotation = self.annotations.entry(DEFAULT_CONTAINER.to_owned());
            annotation.or_insert_with(|| CONTAINER_NAME.to_owned());
        }
        containers.first_mut()
    }
}

impl From<PodTemplateSpec> for Parts {
    fn from(template: PodTemplateSpec) -> Self {
        let metadata = template.metadata.unwrap_or_default();
        Self {
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            spec: template.spec.unwrap_or_default(),
        }
    }
}
