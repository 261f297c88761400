//! The operator of a cluster has to do with the tasks of clusters only.

use anyhow::{Context, Result};
use futures::StreamExt;
use jsonwebtoken::Algorithm;
use rota_proto::labels::CLUSTER;
use rota_proto::names;
use rota_proto::v1::{self, TaskState};
use rota_testkit::client::{Client, Code};
use rota_testkit::{Backend, tasks};

use super::issuer::{Issuer, Key, OPERATOR};
use super::oidc::{bearer, start_cluster};

/// Makes a task one of a resource of a cluster.
pub(super) fn of_cluster(mut task: v1::Task) -> v1::Task {
    task.labels.insert(CLUSTER.to_owned(), "here".to_owned());
    task
}

/// Applies an agent of a resource of a cluster, whose workers the test starts.
pub(super) async fn agent_of_cluster(operator: &Client, name: &str) -> Result<()> {
    let spec = v1::AgentSpec {
        runtime: Some(tasks::script([])),
        management: v1::Management::External.into(),
        ..Default::default()
    };
    let (name, labels) = (names::agent("default", name), [(CLUSTER.to_owned(), "here".to_owned())].into());
    let agent = Some(v1::Agent { name, labels, spec: Some(spec), ..Default::default() });
    operator
        .update_agent(v1::UpdateAgentRequest { agent, allow_missing: true, ..Default::default() })
        .await?;
    Ok(())
}

