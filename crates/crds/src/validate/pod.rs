//! Validation of pod templates and Secret references. Kubernetes' own fields are parsed as its types, so that errors are
//! reported here and not by a pod that cannot be created.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::time::Duration;

use k8s_openapi::api::core::v1;
use k8s_openapi::api::networking::v1::NetworkPolicyEgressRule;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::pod_template::unknown_fields;
use super::{Check, Violation};
use crate::{AgentSecret, Egress, Json, PodNetwork, PodOverrides, PodTemplate};

/// Prefix of the volumes and containers that the operator adds to pods. Attempts get nothing of these volumes.
pub const RESERVED_PREFIX: &str = "rota-";
pub(super) const RESERVED: &str = "must not start with rota-, which is reserved for the operator";
/// Kinds of volumes that begin empty and end with the pod, or have only what the pod is.
const TASK_VOLUMES: [&str; 3] = ["emptyDir", "ephemeral", "downwardAPI"];
/// Fields of the claim of an `ephemeral` volume that name what another volume or snapshot has.
const SOURCES_OF_CLAIMS: [&str; 4] = ["dataSource", "dataSourceRef", "selector", "volumeName"];
/// Where the worker keeps its token, secrets and state, and the program itself.
const RESERVED_PATHS: [&str; 4] = ["/var/run/rota", "/run/rota", "/var/lib/rota", "/opt/rota"];
/// Directories at the root with programs, settings and state of the image. A mount there could replace the worker itself.
const SYSTEM: [&str; 17] = [
    "bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "opt", "proc", "root", "run",
    "sbin", "sys", "usr", "var",
];
const MAX_GRACE_PERIOD: Duration = Duration::from_hours(7 * 24);

impl PodOverrides {
    /// Returns all violations of the rules for what a task changes of its pod.
    pub fn validate(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        Check { path: "spec.podOverrides".to_owned(), found: &mut found }.overrides(self);
        found
    }
}

