//! What of a manifest is about pods. The parts that are Kubernetes' own are read as its types, so that a
//! mistake is told here and not by a pod that cannot be made.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Check;
use crate::{AgentSecret, Json, PodOverrides, PodTemplate};

/// What the operator itself puts into a pod begins so.
const OURS: &str = "rota-";
const DAY: Duration = Duration::from_secs(86_400);

impl Check<'_> {
    pub(super) fn secrets(&mut self, secrets: &[AgentSecret]) {
        let mut list = self.field("secrets");
        list.require(secrets.len() <= 32, "more than 32");
        for (index, secret) in secrets.iter().enumerate() {
            let mut item = list.item(index);
            item.field("name").variable(&secret.name);
            item.field("name").require(secret.name.len() <= 63, "has more than 63 characters");
            item.field("name").require(
                !secrets[..index].iter().any(|before| before.name == secret.name),
                &format!("{:?} is there twice", secret.name),
            );
            item.field("secretName").dns_name(&secret.secret_name, 253);
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            item.field("key").require(
                (1..=253).contains(&secret.key.len()) && secret.key.bytes().all(good),
                &format!("{:?} is no key of a Secret", secret.key),
            );
        }
    }

    pub(super) fn pod(&mut self, pod: &PodTemplate) {
        self.require(pod.image.as_deref() != Some(""), "has an empty image");
        for (index, secret) in pod.image_pull_secrets.iter().enumerate() {
            self.field("imagePullSecrets").item(index).field("name").dns_name(&secret.name, 253);
        }
        self.require(pod.command.first().is_none_or(|first| !first.is_empty()), "has an empty command");
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
        for key in pod.labels.keys().filter(|key| is_ours(key)) {
            self.field("labels").field(key).fail("is set by the operator");
        }
        self.span("terminationGracePeriod", pod.termination_grace_period, Duration::ZERO, 7 * DAY);
        self.place(
            &pod.node_selector,
            &pod.tolerations,
            (&pod.volumes, &pod.volume_mounts),
            pod.service_account_name.as_deref(),
        );
    }

    pub(super) fn overrides(&mut self, pod: &PodOverrides) {
        self.read::<v1::ResourceRequirements>("resources", pod.resources.as_ref());
        self.place(
            &pod.node_selector,
            &pod.tolerations,
            (&pod.volumes, &pod.volume_mounts),
            pod.service_account_name.as_deref(),
        );
    }

    fn place(
        &mut self,
        selector: &BTreeMap<String, String>,
        tolerations: &[Json],
        (volumes, mounts): (&[Json], &[Json]),
        account: Option<&str>,
    ) {
        self.require(selector.len() <= 64, "selects by more than 64 labels");
        self.each::<v1::Toleration>("tolerations", tolerations);
        let volumes = self.each::<v1::Volume>("volumes", volumes);
        for (index, volume) in volumes.iter().enumerate() {
            let mut name = self.field("volumes");
            let mut name = name.item(index);
            let mut name = name.field("name");
            name.dns_name(&volume.name, 63);
            name.require(!volume.name.starts_with(OURS), "begins with rota-, as the operator's own do");
        }
        for (index, mount) in self.each::<v1::VolumeMount>("volumeMounts", mounts).iter().enumerate() {
            let mut path = self.field("volumeMounts");
            let mut path = path.item(index);
            let mut path = path.field("mountPath");
            path.require(mount.mount_path.starts_with('/'), "is not absolute");
            let taken = ["/var/run/rota", "/var/lib/rota"]
                .iter()
                .any(|ours| std::path::Path::new(&mount.mount_path).starts_with(ours));
            path.require(!taken, "is the worker's own place");
        }
        if let Some(account) = account {
            self.field("serviceAccountName").dns_name(account, 253);
        }
    }

    fn each<T: DeserializeOwned>(&mut self, name: &str, parts: &[Json]) -> Vec<T> {
        let mut list = self.field(name);
        list.require(parts.len() <= 64, "more than 64");
        let read = parts.iter().enumerate().filter_map(|(index, part)| list.item(index).typed(part));
        read.collect()
    }

    fn read<T: DeserializeOwned>(&mut self, name: &str, part: Option<&Json>) {
        if let Some(part) = part {
            let _: Option<T> = self.field(name).typed(part);
        }
    }

    fn typed<T: DeserializeOwned>(&mut self, part: &Json) -> Option<T> {
        serde_json::from_value(Value::Object(part.0.clone()))
            .map_err(|error| self.fail(error.to_string()))
            .ok()
    }
}

/// Labels by which pods are found again.
fn is_ours(key: &str) -> bool {
    key.starts_with("rota.dev/") || key.starts_with("app.kubernetes.io/")
}