#[tokio::test]
async fn operator_sees_tasks_of_clusters_only() -> Result<()> {
    let key = Key::new("key", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = start_cluster(backend, issuer.oidc()).await?;
        let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
        let begin = operator.watch_tasks("namespaces/-", "", true).next().await.context("no token")??.token;
        let private = tasks::create(cluster.client(), tasks::task("absent")).await?.name;
        let managed = tasks::create(&operator, of_cluster(tasks::task("absent"))).await?.name;

        assert_eq!(tasks::get(&operator, &managed).await?.name, managed);
        let explain = |name: &str| operator.explain_task(v1::ExplainTaskRequest { name: name.to_owned() });
        explain(&managed).await?;
        let urgent = v1::Task { name: private.clone(), priority: Some(9), ..Default::default() };
        for refused in [
            tasks::get(&operator, &private).await.unwrap_err(),
            tasks::cancel(&operator, &private).await.unwrap_err(),
            explain(&private).await.unwrap_err(),
            tasks::update(&operator, urgent, &["priority"]).await.unwrap_err(),
        ] {
            assert_eq!((refused.code, refused.reason.as_deref()), (Code::NotFound, Some("TASK_NOT_FOUND")));
        }
        let refused = operator
            .create_task(v1::CreateTaskRequest {
                parent: "namespaces/default".to_owned(),
                task: Some(tasks::task("absent")),
                ..Default::default()
            })
            .await
            .unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some("ROLE_FORBIDDEN"), "{refused}");
        // Nor can it be continued.
        let mut continuing = of_cluster(tasks::task("absent"));
        continuing.spec.get_or_insert_default().continue_from =
            private.rsplit('/').next().unwrap().to_owned();
        let refused = tasks::create(&operator, continuing).await.unwrap_err();
        assert!(format!("{refused:#}").contains("does not exist in any cluster"), "{refused:#}");
        let all = v1::ListTasksRequest { parent: "namespaces/-".to_owned(), ..Default::default() };
        let listed = operator.all_tasks(all, None).await?;
        assert_eq!(
            listed.into_iter().map(|task| task.name).collect::<Vec<_>>(),
            std::slice::from_ref(&managed)
        );

        // What was missed and what happens now, up to a change that comes after those of the other task.
        let mut watch = operator.watch_tasks("namespaces/-", &begin, true);
        tasks::cancel(cluster.client(), &private).await?;
        tasks::cancel(&operator, &managed).await?;
        loop {
            let response = watch.next().await.context("the watch has ended")??;
            let Some(task) = response.task else { continue };
            assert_eq!(task.name, managed);
            if task.status.unwrap_or_default().state() == TaskState::Cancelled {
                break;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn operator_takes_over_no_agent() -> Result<()> {
    let key = Key::new("key", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    let cluster = start_cluster(Backend::Memory, issuer.oidc()).await?;
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    let update = |client: &Client, managed: bool| {
        let labels = managed.then(|| (CLUSTER.to_owned(), "here".to_owned())).into_iter().collect();
        let spec = v1::AgentSpec { runtime: Some(tasks::script([])), ..Default::default() };
        let name = "namespaces/default/agents/private".to_owned();
        let agent = v1::Agent { name, labels, spec: Some(spec), ..Default::default() };
        let request =
            v1::UpdateAgentRequest { agent: Some(agent), allow_missing: true, ..Default::default() };
        let client = client.clone();
        async move { client.update_agent(request).await }
    };
    update(cluster.client(), false).await?;
    let refused = update(&operator, true).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("MANAGED_BY_API"), "{refused}");
    assert!(refused.hint.unwrap().contains("rota delete agent private"));
    // An admin may hand it over.
    update(cluster.client(), true).await?;
    update(&operator, true).await?;
    Ok(())
}

#[tokio::test]
async fn operator_has_nothing_to_do_with_agents_of_the_api() -> Result<()> {
    let key = Key::new("key", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    let cluster = start_cluster(Backend::Memory, issuer.oidc()).await?;
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    let put = |client: &Client, name: &str, managed: bool| {
        let labels = managed.then(|| (CLUSTER.to_owned(), "here".to_owned())).into_iter().collect();
        let spec = v1::AgentSpec { runtime: Some(tasks::script([])), ..Default::default() };
        let agent = v1::Agent { name: name.to_owned(), labels, spec: Some(spec), ..Default::default() };
        let client = client.clone();
        async move {
            let agent = Some(agent);
            client
                .update_agent(v1::UpdateAgentRequest { agent, allow_missing: true, ..Default::default() })
                .await
        }
    };
    for namespace in ["default", "team"] {
        let of = |agent: &str| format!("namespaces/{namespace}/agents/{agent}");
        let (private, managed) = (of("private"), of("managed"));
        put(cluster.client(), &private, false).await?;
        put(&operator, &managed, true).await?;
        let refused = put(&operator, &of("unlabelled"), false).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some("ROLE_FORBIDDEN"));

        let listed = operator.all_agents(&format!("namespaces/{namespace}")).await?;
        assert_eq!(listed.into_iter().map(|agent| agent.name).collect::<Vec<_>>(), [managed.as_str()]);
        for (name, exists) in [(&private, false), (&managed, true)] {
            let drain = v1::DrainAgentRequest { name: name.clone(), ..Default::default() };
            let announcement = v1::AnnounceWorkersRequest { name: name.clone(), ..Default::default() };
            let report = v1::ReportAgentRequest { name: name.clone(), ..Default::default() };
            let delete = v1::DeleteAgentRequest {
                name: name.clone(),
                force: true,
                allow_missing: false,
                ..Default::default()
            };
            for answer in [
                operator.drain_agent(drain).await.map(drop),
                operator.announce_workers(announcement).await.map(drop),
                operator.report_agent(report).await.map(drop),
                operator.delete_agent(delete).await.map(drop),
            ] {
                match exists {
                    true => answer?,
                    false => {
                        assert_eq!(answer.unwrap_err().reason.as_deref(), Some("AGENT_NOT_FOUND"), "{name}");
                    }
                }
            }
        }
        // A resource of the same name that is deleted takes nothing with it.
        operator
            .delete_agent(v1::DeleteAgentRequest {
                name: private.clone(),
                allow_missing: true,
                force: true,
                ..Default::default()
            })
            .await?;
        let get = v1::GetAgentRequest { name: private.clone() };
        assert_eq!(cluster.client().get_agent(get.clone()).await?.name, private);
        assert_eq!(operator.get_agent(get).await.unwrap_err().reason.as_deref(), Some("ROLE_FORBIDDEN"));
    }
    Ok(())
}
