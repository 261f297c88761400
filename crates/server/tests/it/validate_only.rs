//! `validate_only`: the response is that of the call itself, and nothing changes.

use anyhow::Result;
use rota_proto::v1;
use rota_testkit::{Backend, Cluster, history, tasks};

const PARENT: &str = "namespaces/default";

#[tokio::test]
async fn validation_changes_nothing() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let mut task = tasks::task("echo");
    task.spec.get_or_insert_default().secrets.insert("TOKEN_NAME".into(), "hush".into());
    let request = |task| v1::CreateTaskRequest {
        parent: PARENT.into(),
        task: Some(task),
        validate_only: true,
        ..Default::default()
    };
    let created = client.create_task(request(task.clone())).await?;
    assert!(!format!("{created:?}").contains("hush"));
    task.priority = Some(77);
    assert_eq!(client.create_task(request(task)).await.unwrap_err().fields[0].field, "task.priority");
    let all =
        client.all_tasks(v1::ListTasksRequest { parent: PARENT.into(), ..Default::default() }, None).await?;
    assert!(all.is_empty());
    let agent = v1::Agent {
        spec: Some(v1::AgentSpec { runtime: Some(tasks::script([])), ..Default::default() }),
        ..Default::default()
    };
    let request = v1::CreateAgentRequest {
        parent: PARENT.into(),
        agent_id: "echo".into(),
        agent: Some(agent),
        validate_only: true,
    };
    client.create_agent(request.clone()).await?;
    assert!(client.all_agents(PARENT).await?.is_empty());
    client.create_agent(v1::CreateAgentRequest { validate_only: false, ..request.clone() }).await?;
    assert_eq!(client.create_agent(request).await.unwrap_err().reason.as_deref(), Some("AGENT_EXISTS"));
    Ok(())
}

/// Checks that depend on the store are part of the dry run, on each backend.
async fn assert_validation_matches(backend: Backend) -> Result<()> {
    let cluster = Cluster::start(backend).await?;
    let client = cluster.client();
    let asked = |alias: &str, on: &[&str], key: &str, strict: bool| {
        let mut task = tasks::task("echo");
        task.alias = alias.into();
        let spec = task.spec.get_or_insert_default();
        spec.strict = strict;
        let dependency = |name: &&str| v1::Dependency { task: (*name).into(), ..Default::default() };
        spec.depends_on = on.iter().map(dependency).collect();
        v1::CreateTaskRequest {
            parent: PARENT.into(),
            task: Some(task),
            idempotency_key: key.into(),
            validate_only: true,
            ..Default::default()
        }
    };
    let batch = async |requests: &[v1::CreateTaskRequest], expected: &[&str]| -> Result<Vec<String>> {
        let mut requests = requests.to_vec();
        requests.iter_mut().for_each(|one| one.validate_only = false);
        let request = v1::BatchCreateTasksRequest {
            parent: PARENT.into(),
            requests,
            validate_only: true,
            expected_agents: expected.iter().map(ToString::to_string).collect(),
        };
        let answer = client.batch_create_tasks(request).await?;
        Ok(answer
            .results
            .into_iter()
            .map(|one| match one.kind.unwrap() {
                v1::batch_create_tasks_result::Kind::Task(task) => {
                    task.status.unwrap().state().as_str_name().to_owned()
                }
                v1::batch_create_tasks_result::Kind::Error(error) => error.field,
            })
            .collect())
    };
    let strict = asked("a", &[], "", true);
    let refused = client.create_task(strict.clone()).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("REFERENCE_NOT_FOUND"));
    assert_eq!(refused.fields[0].field, "task.spec.target.agent");
    let together = [strict, asked("b", &["a"], "", true)];
    assert_eq!(batch(&together, &[]).await?, ["task.spec.target.agent", "task.spec.target.agent"]);
    assert_eq!(batch(&together, &["echo"]).await?, ["TASK_STATE_QUEUED", "TASK_STATE_PENDING"]);
    let ring = [asked("a", &["b"], "", false), asked("b", &["a"], "", false)];
    assert_eq!(batch(&ring, &[]).await?, ["TASK_STATE_FAILED", "TASK_STATE_FAILED"]);

    // The same key: the existing task, or the differing field.
    let first = asked("a", &[], "k", false);
    let made = client.create_task(v1::CreateTaskRequest { validate_only: false, ..first.clone() }).await?;
    assert_eq!(client.create_task(first.clone()).await?.uid, made.uid);
    let mut other = first.clone();
    other.task.get_or_insert_default().spec.get_or_insert_default().prompt = "else".into();
    let refused = client.create_task(other.clone()).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("IDEMPOTENCY_KEY_CONFLICT"));
    assert!(refused.fields.iter().any(|one| one.field == "spec.prompt"), "{refused:?}");
    let twice = [asked("c", &[], "new", false), asked("d", &[], "new", false)];
    assert!(batch(&twice, &[]).await?[1].contains("alias"));

    // Updates, too.
    let mut changed = made.clone();
    changed.priority = Some(9);
    let update = v1::UpdateTaskRequest {
        task: Some(changed),
        update_mask: Some(pbjson_types::FieldMask { paths: vec!["priority".into()] }),
        validate_only: true,
        ..Default::default()
    };
    assert_eq!(client.update_task(update).await?.priority, Some(9));
    assert_eq!(tasks::get(client, &made.name).await?, made);
    let all =
        client.all_tasks(v1::ListTasksRequest { parent: PARENT.into(), ..Default::default() }, None).await?;
    assert_eq!(all.len(), 1);
    // Calls that create tasks validate all of them.
    let mut mixed = v1::BatchCreateTasksRequest { parent: PARENT.into(), ..Default::default() };
    mixed.requests = vec![first];
    let answer = client.batch_create_tasks(mixed.clone()).await?.results.remove(0).kind.unwrap();
    assert!(
        matches!(answer, v1::batch_create_tasks_result::Kind::Error(error) if error.field == "requests[0].validate_only")
    );
    mixed.expected_agents = vec!["echo".into()];
    assert_eq!(client.batch_create_tasks(mixed).await.unwrap_err().fields[0].field, "expected_agents");
    history::check(client, false).await?.check()
}

#[tokio::test]
async fn validation_matches_execution_in_memory() -> Result<()> {
    Box::pin(assert_validation_matches(Backend::Memory)).await
}

#[tokio::test]
async fn validation_matches_execution_in_sqlite() -> Result<()> {
    Box::pin(assert_validation_matches(Backend::Sqlite)).await
}
