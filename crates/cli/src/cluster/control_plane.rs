//! What a cluster knows of a control plane: its Service, the pods behind it, and the Secrets that they use.

use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use secrecy::SecretString;

use super::access::Access;
use super::failed;
use crate::exit::{Exit, Failure};

/// Labels of the Service in the chart, without its release.
const LABELS: &str = "app.kubernetes.io/name=rota,app.kubernetes.io/component=server";
const RELEASE: &str = "app.kubernetes.io/instance";
/// Port of the API in the Service of the chart.
const PORT: &str = "grpc";
/// Volumes of the pod in the chart, with the Secrets of the certificate, of admins and of viewers.
const CERTIFICATE: &str = "tls";
const ADMINS: &str = "admin";
const VIEWERS: &str = "viewers";

/// A control plane that was found.
#[derive(Debug)]
pub(super) struct ControlPlane {
    name: String,
    namespace: String,
    selector: String,
    /// Port in the pods, by number or by its name there.
    port: IntOrString,
}

impl ControlPlane {
    /// Finds the only control plane that an address can mean. A user who may not list the Services of the cluster has the namespace
    /// of the kubeconfig.
    pub(super) async fn find(client: &Client, access: &Access, own: &str) -> Result<Self, Failure> {
        let release = access.release.as_ref().map(|release| format!(",{RELEASE}={release}"));
        let wanted = ListParams::default().labels(&format!("{LABELS}{}", release.unwrap_or_default()));
        let within = async |namespace: &str| {
            let services: Api<Service> = Api::namespaced(client.clone(), namespace);
            services.list(&wanted).await.map_err(|error| {
                let action = format!("find the control plane in the namespace {namespace}");
                let failure = failed(&error, &action, &format!("list services -n {namespace}"));
                match access.namespace {
                    Some(_) => failure,
                    None => failure.hint("name the namespace of the release with --kube-namespace"),
                }
            })
        };
        let (found, place) = match &access.namespace {
            Some(namespace) => (within(namespace).await?, format!("the namespace {namespace}")),
            None => match Api::<Service>::all(client.clone()).list(&wanted).await {
                Err(kube::Error::Api(status)) if status.is_forbidden() => {
                    (within(own).await?, format!("the namespace {own}, and others may not be searched"))
                }
                Err(error) => {
                    return Err(failed(&error, "find the control plane", "list services --all-namespaces"));
                }
                Ok(found) => (found, "the cluster".to_owned()),
            },
        };
        let mut services = found.items.into_iter();
        let Some(service) = services.next() else {
            let message = format!("no Service of a control plane is in {place}");
            let hint = "check --kube-context, --kube-namespace and --kube-release; `helm list --all-namespaces` lists releases";
            return Err(Failure::new(Exit::NotFound, message).hint(hint));
        };
        let others: Vec<_> = services.map(|other| described(&other)).collect();
        if !others.is_empty() {
            let all = [vec![described(&service)], others].concat().join(", ");
            return Err(Failure::usage(format!("several control planes are in {place}: {all}"))
                .hint("choose one with --kube-namespace or --kube-release"));
        }
        Self::of(service)
    }

    fn of(service: Service) -> Result<Self, Failure> {
        let shown = described(&service);
        let unusable = |why: &str| {
            Failure::new(Exit::Failed, format!("the Service {shown} {why}")).hint("reinstall the chart")
        };
        let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
        let spec = service.spec.unwrap_or_default();
        let selector = spec.selector.filter(|selector| !selector.is_empty());
        let selector = selector.ok_or_else(|| unusable("selects no pods"))?;
        let selector: Vec<_> = selector.iter().map(|(label, value)| format!("{label}={value}")).collect();
        let mut ports = spec.ports.unwrap_or_default().into_iter();
        let port = ports.find(|port| port.name.as_deref() == Some(PORT));
        let port = port.ok_or_else(|| unusable("has no port grpc"))?;
        let port = port.target_port.unwrap_or(IntOrString::Int(port.port));
        Ok(Self { name, namespace, selector: selector.join(","), port })
    }

    /// Name of the control plane in its cluster, which its certificate has.
    pub(super) fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    pub(super) fn pods(&self, client: &Client) -> Api<Pod> {
        Api::namespaced(client.clone(), &self.namespace)
    }

