//! A worker's pod, from its agent. Pure. Pods hold no permission of the cluster, and no token but the
//! one that proves to the control plane who they are.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    KeyToPath, LocalObjectReference, ObjectFieldSelector, Pod, PodSecurityContext, PodSpec,
    ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretProjection, SecurityContext,
    ServiceAccountTokenProjection, Toleration, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use rota_crds::resource::{Agent, Task};
use rota_crds::{ImagePullPolicy, Json, PodOverrides, PodTemplate};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::WorkerOptions;
use crate::cluster::{AGENT, CA_CONFIG_MAP, ROLE, SPEC_HASH, TASK_UID, labels};

/// The container's name.
pub(crate) const CONTAINER: &str = "worker";
/// How long a pod that is told to go may finish what it runs.
const GRACE: Duration = Duration::from_secs(600);
/// Kept of that grace for ending what is not finished then.
const TO_END: Duration = Duration::from_secs(20);
/// An id that images seldom use, so that files of theirs are not ours to change.
const USER: i64 = 65532;
const CA_PATH: &str = "/var/run/rota/ca";
const TOKEN_PATH: &str = "/var/run/rota/token";
const SECRETS_PATH: &str = "/var/run/rota/secrets";
const STATE_PATH: &str = "/var/lib/rota";
const TOKEN_LIFE: i64 = 3600;
/// Whom the token is for.
const AUDIENCE: &str = "rota";

/// What a pod is made from.
pub(crate) struct Recipe<'a> {
    pub agent: &'a Agent,
    pub options: &'a WorkerOptions,
    /// The one task that it is for, where it is.
    pub task: Option<ForTask<'a>>,
}

/// A task that gets a pod of its own.
#[derive(Clone, Copy)]
pub(crate) struct ForTask<'a> {
    pub id: &'a str,
    /// Its resource, where there is one.
    pub resource: Option<&'a Task>,
}

/// What of an agent a cluster cannot take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub String);

