//! Builds the pod of a worker from its agent. Pure. Pods have no permission in the cluster, and no token but the one that
//! identifies them to the control plane.

mod inject;
mod overrides;
mod template;

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    KeyToPath, LocalObjectReference, ObjectFieldSelector, Pod, PodSecurityContext, PodSpec, PodTemplateSpec,
    ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretProjection, SecurityContext,
    ServiceAccountTokenProjection, Toleration, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use rota_core::text::prefix;
use rota_crds::resource::{Agent, Task};
use rota_crds::{ImagePullPolicy, Json, PodOverrides, PodTemplate, RESERVED_PREFIX};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use self::template::Parts;
use crate::WorkerOptions;
use crate::cluster::{AGENT, ROLE, SLOTS, SPEC_HASH, TASK_UID, labels};

/// Name of the container that runs the worker.
pub(super) const CONTAINER_NAME: &str = "worker";
/// Time for a deleted pod to finish its tasks, unless its agent sets another.
const DEFAULT_GRACE_PERIOD: Duration = Duration::from_secs(600);
/// Part of the grace period reserved for stopping unfinished tasks: their programs, and what they left.
const STOP_RESERVE: Duration = Duration::from_secs(45);
const CA_PATH: &str = "/var/run/rota/ca";
const TOKEN_PATH: &str = "/var/run/rota/token";
const SECRETS_PATH: &str = "/var/run/rota/secrets";
const STATE_PATH: &str = "/var/lib/rota";
/// Time for which workers keep their attempts without the control plane, unless a template sets another. Its replacement waits
/// for the volume of a lost node: evicted after 5 minutes, detached after 6 more, and often only once a person acts.
const ORPHAN_TIMEOUT: (&str, &str) = ("ROTA_WORKER_ORPHAN_TIMEOUT", "2h");
const TOKEN_LIFETIME_SECONDS: i64 = 3600;
/// Audience of the workers' tokens.
const TOKEN_AUDIENCE: &str = "rota";

/// Input of a pod spec.
pub(crate) struct PodSpecInput<'a> {
    pub agent: &'a Agent,
    pub options: &'a WorkerOptions,
    /// Task that the pod is limited to.
    pub task: Option<TaskPod<'a>>,
}

/// Task with a pod of its own.
#[derive(Clone, Copy)]
pub(crate) struct TaskPod<'a> {
    pub id: &'a str,
    /// Resource of the task; tasks created through the API have none.
    pub resource: Option<&'a Task>,
}

/// Field of an agent that is not valid Kubernetes, or of a task that it must not have, with the cause.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidPod(pub String);

