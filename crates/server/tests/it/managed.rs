//! Records that the operator of a cluster manages are changed by that operator only.

use anyhow::Result;
use pbjson_types::FieldMask;
use rota_proto::labels::CLUSTER;
use rota_proto::names;
use rota_proto::v1::{self, DesiredState, TaskState};
use rota_testkit::client::Code;
use rota_testkit::{Backend, Cluster, tasks};

fn labels(cluster: &str) -> std::collections::BTreeMap<String, String> {
    [(CLUSTER.to_owned(), cluster.to_owned())].into()
}

fn update(name: &str, cluster: Option<&str>, change: v1::Task, path: &str) -> v1::UpdateTaskRequest {
    let labels = cluster.map(labels).unwrap_or_default();
    v1::UpdateTaskRequest {
        task: Some(v1::Task { name: name.into(), labels, ..change }),
        update_mask: Some(FieldMask { paths: vec![path.into()] }),
        ..Default::default()
    }
}

#[tokio::test]
async fn tasks_of_a_cluster_are_changed_by_its_operator_only() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let task = v1::Task { labels: labels("c1"), alias: "build".into(), ..tasks::task("absent") };
    let name = tasks::create(client, task).await?.name;
    let suspended = || v1::Task { desired_state: DesiredState::Suspended.into(), ..Default::default() };
    let urgent = || v1::Task { priority: Some(9), ..Default::default() };
    for (caller, change, path) in [
        (None, suspended(), "desired_state"),
        (None, urgent(), "priority"),
        (None, v1::Task::default(), "labels"),
        (Some("c2"), urgent(), "priority"),
    ] {
        let refused = client.update_task(update(&name, caller, change, path)).await.unwrap_err();
        assert_eq!(refused.code, Code::FailedPrecondition);
        assert_eq!(refused.reason.as_deref(), Some("MANAGED_BY_CLUSTER"), "{caller:?} {path}: {refused}");
        assert!(refused.hint.unwrap().contains("kubectl -n default patch task build"));
    }
    client.update_task(update(&name, Some("c1"), suspended(), "desired_state")).await?;
    assert_eq!(tasks::get(client, &name).await?.desired_state(), DesiredState::Suspended);
    // A cancellation is never undone, so that it is possible for all.
    let cancelled = v1::Task { desired_state: DesiredState::Cancelled.into(), ..Default::default() };
    client.update_task(update(&name, None, cancelled, "desired_state")).await?;
    assert_eq!(tasks::ended(client, &name).await?.status.unwrap().state(), TaskState::Cancelled);
    // A copy has no resource: its cluster would cancel it.
    let again = client.retry_task(v1::RetryTaskRequest { name, ..Default::default() }).await?;
    assert!(!again.labels.contains_key(CLUSTER));
    client.update_task(update(&again.name, None, urgent(), "priority")).await?;
    Ok(())
}

#[tokio::test]
async fn agents_of_a_cluster_are_changed_by_its_operator_only() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let update = |cluster: Option<&str>, slots, mask: &[&str]| {
        let spec = v1::AgentSpec { runtime: Some(tasks::script([])), slots, ..Default::default() };
        let agent = v1::Agent {
            name: names::agent(tasks::NAMESPACE, "coder"),
            spec: Some(spec),
            labels: cluster.map(labels).unwrap_or_default(),
            ..Default::default()
        };
        let paths: Vec<_> = mask.iter().map(ToString::to_string).collect();
        let update_mask = (!paths.is_empty()).then_some(FieldMask { paths });
        client.update_agent(v1::UpdateAgentRequest {
            agent: Some(agent),
            allow_missing: true,
            update_mask,
            ..Default::default()
        })
    };
    update(None, 1, &[]).await?;
    // An operator takes over an agent without a cluster.
    update(Some("c1"), 2, &[]).await?;
    for (caller, mask) in [(None, &[][..]), (None, &["spec.slots"]), (Some("c2"), &[])] {
        let refused = update(caller, 3, mask).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some("MANAGED_BY_CLUSTER"), "{caller:?}: {refused}");
        assert!(refused.hint.unwrap().contains("kubectl -n default edit agent coder"));
    }
    assert_eq!(update(Some("c1"), 4, &[]).await?.spec.unwrap().slots, 4);
    let delete = |force| {
        let name = names::agent(tasks::NAMESPACE, "coder");
        client.delete_agent(v1::DeleteAgentRequest { name, force, ..Default::default() })
    };
    let refused = delete(false).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("MANAGED_BY_CLUSTER"), "{refused}");
    assert!(refused.hint.unwrap().contains("kubectl -n default delete agent coder"));
    delete(true).await?;
    Ok(())
}

#[tokio::test]
async fn schedules_of_a_cluster_are_changed_by_its_operator_only() -> Result<()> {
    const NAME: &str = "namespaces/default/schedules/nightly";
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let update = |cluster: Option<&str>, cron: &str, mask: &[&str]| {
        let spec = v1::ScheduleSpec {
            cron: cron.to_owned(),
            task: Some(tasks::task("absent")),
            paused: Some(true),
            ..Default::default()
        };
        let labels = cluster.map(labels).unwrap_or_default();
        let schedule = v1::Schedule { name: NAME.to_owned(), spec: Some(spec), labels, ..Default::default() };
        let paths: Vec<_> = mask.iter().map(ToString::to_string).collect();
        let update_mask = (!paths.is_empty()).then_some(FieldMask { paths });
        client.update_schedule(v1::UpdateScheduleRequest {
            schedule: Some(schedule),
            allow_missing: true,
            update_mask,
            ..Default::default()
        })
    };
    update(Some("c1"), "0 3 * * *", &[]).await?;
    for (caller, mask) in [(None, &[][..]), (None, &["spec.paused"]), (None, &["labels"]), (Some("c2"), &[])]
    {
        let refused = update(caller, "0 4 * * *", mask).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some("MANAGED_BY_CLUSTER"), "{caller:?}: {refused}");
        assert!(refused.hint.unwrap().contains("kubectl -n default edit schedules.rota.dev nightly"));
    }
    let changed = update(Some("c1"), "0 5 * * *", &[]).await?;
    assert_eq!((changed.spec.unwrap().cron.as_str(), changed.generation), ("0 5 * * *", 2));
    let delete = v1::DeleteScheduleRequest { name: NAME.to_owned(), ..Default::default() };
    let refused = client.delete_schedule(delete).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("MANAGED_BY_CLUSTER"), "{refused}");
    // Its runs have no resource, and belong to no cluster.
    let run = v1::RunScheduleRequest { name: NAME.to_owned(), ..Default::default() };
    let task = client.run_schedule(run).await?.task.unwrap();
    assert!(!task.labels.contains_key(CLUSTER));
    Ok(())
}
