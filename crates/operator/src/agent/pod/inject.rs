//! Gives the worker's container this program and its libraries from another image, so that any image can be a worker's: one
//! that an agent's owner builds need not contain the version that fits the control plane.

use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, Volume};

use super::template::Parts;
use super::{mount, security_context};
use crate::WorkerOptions;

/// Path of the program and its libraries in images of Rota, which the libraries are bound to.
const PROGRAM_PATH: &str = "/opt/rota";
const VOLUME: &str = "rota-program";
/// Where the init container has the volume.
const INJECTED_PATH: &str = "/injected";

/// Whether the image of a worker has to contain no program of its own.
pub(super) fn is_needed(worker: &Container, options: &WorkerOptions) -> bool {
    worker.command.is_none() && worker.image.as_ref() != Some(&options.image)
}

/// Adds an init container that copies the program, and lets the worker's container execute the copy.
pub(super) fn add(parts: &mut Parts, options: &WorkerOptions) {
    let Some(worker) = parts.worker() else { return };
    let program = format!("{PROGRAM_PATH}/bin/rota");
    worker.command = Some(vec![program.clone()]);
    worker.volume_mounts.get_or_insert_default().push(mount(VOLUME, PROGRAM_PATH, true));
    let install = Container {
        name: "rota-install".to_owned(),
        image: Some(options.program_image.clone()),
        image_pull_policy: options.image_pull_policy.clone(),
        command: Some(vec![program, "inject".to_owned(), INJECTED_PATH.to_owned()]),
        // Those of the containers that run later are more: a quota that wants limits finds some.
        resources: worker.resources.clone(),
        volume_mounts: Some(vec![mount(VOLUME, INJECTED_PATH, false)]),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(security_context()),
        ..Default::default()
    };
    parts.spec.init_containers.get_or_insert_default().insert(0, install);
    parts.spec.volumes.get_or_insert_default().push(Volume {
        name: VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Default::default()
    });
}