impl PodSpecInput<'_> {
    /// Builds the pod. Its name is the agent's with a suffix that the cluster generates.
    pub(crate) fn pod(&self) -> Result<Pod, InvalidPod> {
        let parts = self.parts()?;
        let hash = hash(&parts);
        let mut own = labels("worker");
        own.insert(AGENT.to_owned(), self.agent.name_any());
        own.insert(ROLE.to_owned(), "worker".to_owned());
        own.insert(SPEC_HASH.to_owned(), hash);
        own.insert(SLOTS.to_owned(), self.slots().to_string());
        if let Some(task) = self.task {
            own.insert(TASK_UID.to_owned(), task.id.to_owned());
        }
        // Labels of the agent never override those that the operator relies on.
        let mut labels = parts.labels.into_iter().chain(own).collect();
        self.options.class.label(&mut labels);
        let annotations = (!parts.annotations.is_empty()).then_some(parts.annotations);
        Ok(Pod {
            metadata: ObjectMeta {
                generate_name: Some(name_prefix(&self.agent.name_any())),
                namespace: self.agent.namespace(),
                labels: Some(labels),
                annotations,
                owner_references: self.owner().map(|owner| vec![owner]),
                ..Default::default()
            },
            spec: Some(parts.spec),
            ..Default::default()
        })
    }

    /// Returns the hash in the label of pods created now. Pods with another hash are outdated.
    pub(crate) fn hash(&self) -> Result<String, InvalidPod> {
        Ok(hash(&self.parts()?))
    }

    /// Returns the owner: a task's own pod is deleted with the task, others with their agent.
    fn owner(&self) -> Option<OwnerReference> {
        match self.task.and_then(|task| task.resource) {
            Some(task) => task.controller_owner_ref(&()),
            None => self.agent.controller_owner_ref(&()),
        }
    }

    fn template(&self) -> PodTemplate {
        self.agent.spec.pod.clone().unwrap_or_default()
    }

    /// Returns the overrides of the task. They are checked here, too: a caller of the API can name a resource that was refused, or
    /// has not been checked yet.
    fn overrides(&self) -> Result<PodOverrides, InvalidPod> {
        let resource = self.task.and_then(|task| task.resource);
        let overrides = resource.and_then(|task| task.spec.pod_overrides.clone()).unwrap_or_default();
        let violations: Vec<_> = overrides.validate().iter().map(ToString::to_string).collect();
        if violations.is_empty() { Ok(overrides) } else { Err(InvalidPod(violations.join("; "))) }
    }

    /// Returns what the pod consists of: the defaults of the installation, then the fields of the agent, then its template, then
    /// the overrides of the task.
    fn parts(&self) -> Result<Parts, InvalidPod> {
        let template = self.template();
        let own =
            template.template.as_ref().map(|own| read::<PodTemplateSpec>("template", own)).transpose()?;
        let mut parts = Parts::from(self.options.pod_template.clone());
        parts.merge(Parts {
            spec: self.spec(&template)?,
            labels: template.labels,
            annotations: template.annotations,
        });
        parts.merge(own.unwrap_or_default().into());
        overrides::apply(&self.overrides()?, &mut parts)?;
        let grace =
            parts.spec.termination_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let grace = grace.map_or(DEFAULT_GRACE_PERIOD, Duration::from_secs);
        parts.spec.termination_grace_period_seconds = i64::try_from(grace.as_secs()).ok();
        if parts.worker().is_some_and(|worker| inject::is_needed(worker, self.options)) {
            inject::add(&mut parts, self.options);
        }
        if let Some(worker) = parts.worker() {
            worker.command.get_or_insert_with(|| vec!["rota".to_owned()]);
            let environment = worker.env.get_or_insert_default();
            let (name, value) = ORPHAN_TIMEOUT;
            if environment.iter().all(|variable| variable.name != name) {
                environment.push(plain(name, value.to_owned()));
            }
            let mut arguments = self.arguments(grace);
            // Attempts are confined: what is mounted for them must be opened.
            let mounts = worker.volume_mounts.iter().flatten();
            let own = mounts.filter(|mount| !mount.name.starts_with(RESERVED_PREFIX));
            arguments.extend(own.flat_map(|mount| {
                let flag = if mount.read_only == Some(true) { "--allow-read" } else { "--allow-write" };
                [flag.to_owned(), mount.mount_path.clone()]
            }));
            worker.args = Some(arguments);
        }
        Ok(parts)
    }

    fn spec(&self, template: &PodTemplate) -> Result<PodSpec, InvalidPod> {
        let grace = template.termination_grace_period.and_then(|grace| i64::try_from(grace.0.as_secs()).ok());
        let tolerations: Vec<Toleration> = list("tolerations", &template.tolerations)?;
        let mut volumes = self.volumes();
        volumes.extend(list::<Volume>("volumes", &template.volumes)?);
        let affinity: Option<Affinity> =
            template.affinity.as_ref().map(|affinity| read("affinity", affinity)).transpose()?;
        let node_selector = template.node_selector.clone();
        let image_pull_secrets: Vec<_> = template
            .image_pull_secrets
            .iter()
            .map(|secret| LocalObjectReference { name: secret.name.clone() })
            .collect();
        Ok(PodSpec {
            containers: vec![self.container(template)?],
            volumes: Some(volumes),
            // A replacement is a new pod: a restart within the pod would hide that the worker failed.
            restart_policy: Some("Never".to_owned()),
            termination_grace_period_seconds: grace,
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            service_account_name: template.service_account_name.clone(),
            node_selector: (!node_selector.is_empty()).then_some(node_selector),
            tolerations: (!tolerations.is_empty()).then_some(tolerations),
            affinity,
            image_pull_secrets: (!image_pull_secrets.is_empty()).then_some(image_pull_secrets),
            runtime_class_name: template.runtime_class_name.clone(),
            priority_class_name: template.priority_class_name.clone(),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: self.options.user_id,
                run_as_group: self.options.user_id,
                fs_group: self.options.user_id,
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    fn container(&self, template: &PodTemplate) -> Result<Container, InvalidPod> {
        let resources: Option<ResourceRequirements> =
            template.resources.as_ref().map(|resources| read("resources", resources)).transpose()?;
        let mut mounts = vec![
            mount("rota-ca", CA_PATH, true),
            mount("rota-token", TOKEN_PATH, true),
            mount("rota-state", STATE_PATH, false),
            mount("rota-tmp", "/tmp", false),
        ];
        if !self.agent.spec.secrets.is_empty() {
            mounts.push(mount("rota-secrets", SECRETS_PATH, true));
        }
        mounts.extend(list::<VolumeMount>("volumeMounts", &template.volume_mounts)?);
        let policy = template.image_pull_policy.map(ImagePullPolicy::as_str).map(str::to_owned);
        Ok(Container {
            name: CONTAINER_NAME.to_owned(),
            image: Some(template.image.clone().unwrap_or_else(|| self.options.image.clone())),
            image_pull_policy: policy.or_else(|| self.options.image_pull_policy.clone()),
            command: (!template.command.is_empty()).then(|| template.command.clone()),
            env: Some(self.environment()),
            resources,
            volume_mounts: Some(mounts),
            // The end of the log is the first thing users need when a worker fails.
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            security_context: Some(security_context()),
            ..Default::default()
        })
    }

    fn arguments(&self, grace: Duration) -> Vec<String> {
        let drain = grace.saturating_sub(STOP_RESERVE).max(grace / 2);
        let mut arguments: Vec<String> = ["worker", "--worker", "$(POD_NAME)", "--instance", "$(POD_UID)"]
            .into_iter()
            .map(str::to_owned)
            .collect();
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        add("--agent", self.agent.name_any());
        add("--slots", self.slots().to_string());
        add("--state-dir", STATE_PATH.to_owned());
        add("--drain-timeout", format!("{}s", drain.as_secs()));
        if !self.agent.spec.secrets.is_empty() {
            add("--secrets-dir", SECRETS_PATH.to_owned());
        }
        if let Some(task) = self.task {
            add("--isolated-task", task.id.to_owned());
        }
        arguments
    }

    fn slots(&self) -> i32 {
        if self.task.is_some() { 1 } else { self.agent.spec.slots.unwrap_or(1).max(1) }
    }

    fn environment(&self) -> Vec<EnvVar> {
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
            // The root file system is read-only.
            plain("HOME", STATE_PATH.to_owned()),
        ];
        all.extend(collector.map(|(name, value)| plain(name, value.clone())));
        all
    }

    fn volumes(&self) -> Vec<Volume> {
        let volume = |name: &str| Volume { name: name.to_owned(), ..Default::default() };
        let token = VolumeProjection {
            service_account_token: Some(ServiceAccountTokenProjection {
                audience: Some(TOKEN_AUDIENCE.to_owned()),
                expiration_seconds: Some(TOKEN_LIFETIME_SECONDS),
                path: "token".to_owned(),
            }),
            ..Default::default()
        };
        let projected = |sources| ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(sources) };
        let mut volumes = vec![
            Volume {
                config_map: Some(ConfigMapVolumeSource {
                    name: self.options.class.authority_name(),
                    ..Default::default()
                }),
                ..volume("rota-ca")
            },
            Volume { projected: Some(projected(vec![token])), ..volume("rota-token") },
            Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..volume("rota-state") },
            Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..volume("rota-tmp") },
        ];
        if !self.agent.spec.secrets.is_empty() {
            let secrets = self.agent.spec.secrets.iter().map(|secret| VolumeProjection {
                secret: Some(SecretProjection {
                    name: secret.secret_name.clone(),
                    items: Some(vec![KeyToPath {
                        key: secret.key.clone(),
                        path: secret.name.clone(),
                        mode: None,
                    }]),
                    optional: None,
                }),
                ..Default::default()
            });
            volumes.push(Volume { projected: Some(projected(secrets.collect())), ..volume("rota-secrets") });
        }
        volumes
    }
}

