//! What a task changes of the pod that it has for itself. Applied last: it is relative to the whole of its agent's pod.

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration, Volume, VolumeMount};
use rota_crds::PodOverrides;

use super::template::Parts;
use super::{InvalidPod, list, read};

/// Replaces the worker's resources, and adds what lists and maps have besides.
pub(super) fn apply(overrides: &PodOverrides, parts: &mut Parts) -> Result<(), InvalidPod> {
    let selector = overrides.node_selector.clone();
    if !selector.is_empty() {
        parts.spec.node_selector.get_or_insert_default().extend(selector);
    }
    let tolerations = list::<Toleration>("tolerations", &overrides.tolerations)?;
    if !tolerations.is_empty() {
        parts.spec.tolerations.get_or_insert_default().extend(tolerations);
    }
    parts.spec.volumes.get_or_insert_default().extend(list::<Volume>("volumes", &overrides.volumes)?);
    let mounts = list::<VolumeMount>("volumeMounts", &overrides.volume_mounts)?;
    let Some(worker) = parts.worker() else { return Ok(()) };
    worker.volume_mounts.get_or_insert_default().extend(mounts);
    if let Some(resources) = &overrides.resources {
        worker.resources = Some(read::<ResourceRequirements>("resources", resources)?);
    }
    Ok(())
}
