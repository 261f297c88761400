//! What is done about an `Agent`: calls and pods, each safe to repeat.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use rota_client::Code;
use rota_crds::resource::Agent;
use rota_proto::{names, v1};

use super::dereference::Member;
use super::pod::Recipe;
use super::status::Trouble;
use crate::cluster::{self, CA_CONFIG_MAP, CLUSTER, MANAGER, labels};
use crate::context::Context;
use crate::controller::{Failure, sentence};

/// What became of starting a worker.
pub(super) enum Started {
    /// Its name and uid.
    Pod(String, String),
    /// The cluster does not allow it, which a person has to look at.
    Refused(Trouble),
}

/// Tells the control plane what the agent is. `Some` when it refuses that.
pub(super) async fn register(context: &Context, agent: &Agent) -> Result<Option<Trouble>, Failure> {
    let mut request = agent.to_request();
    if let Some(agent) = &mut request.agent {
        agent.labels.insert(CLUSTER.to_owned(), context.cluster.to_string());
    }
    match context.control.update_agent(request).await {
        Ok(_) => Ok(None),
        Err(error) if matches!(error.code, Code::InvalidArgument | Code::FailedPrecondition) => {
            Ok(Some(Trouble::new("Refused", sentence(&error))))
        }
        Err(error) => Err(error.into()),
    }
}

/// Lets the pods of a namespace know which authority to trust.
pub(super) async fn authority(context: &Context, namespace: &str, authority: &str) -> Result<(), Failure> {
    let maps: Api<ConfigMap> = Api::namespaced(context.kube.clone(), namespace);
    let there = maps.get_opt(CA_CONFIG_MAP).await?;
    let known = there.as_ref().and_then(|map| map.data.as_ref()?.get("ca.crt"));
    if known.is_some_and(|known| known == authority) {
        return Ok(());
    }
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(CA_CONFIG_MAP.to_owned()),
            labels: Some(labels("trust")),
            ..Default::default()
        },
        data: Some([("ca.crt".to_owned(), authority.to_owned())].into()),
        ..Default::default()
    };
    maps.patch(CA_CONFIG_MAP, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&map)).await?;
    Ok(())
}

/// Starts a worker.
pub(super) async fn start(context: &Context, recipe: &Recipe<'_>) -> Result<Started, Failure> {
    let pod = match recipe.pod() {
        Ok(pod) => pod,
        Err(malformed) => return Ok(Started::Refused(Trouble::new("InvalidSpec", malformed.0))),
    };
    let pods: Api<Pod> = Api::namespaced(context.kube.clone(), &pod.namespace().unwrap_or_default());
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
    match pods.create(&params, &pod).await {
        Ok(made) => {
            tracing::info!(pod = made.name_any(), "a worker is started");
            Ok(Started::Pod(made.name_any(), made.uid().unwrap_or_default()))
        }
        // A quota, an admission rule, or a spec that no pod can have.
        Err(kube::Error::Api(status))
            if matches!(status.code, 403 | 422) && !cluster::is_leaving(&status) =>
        {
            let reason =
                if status.message.contains("exceeded quota") { "QuotaExceeded" } else { "PodRefused" };
            Ok(Started::Refused(Trouble::new(reason, status.message.clone())))
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes a pod that has ended, after it was told that its worker is certainly gone.
pub(super) async fn bury(context: &Context, namespace: &str, member: &Member) -> Result<(), Failure> {
    let message = member.trouble.as_ref().map_or("its pod has ended", |(_, message)| message.as_str());
    let request = v1::ReportWorkerDeathRequest {
        name: names::worker(namespace, &member.name),
        instance: member.uid.clone(),
        message: message[..message.floor_char_boundary(1000)].to_owned(),
    };
    match context.control.report_worker_death(request).await {
        Ok(_) => {}
        Err(error) if error.code == Code::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    remove(context, namespace, member).await
}

/// Removes a pod: this one, and not another of its name.
pub(super) async fn remove(context: &Context, namespace: &str, member: &Member) -> Result<(), Failure> {
    let pods: Api<Pod> = Api::namespaced(context.kube.clone(), namespace);
    Ok(cluster::remove(&pods, &member.name, &member.uid, DeleteParams::default()).await?)
}

/// Lets a worker take nothing new. With `only_idle`, only if it has nothing now: the control plane
/// knows, and decides in the same moment.
pub(super) async fn drain(
    context: &Context,
    name: &str,
    worker: &str,
    only_idle: bool,
) -> Result<(), Failure> {
    let request = v1::DrainAgentRequest { name: name.to_owned(), worker: worker.to_owned(), only_idle };
    match context.control.drain_agent(request).await {
        Ok(answer) => {
            tracing::info!(
                worker,
                only_idle,
                drained = !answer.workers.is_empty(),
                "a worker was asked to drain"
            );
            Ok(())
        }
        Err(error) if error.code == Code::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Says which workers may join.
pub(super) async fn announce(context: &Context, name: &str, set: &[(String, String)]) -> Result<(), Failure> {
    let workers = set
        .iter()
        .map(|(worker, instance)| v1::AnnouncedWorker { worker: worker.clone(), instance: instance.clone() })
        .collect();
    context.control.announce_workers(v1::AnnounceWorkersRequest { name: name.to_owned(), workers }).await?;
    Ok(())
}

/// Says why workers do not start, so that the tasks that wait for them can say it too.
pub(super) async fn report(context: &Context, name: &str, message: &str) -> Result<(), Failure> {
    let message = message[..message.floor_char_boundary(1000)].to_owned();
    context.control.report_agent(v1::ReportAgentRequest { name: name.to_owned(), message }).await?;
    Ok(())
}

/// Takes the agent back. Its workers are drained by that.
pub(super) async fn forget(context: &Context, name: &str) -> Result<(), Failure> {
    let request = v1::DeleteAgentRequest { name: name.to_owned(), allow_missing: true };
    context.control.delete_agent(request).await?;
    Ok(())
}