/// Returns `{agent}-`, short enough for a worker's name with the five characters that the cluster appends.
fn name_prefix(agent: &str) -> String {
    format!("{}-", prefix(agent, 57).trim_end_matches(['-', '.']))
}

/// Returns the rights of a container: those that the restricted Pod Security Standard allows.
fn security_context() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..Default::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..Default::default()
    }
}

/// Reads a verbatim field as its Kubernetes type.
fn read<T: DeserializeOwned>(field: &str, json: &Json) -> Result<T, InvalidPod> {
    serde_json::from_value(serde_json::Value::Object(json.0.clone()))
        .map_err(|error| InvalidPod(format!("spec.pod.{field}: {error}")))
}

fn list<T: DeserializeOwned>(field: &str, list: &[Json]) -> Result<Vec<T>, InvalidPod> {
    list.iter().enumerate().map(|(index, item)| read(&format!("{field}[{index}]"), item)).collect()
}

fn plain(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), value_from: None }
}

/// Hashes everything in a pod that only a new pod can change.
fn hash(parts: &Parts) -> String {
    let all = serde_json::json!([parts.spec, parts.labels, parts.annotations]);
    hex::encode(&Sha256::digest(all.to_string().as_bytes())[..6])
}

#[cfg(test)]
pub(super) mod tests;
