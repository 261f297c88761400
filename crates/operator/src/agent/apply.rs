//! Effects of reconciling an `Agent`: API calls and pods. Every call may be repeated.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::Status;
use rota_client::Code;
use rota_core::text::prefix;
use rota_crds::resource::Agent;
use rota_proto::{names, v1};
use rota_telemetry::clock;
use serde_json::json;

use super::dereference::WorkerPod;
use super::origin::{self, Creation};
use super::pod::PodSpecInput;
use super::start_failure::StartFailure;
use crate::cluster::{self, CLUSTER, MANAGER};
use crate::context::Context;
use crate::error::{ReconcileError, rejection_message};

/// Bytes of a message that the control plane accepts.
const MAX_MESSAGE_BYTES: usize = 1000;

/// Outcome of creating a worker pod.
pub(super) enum PodCreation {
    Created(Box<Pod>),
    /// The cluster rejected the pod; a user has to act.
    Rejected(StartFailure),
}

/// Registers the agent with the control plane. Returns the reason if it is rejected.
pub(super) async fn register(
    context: &Context,
    agent: &Agent,
) -> Result<Option<StartFailure>, ReconcileError> {
    let mut request = agent.to_request();
    if let Some(agent) = &mut request.agent {
        agent.labels.insert(CLUSTER.to_owned(), context.cluster.to_string());
    }
    match context.control.update_agent(request).await {
        Ok(_) => Ok(None),
        Err(error) if matches!(error.code, Code::InvalidArgument | Code::FailedPrecondition) => {
            Ok(Some(StartFailure::new("Rejected", rejection_message(&error))))
        }
        Err(error) => Err(error.into()),
    }
}

/// Creates a worker pod, whose name the cluster generates.
pub(super) async fn create_pod(
    context: &Context,
    input: &PodSpecInput<'_>,
) -> Result<PodCreation, ReconcileError> {
    let pod = match input.pod() {
        Ok(pod) => pod,
        Err(invalid) => return Ok(PodCreation::Rejected(StartFailure::invalid_spec(invalid.0))),
    };
    let pods: Api<Pod> = Api::namespaced(context.kube.clone(), &pod.namespace().unwrap_or_default());
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
    match pods.create(&params, &pod).await {
        Ok(created) => {
            tracing::info!(pod = created.name_any(), "created worker pod");
            Ok(PodCreation::Created(Box::new(created)))
        }
        // A quota, an admission policy or webhook, or a spec that no pod can have.
        Err(kube::Error::Api(status)) if is_refusal(&status) => {
            let reason =
                if status.message.contains("exceeded quota") { "QuotaExceeded" } else { "FailedCreate" };
            Ok(PodCreation::Rejected(StartFailure::new(reason, status.message.clone())))
        }
        Err(error) => Err(error.into()),
    }
}

/// Records that the operator has created a pod. Returns whether the pod exists.
pub(super) async fn record_creation(
    context: &Context,
    namespace: &str,
    creation: &Creation,
) -> Result<bool, ReconcileError> {
    let pods: Api<Pod> = Api::namespaced(context.kube.clone(), namespace);
    let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH);
    // The UID makes the write fail for a newer pod of the same name.
    let patch = json!({
        "metadata": { "uid": creation.uid },
        "status": { "conditions": [origin::condition(&creation.labels, now)] },
    });
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match pods.patch_status(&creation.name, &params, &Patch::Strategic(&patch)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        // A newer pod has its name, or another client has written it at the same time.
        Err(error) if cluster::is_deleted(&error) => {
            let named = ListParams::default().fields(&format!("metadata.name={}", creation.name));
            let found = pods.list_metadata(&named).await?;
            match found.items.iter().any(|pod| pod.metadata.uid.as_ref() == Some(&creation.uid)) {
                true => Err(error.into()),
                false => Ok(false),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns whether the cluster refuses a pod, as opposed to a failure that passes. Webhooks deny with any code, 400 by
/// default; one that cannot be reached is an internal error that names it.
fn is_refusal(status: &Status) -> bool {
    if cluster::is_namespace_terminating(status) {
        return false;
    }
    match status.code {
        401 | 404 | 408 | 409 | 429 => false,
        400..=499 => true,
        _ => status.message.contains("webhook"),
    }
}

/// Reports to the control plane that a worker is certainly dead, and why.
pub(super) async fn report_death(
    context: &Context,
    namespace: &str,
    pod: &WorkerPod,
) -> Result<(), ReconcileError> {
    let message = pod.start_failure.as_ref().map_or_else(
        || "the worker pod terminated".to_owned(),
        |failure| match failure.message.contains(&failure.reason) {
            true => failure.message.clone(),
            false => format!("{}: {}", failure.reason, failure.message),
        },
    );
    let request = v1::ReportWorkerDeathRequest {
        name: names::worker(namespace, &pod.name),
        instance: pod.uid.clone(),
        message: prefix(&message, MAX_MESSAGE_BYTES).to_owned(),
        disrupted: pod.is_disrupted,
        node_pressure: pod.is_under_pressure,
    };
    match context.control.report_worker_death(request).await {
        Ok(_) => Ok(()),
        Err(error) if error.code == Code::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Deletes this pod, not a newer one of the same name. Without a grace period, it has its own. Returns whether it was there.
pub(super) async fn delete_pod(
    context: &Context,
    namespace: &str,
    pod: &WorkerPod,
    grace_seconds: Option<u32>,
) -> Result<bool, ReconcileError> {
    let pods: Api<Pod> = Api::namespaced(context.kube.clone(), namespace);
    let params = DeleteParams { grace_period_seconds: grace_seconds, ..DeleteParams::default() };
    Ok(cluster::delete(&pods, &pod.name, &pod.uid, params).await?)
}

/// Drains a worker. With `only_idle`, only if it runs nothing: the control plane checks and decides atomically.
pub(super) async fn drain(
    context: &Context,
    name: &str,
    worker: &str,
    only_idle: bool,
    reason: &str,
) -> Result<(), ReconcileError> {
    let request = v1::DrainAgentRequest { name: name.to_owned(), worker: worker.to_owned(), only_idle };
    match context.control.drain_agent(request).await {
        Ok(answer) => {
            let drained = !answer.workers.is_empty();
            tracing::info!(worker, only_idle, drained, reason, "requested drain");
            Ok(())
        }
        Err(error) if error.code == Code::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Announces the workers that may join.
pub(super) async fn announce(
    context: &Context,
    name: &str,
    workers: Vec<v1::AnnouncedWorker>,
) -> Result<(), ReconcileError> {
    context.control.announce_workers(v1::AnnounceWorkersRequest { name: name.to_owned(), workers }).await?;
    Ok(())
}

/// Deletes the agent from the control plane, which drains its workers.
pub(super) async fn unregister(context: &Context, name: &str) -> Result<(), ReconcileError> {
    let request = v1::DeleteAgentRequest {
        name: name.to_owned(),
        allow_missing: true,
        force: true,
        ..Default::default()
    };
    context.control.delete_agent(request).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admission_denials_of_any_code_are_refusals() {
        let status = |code, message: &str| Status { code, ..Status::failure(message, "") };
        for code in [400, 403, 413, 422] {
            assert!(is_refusal(&status(code, "admission webhook \"x\" denied the request")), "{code}");
        }
        assert!(is_refusal(&status(500, "Internal error occurred: failed calling webhook \"x\"")));
        for code in [401, 404, 409, 429, 500, 503] {
            assert!(!is_refusal(&status(code, "etcdserver: request timed out")), "{code}");
        }
    }
}