    /// Returns the pods that serve, of which there is one at least.
    pub(super) async fn ready_pods(&self, client: &Client) -> Result<Vec<Pod>, Failure> {
        let Self { name, namespace, selector, .. } = self;
        let listed = self.pods(client).list(&ListParams::default().labels(selector)).await;
        let pods = listed.map_err(|error| {
            let action = format!("list the pods of the Service {namespace}/{name}");
            failed(&error, &action, &format!("list pods -n {namespace}"))
        })?;
        let states: Vec<_> = pods.items.iter().map(state).collect();
        let ready: Vec<_> = pods.items.into_iter().filter(is_ready).collect();
        if !ready.is_empty() {
            return Ok(ready);
        }
        let message = format!("no pod of the Service {namespace}/{name} is ready");
        Err(Failure::new(Exit::Unreachable, message)
            .causes(if states.is_empty() { vec!["it has no pods".to_owned()] } else { states })
            .hint(format!("kubectl -n {namespace} describe pods -l {selector}")))
    }

    /// Returns the port of a pod.
    pub(super) fn port(&self, pod: &Pod) -> Result<u16, Failure> {
        let number = match &self.port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
                let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
                ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port)
            }
        };
        number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| {
            let message = format!("the pod {} has no port for the Service {}", pod.name_any(), self.name);
            Failure::new(Exit::Failed, message).hint("reinstall the chart")
        })
    }
}

fn described(service: &Service) -> String {
    format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

/// Returns the name of a pod that is not ready, and the reason.
fn state(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let containers = status.into_iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut waiting = containers.filter_map(|one| one.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let phase = || status.and_then(|status| status.phase.clone()).unwrap_or_else(|| "Unknown".to_owned());
    let reason = match pod.metadata.deletion_timestamp {
        Some(_) => "Terminating".to_owned(),
        None => waiting.next().unwrap_or_else(phase),
    };
    format!("pod {}: {reason}", pod.name_any())
}

/// Secrets of a control plane, which the volumes of its pod name.
pub(super) struct Credentials {
    secrets: Api<Secret>,
    namespace: String,
    pod: Pod,
}

impl Credentials {
    pub(super) fn of(client: &Client, pod: Pod) -> Self {
        let namespace = pod.namespace().unwrap_or_default();
        Self { secrets: Api::namespaced(client.clone(), &namespace), namespace, pod }
    }

    /// Returns the certificates to trust, in PEM.
    pub(super) async fn authority(&self) -> Result<String, Failure> {
        let flag = "--ca";
        let secret = self.secret(CERTIFICATE).ok_or_else(|| self.unmounted(CERTIFICATE, flag))?;
        self.read(secret, "ca.crt", flag).await
    }

    /// Returns the token of admins, or else that of viewers, if the user may read only this one.
    pub(super) async fn token(&self) -> Result<SecretString, Failure> {
        let flag = "--token-file";
        let admins = self.secret(ADMINS).ok_or_else(|| self.unmounted(ADMINS, flag))?;
        let refused = match self.read(admins, "token", flag).await {
            Ok(token) => return Ok(token.into()),
            Err(refused) => refused,
        };
        let Some(viewers) = self.secret(VIEWERS) else { return Err(refused) };
        match self.read(viewers, "token", flag).await {
            Ok(token) => {
                tracing::debug!(secret = viewers, "the token is that of viewers");
                Ok(token.into())
            }
            Err(_) => Err(refused),
        }
    }

    /// Returns the name of the Secret of a volume.
    fn secret(&self, volume: &str) -> Option<&str> {
        let mut volumes = self.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        volumes.find(|one| one.name == volume)?.secret.as_ref()?.secret_name.as_deref()
    }

    fn unmounted(&self, volume: &str, flag: &str) -> Failure {
        let message = format!("the pod {} has no Secret as its volume {volume}", self.pod.name_any());
        Failure::new(Exit::Failed, message).hint(format!("reinstall the chart, or set {flag}"))
    }

    async fn read(&self, secret: &str, key: &str, flag: &str) -> Result<String, Failure> {
        let Self { namespace, .. } = self;
        let read = self.secrets.get(secret).await.map_err(|error| {
            let action = format!("read the Secret {namespace}/{secret}");
            let failure = failed(&error, &action, &format!("get secrets/{secret} -n {namespace}"));
            match failure.hint.clone() {
                Some(hint) => failure.hint(format!("{hint}; or set {flag}")),
                None => failure,
            }
        })?;
        let value = read.data.unwrap_or_default().remove(key);
        let text = value.and_then(|value| String::from_utf8(value.0).ok());
        let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        text.ok_or_else(|| {
            let message = format!("the Secret {namespace}/{secret} has no entry {key}");
            Failure::new(Exit::Failed, message)
                .hint(format!("wait until the operator has written it, or set {flag}"))
        })
    }
}