impl Recipe<'_> {
    /// The pod. Its name is the agent's, and what the cluster appends to tell it from its siblings.
    pub(crate) fn pod(&self) -> Result<Pod, Malformed> {
        let spec = self.spec()?;
        let template = self.template();
        let hash = hash(&spec, &template);
        let mut own = labels("worker");
        own.insert(AGENT.to_owned(), self.agent.name_any());
        own.insert(ROLE.to_owned(), "worker".to_owned());
        own.insert(SPEC_HASH.to_owned(), hash);
        if let Some(task) = self.task {
            own.insert(TASK_UID.to_owned(), task.id.to_owned());
        }
        // What an agent asks for never hides what we go by.
        let labels =
            template.labels.iter().map(|(key, value)| (key.clone(), value.clone())).chain(own).collect();
        let annotations = (!template.annotations.is_empty()).then_some(template.annotations);
        Ok(Pod {
            metadata: ObjectMeta {
                generate_name: Some(stem(&self.agent.name_any())),
                namespace: self.agent.namespace(),
                labels: Some(labels),
                annotations,
                owner_references: self.owner().map(|owner| vec![owner]),
                ..Default::default()
            },
            spec: Some(spec),
            ..Default::default()
        })
    }

    /// What pods made now would be labelled with: one that has another is outdated.
    pub(crate) fn hash(&self) -> Result<String, Malformed> {
        Ok(hash(&self.spec()?, &self.template()))
    }

    /// A task's own pod goes with the task, others with their agent.
    fn owner(&self) -> Option<OwnerReference> {
        match self.task.and_then(|task| task.resource) {
            Some(task) => task.controller_owner_ref(&()),
            None => self.agent.controller_owner_ref(&()),
        }
    }

    fn template(&self) -> PodTemplate {
        self.agent.spec.pod.clone().unwrap_or_default()
    }

    fn overrides(&self) -> PodOverrides {
        self.task
            .and_then(|task| task.resource)
            .and_then(|task| task.spec.pod_overrides.clone())
            .unwrap_or_default()
    }

    fn spec(&self) -> Result<PodSpec, Malformed> {
        let (template, overrides) = (self.template(), self.overrides());
        let grace = template.termination_grace_period.map_or(GRACE, |grace| grace.0);
        let mut tolerations: Vec<Toleration> = list("tolerations", &template.tolerations)?;
        tolerations.extend(list("tolerations", &overrides.tolerations)?);
        let mut volumes = self.volumes();
        volumes.extend(list::<Volume>("volumes", &template.volumes)?);
        volumes.extend(list::<Volume>("volumes", &overrides.volumes)?);
        let affinity: Option<Affinity> =
            template.affinity.as_ref().map(|one| read("affinity", one)).transpose()?;
        let node_selector: BTreeMap<_, _> =
            template.node_selector.clone().into_iter().chain(overrides.node_selector.clone()).collect();
        let image_pull_secrets: Vec<_> = template
            .image_pull_secrets
            .iter()
            .map(|one| LocalObjectReference { name: one.name.clone() })
            .collect();
        Ok(PodSpec {
            containers: vec![self.container(&template, &overrides, grace)?],
            volumes: Some(volumes),
            // What a worker left undone is done by the next one; a worker that starts again in its
            // old pod would hide that it ever ended.
            restart_policy: Some("Never".to_owned()),
            termination_grace_period_seconds: i64::try_from(grace.as_secs()).ok(),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            service_account_name: overrides.service_account_name.or(template.service_account_name),
            node_selector: (!node_selector.is_empty()).then_some(node_selector),
            tolerations: (!tolerations.is_empty()).then_some(tolerations),
            affinity,
            image_pull_secrets: (!image_pull_secrets.is_empty()).then_some(image_pull_secrets),
            runtime_class_name: template.runtime_class_name,
            priority_class_name: template.priority_class_name,
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    fn container(
        &self,
        template: &PodTemplate,
        overrides: &PodOverrides,
        grace: Duration,
    ) -> Result<Container, Malformed> {
        let resources: Option<ResourceRequirements> = (overrides.resources.as_ref())
            .or(template.resources.as_ref())
            .map(|one| read("resources", one))
            .transpose()?;
        let mut mounts = vec![
            mount("ca", CA_PATH, true),
            mount("token", TOKEN_PATH, true),
            mount("state", STATE_PATH, false),
            mount("tmp", "/tmp", false),
        ];
        if !self.agent.spec.secrets.is_empty() {
            mounts.push(mount("secrets", SECRETS_PATH, true));
        }
        mounts.extend(list::<VolumeMount>("volumeMounts", &template.volume_mounts)?);
        mounts.extend(list::<VolumeMount>("volumeMounts", &overrides.volume_mounts)?);
        let command =
            if template.command.is_empty() { vec!["rota".to_owned()] } else { template.command.clone() };
        let policy = template.image_pull_policy.map(ImagePullPolicy::as_str).map(str::to_owned);
        Ok(Container {
            name: CONTAINER.to_owned(),
            image: Some(template.image.clone().unwrap_or_else(|| self.options.image.clone())),
            image_pull_policy: policy.or_else(|| self.options.image_pull_policy.clone()),
            command: Some(command),
            args: Some(self.arguments(grace)),
            env: Some(self.environment()),
            resources,
            volume_mounts: Some(mounts),
            // Its last words, when it ends badly, are what people ask for first.
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                read_only_root_filesystem: Some(true),
                run_as_non_root: Some(true),
                capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    fn arguments(&self, grace: Duration) -> Vec<String> {
        let drain = grace.saturating_sub(TO_END).max(grace / 2);
        let mut arguments: Vec<String> = ["worker", "--worker", "$(POD_NAME)", "--instance", "$(POD_UID)"]
            .into_iter()
            .map(str::to_owned)
            .collect();
        let mut give = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        give("--agent", self.agent.name_any());
        let slots = if self.task.is_some() { 1 } else { self.agent.spec.slots.unwrap_or(1).max(1) };
        give("--slots", slots.to_string());
        give("--state-dir", STATE_PATH.to_owned());
        give("--drain-timeout", format!("{}s", drain.as_secs()));
        if !self.agent.spec.secrets.is_empty() {
            give("--secrets-dir", SECRETS_PATH.to_owned());
        }
        if let Some(task) = self.task {
            give("--isolated-task", task.id.to_owned());
        }
        arguments
    }

    fn environment(&self) -> Vec<EnvVar> {
        let plain = |name: &str, value: String| EnvVar {
            name: name.to_owned(),
            value: Some(value),
            value_from: None,
        };
        let field = |name: &str, path: &str| EnvVar {
            name: name.to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector { api_version: None, field_path: path.to_owned() }),
                ..Default::default()
            }),
        };
        let collector = self.options.collector.iter();
        let mut all = vec![
            field("POD_NAME", "metadata.name"),
            field("POD_UID", "metadata.uid"),
            plain("ROTA_ENDPOINT", self.options.endpoint.clone()),
            plain("ROTA_NAMESPACE", self.agent.namespace().unwrap_or_default()),
            plain("ROTA_CA", format!("{CA_PATH}/ca.crt")),
            plain("ROTA_TOKEN_FILE", format!("{TOKEN_PATH}/token")),
            // The root file system cannot be written to.
            plain("HOME", STATE_PATH.to_owned()),
        ];
        all.extend(collector.map(|(name, value)| plain(name, value.clone())));
        all
    }

    fn volumes(&self) -> Vec<Volume> {
        let volume = |name: &str| Volume { name: name.to_owned(), ..Default::default() };
        let token = VolumeProjection {
            service_account_token: Some(ServiceAccountTokenProjection {
                audience: Some(AUDIENCE.to_owned()),
                expiration_seconds: Some(TOKEN_LIFE),
                path: "token".to_owned(),
            }),
            ..Default::default()
        };
        let projected = |sources| ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(sources) };
        let mut volumes = vec![
            Volume {
                config_map: Some(ConfigMapVolumeSource {
                    name: CA_CONFIG_MAP.to_owned(),
                    ..Default::default()
                }),
                ..volume("ca")
            },
            Volume { projected: Some(projected(vec![token])), ..volume("token") },
            Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..volume("state") },
            Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..volume("tmp") },
        ];
        if !self.agent.spec.secrets.is_empty() {
            let secrets = self.agent.spec.secrets.iter().map(|one| VolumeProjection {
                secret: Some(SecretProjection {
                    name: one.secret_name.clone(),
                    items: Some(vec![KeyToPath { key: one.key.clone(), path: one.name.clone(), mode: None }]),
                    optional: None,
                }),
                ..Default::default()
            });
            volumes.push(Volume { projected: Some(projected(secrets.collect())), ..volume("secrets") });
        }
        volumes
    }
}

/// `{agent}-`: with the five characters that a cluster appends, no longer than a worker's name may be.
fn stem(agent: &str) -> String {
    format!("{}-", agent[..agent.floor_char_boundary(57)].trim_end_matches(['-', '.']))
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..Default::default()
    }
}

/// A part that is Kubernetes' own, as its type.
fn read<T: DeserializeOwned>(field: &str, json: &Json) -> Result<T, Malformed> {
    serde_json::from_value(serde_json::Value::Object(json.0.clone()))
        .map_err(|error| Malformed(format!("spec.pod.{field}: {error}")))
}

fn list<T: DeserializeOwned>(field: &str, list: &[Json]) -> Result<Vec<T>, Malformed> {
    list.iter().enumerate().map(|(at, one)| read(&format!("{field}[{at}]"), one)).collect()
}

/// Of everything in a pod that would have to be made anew to change.
fn hash(spec: &PodSpec, template: &PodTemplate) -> String {
    let all = serde_json::json!([spec, template.labels, template.annotations]);
    hex::encode(&Sha256::digest(all.to_string().as_bytes())[..6])
}

#[cfg(test)]
mod tests;