impl Check<'_> {
    pub(super) fn secrets(&mut self, secrets: &[AgentSecret]) {
        let mut list = self.field("secrets");
        list.require(secrets.len() <= 32, "must have at most 32 entries");
        for (index, secret) in secrets.iter().enumerate() {
            let mut item = list.item(index);
            item.field("name").variable(&secret.name);
            item.field("name").require(secret.name.len() <= 63, "must have at most 63 characters");
            item.field("name").require(
                !secrets[..index].iter().any(|before| before.name == secret.name),
                &format!("duplicate {:?}", secret.name),
            );
            item.field("secretName").dns_name(&secret.secret_name, 253);
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            item.field("key").require(
                (1..=253).contains(&secret.key.len()) && secret.key.bytes().all(valid),
                &format!("{:?} is not a valid key of a Secret", secret.key),
            );
        }
    }

    pub(super) fn pod(&mut self, pod: &PodTemplate) {
        self.require(pod.image.as_deref() != Some(""), "image must not be empty");
        for (index, secret) in pod.image_pull_secrets.iter().enumerate() {
            self.field("imagePullSecrets").item(index).field("name").dns_name(&secret.name, 253);
        }
        self.require(pod.command.first().is_none_or(|first| !first.is_empty()), "command must not be empty");
        self.read::<v1::ResourceRequirements>("resources", pod.resources.as_ref());
        self.read::<v1::Affinity>("affinity", pod.affinity.as_ref());
        for (name, class) in
            [("runtimeClassName", &pod.runtime_class_name), ("priorityClassName", &pod.priority_class_name)]
        {
            if let Some(class) = class {
                self.field(name).dns_name(class, 253);
            }
        }
        self.labels(&pod.labels);
        for key in pod.labels.keys().filter(|key| is_reserved(key)) {
            self.field("labels").field(key).fail("is reserved for the operator");
        }
        self.duration(
            "terminationGracePeriod",
            pod.termination_grace_period,
            Duration::ZERO,
            MAX_GRACE_PERIOD,
        );
        if let Some(account) = &pod.service_account_name {
            self.field("serviceAccountName").dns_name(account, 253);
        }
        self.place(&pod.node_selector, &pod.tolerations, (&pod.volumes, &pod.volume_mounts));
        if let Some(network) = &pod.network {
            self.field("network").network(network);
        }
        if let Some(template) = &pod.template {
            self.field("template").template(template);
        }
    }

    fn network(&mut self, network: &PodNetwork) {
        self.require(network.allow.len() <= 32, "allow must have at most 32 entries");
        self.require(
            network.egress != Some(Egress::Any) || network.allow.is_empty(),
            "allow must be empty where egress is Any: no policy restricts these pods",
        );
        self.each::<NetworkPolicyEgressRule>("allow", &network.allow);
    }

    /// Checks a task's overrides. Creating tasks is a smaller right than creating pods: a task must not reach what only the
    /// latter do, such as any Secret, claim or ConfigMap of the namespace, a token of any service account, or the node's files.
    pub(super) fn overrides(&mut self, pod: &PodOverrides) {
        self.read::<v1::ResourceRequirements>("resources", pod.resources.as_ref());
        for (index, volume) in pod.volumes.iter().enumerate() {
            let mut list = self.field("volumes");
            let mut item = list.item(index);
            for kind in volume.0.keys().filter(|key| *key != "name") {
                item.field(kind).require(
                    TASK_VOLUMES.contains(&kind.as_str()),
                    "is a kind of volume that only the agent's spec.pod may have",
                );
            }
            let template = volume.0.get("ephemeral").and_then(|own| own.get("volumeClaimTemplate"));
            let claim = template.and_then(|template| template.get("spec"));
            for source in SOURCES_OF_CLAIMS {
                let named = claim.is_some_and(|claim| claim.get(source).is_some());
                let mut spec = item.field("ephemeral.volumeClaimTemplate.spec");
                spec.field(source)
                    .require(!named, "copies another volume, which only the agent's spec.pod may");
            }
            // Some provisioners take a path or a source from there.
            let annotations = template.and_then(|template| template.pointer("/metadata/annotations"));
            item.field("ephemeral.volumeClaimTemplate.metadata.annotations")
                .require(annotations.is_none(), "is only for the agent's spec.pod");
        }
        self.place(&pod.node_selector, &pod.tolerations, (&pod.volumes, &pod.volume_mounts));
        for (index, mount) in pod.volume_mounts.iter().enumerate() {
            let mut list = self.field("volumeMounts");
            let mut item = list.item(index);
            let given = mount.0.get("mountPath").and_then(Value::as_str).unwrap_or_default();
            let first = Path::new(given).components().nth(1).map(|part| part.as_os_str().to_string_lossy());
            let system = first.is_some_and(|first| SYSTEM.contains(&first.as_ref()));
            item.field("mountPath").require(
                !system,
                "is a directory of the system, which only the agent's spec.pod may replace",
            );
            // Those of the agent may be another container's, such as the keys of a proxy.
            let name = mount.0.get("name").and_then(Value::as_str).unwrap_or_default();
            let own =
                pod.volumes.iter().any(|volume| volume.0.get("name").and_then(Value::as_str) == Some(name));
            item.field("name").require(own, "must be one of the task's own volumes");
            let expands = mount.0.contains_key("subPathExpr");
            item.field("subPathExpr").require(!expands, "is only for the agent's spec.pod");
        }
    }

    fn place(
        &mut self,
        selector: &BTreeMap<String, String>,
        tolerations: &[Json],
        (volumes, mounts): (&[Json], &[Json]),
    ) {
        self.require(selector.len() <= 64, "nodeSelector must have at most 64 labels");
        self.each::<v1::Toleration>("tolerations", tolerations);
        let volumes = self.each::<v1::Volume>("volumes", volumes);
        self.volumes(&volumes);
        let mounts = self.each::<v1::VolumeMount>("volumeMounts", mounts);
        self.mounts(&mounts);
    }

    pub(super) fn volumes(&mut self, volumes: &[v1::Volume]) {
        for (index, volume) in volumes.iter().enumerate() {
            let mut name = self.field("volumes");
            let mut name = name.item(index);
            let mut name = name.field("name");
            name.dns_name(&volume.name, 63);
            name.require(!volume.name.starts_with(RESERVED_PREFIX), RESERVED);
        }
    }

    /// Checks mounts of the worker's container.
    pub(super) fn mounts(&mut self, mounts: &[v1::VolumeMount]) {
        for (index, mount) in mounts.iter().enumerate() {
            let mut list = self.field("volumeMounts");
            let mut item = list.item(index);
            // The volumes of the worker hold its token and its secrets.
            item.field("name").require(!mount.name.starts_with(RESERVED_PREFIX), RESERVED);
            let given = Path::new(&mount.mount_path);
            let mut path = item.field("mountPath");
            path.require(given.is_absolute(), "must be absolute");
            // The cluster replaces variables in the arguments of containers.
            path.require(!mount.mount_path.contains('$'), "must not contain $");
            path.require(!given.components().any(|part| part == Component::ParentDir), "must not contain ..");
            // A mount there, or around it, would be opened to attempts with what the worker keeps from them.
            let overlaps = |own: &str| given.starts_with(own) || Path::new(own).starts_with(given);
            let reserved = given == Path::new("/tmp") || RESERVED_PATHS.iter().any(|own| overlaps(own));
            path.require(!reserved, "is reserved for the worker");
        }
    }

    fn each<T: DeserializeOwned + Serialize>(&mut self, name: &str, parts: &[Json]) -> Vec<T> {
        let mut list = self.field(name);
        list.require(parts.len() <= 64, "must have at most 64 entries");
        let read = parts.iter().enumerate().filter_map(|(index, part)| list.item(index).typed(part));
        read.collect()
    }

    fn read<T: DeserializeOwned + Serialize>(&mut self, name: &str, part: Option<&Json>) {
        if let Some(part) = part {
            let _: Option<T> = self.field(name).typed(part);
        }
    }

    /// Reads a part as Kubernetes' own type, which ignores fields that it does not know.
    pub(super) fn typed<T: DeserializeOwned + Serialize>(&mut self, part: &Json) -> Option<T> {
        let given = Value::Object(part.0.clone());
        let read = serde_json::from_value::<T>(given.clone())
            .and_then(|read| Ok((serde_json::to_value(&read)?, read)))
            .map_err(|error| self.fail(error.to_string()));
        let (known, read) = read.ok()?;
        for path in unknown_fields(&given, &known) {
            self.field(&path).fail("is no field of Kubernetes");
        }
        Some(read)
    }
}

/// Returns whether the operator selects pods by this label.
pub(super) fn is_reserved(key: &str) -> bool {
    key.starts_with("rota.dev/") || key.starts_with("app.kubernetes.io/")
}
