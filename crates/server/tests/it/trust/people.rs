//! People with tokens of an OIDC issuer: what the list permits, over gRPC and HTTP.

use anyhow::{Context, Result};
use http::StatusCode;
use jsonwebtoken::Algorithm;
use rota_proto::framing;
use rota_proto::v1::{self, TaskState};
use rota_testkit::client::{Client, Error, Options, Token};
use rota_testkit::identity_provider::IdentityProvider;
use rota_testkit::{Backend, Cluster, Setup, tasks};
use serde_json::{Value, json};

const ADMIN: &str = "open sesame";
pub(super) const LIST: &str = "
[[allow]]
subject = 'ada'
role = 'admin'
[[allow]]
group = 'developers'
role = 'developer'
[[allow]]
group = 'squad'
role = 'developer'
namespaces = ['team']
[[allow]]
group = 'everyone'
role = 'viewer'
namespaces = ['team', 'default']
";

async fn start() -> Result<(IdentityProvider, Cluster)> {
    let provider = IdentityProvider::start(Algorithm::RS256, None).await?;
    let people = Some(provider.people("", LIST)?);
    let setup = Setup { token: Some(ADMIN.to_owned()), people, ..Setup::new(Backend::Memory) };
    Ok((provider, Cluster::start_with(setup).await?))
}

fn client(cluster: &Cluster, token: String) -> Result<Client> {
    let options = Options::new(format!("http://{}", cluster.addr()));
    Ok(Client::new(Options { token: Token::Fixed(token.into()), ..options })?)
}

async fn list(client: &Client, namespace: &str) -> Result<(), Error> {
    let parent = format!("namespaces/{namespace}");
    client.list_tasks(v1::ListTasksRequest { parent, ..Default::default() }).await.map(drop)
}

fn create(namespace: &str) -> v1::CreateTaskRequest {
    let parent = format!("namespaces/{namespace}");
    v1::CreateTaskRequest { parent, task: Some(tasks::task("echo")), ..Default::default() }
}

fn reason<T>(result: Result<T, Error>) -> String {
    result.err().map_or("permitted".to_owned(), |error| error.reason.unwrap_or(error.message))
}

#[tokio::test]
async fn list_gives_people_roles_and_namespaces() -> Result<()> {
    let (provider, cluster) = start().await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let of = |person: Value| client(&cluster, provider.token(&person)?);
    let admin = of(json!({ "sub": "ada" }))?;
    list(&admin, "-").await?;
    admin.all_browser_sessions().await?;

    let developer = of(json!({ "sub": "bob", "groups": ["developers"] }))?;
    let task = developer.create_task(create("default")).await?;
    tasks::until_state(&developer, &task.name, TaskState::Succeeded).await?;
    assert_eq!(reason(developer.all_browser_sessions().await), "ROLE_FORBIDDEN");
    let delete =
        v1::DeleteAgentRequest { name: "namespaces/default/agents/echo".into(), ..Default::default() };
    assert_eq!(reason(developer.delete_agent(delete).await), "ROLE_FORBIDDEN");

    let inner = of(json!({ "sub": "cat", "groups": "squad" }))?;
    assert_eq!(reason(inner.create_task(create("team")).await), "permitted");
    assert_eq!(reason(inner.create_task(create("default")).await), "NAMESPACE_FORBIDDEN");
    assert_eq!(reason(list(&inner, "team").await), "permitted");
    for other in ["default", "-", "teams"] {
        assert_eq!(reason(list(&inner, other).await), "NAMESPACE_FORBIDDEN", "{other}");
    }
    let get = v1::GetTaskRequest { name: task.name.clone() };
    assert_eq!(reason(inner.get_task(get.clone()).await), "NAMESPACE_FORBIDDEN");
    assert_eq!(reason(inner.get_system_status(v1::GetSystemStatusRequest {}).await), "NAMESPACE_FORBIDDEN");

    let both = of(json!({ "sub": "dan", "groups": ["squad", "everyone"] }))?;
    assert_eq!(reason(both.get_task(get).await), "permitted");
    assert_eq!(reason(both.create_task(create("default")).await), "NAMESPACE_FORBIDDEN");
    let viewer = of(json!({ "sub": "eve", "groups": ["everyone"] }))?;
    assert_eq!(reason(list(&viewer, "team").await), "permitted");
    assert_eq!(reason(viewer.create_task(create("team")).await), "ROLE_FORBIDDEN");
    Ok(())
}

#[tokio::test]
async fn alerts_of_limited_people_are_those_of_their_namespaces() -> Result<()> {
    let (provider, cluster) = start().await?;
    std::fs::remove_dir_all(cluster.folder().join("artifacts"))?;
    let look = v1::FindMissingPartsRequest {
        parent: "namespaces/team".to_owned(),
        digests: vec![vec![0; 32]],
        ..Default::default()
    };
    cluster.client().artifact_service().find_missing_parts(look).await.unwrap_err();
    let alerts = async |person: Value| {
        let request = v1::ListAlertsRequest { parent: "namespaces/team".to_owned() };
        let found = client(&cluster, provider.token(&person)?)?.list_alerts(request).await?.alerts;
        anyhow::Ok(found.into_iter().map(|alert| alert.code).collect::<Vec<_>>())
    };
    assert_eq!(alerts(json!({ "sub": "ada" })).await?, ["artifacts_unavailable"]);
    assert!(alerts(json!({ "sub": "cat", "groups": "squad" })).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn tokens_without_an_entry_permit_nothing() -> Result<()> {
    let (provider, cluster) = start().await?;
    let attempt = async |person: Value| -> Result<String> {
        Ok(reason(list(&client(&cluster, provider.token(&person)?)?, "team").await))
    };
    assert_eq!(attempt(json!({ "sub": "ada" })).await?, "permitted");
    for unlisted in
        [json!({ "sub": "mallory" }), json!({ "sub": "squad" }), json!({ "sub": "x", "groups": ["other"] })]
    {
        assert_eq!(attempt(unlisted).await?, "PERSON_NOT_ALLOWED");
    }
    for invalid in [
        json!({ "sub": "ada", "aud": "another-client" }),
        json!({ "sub": "ada", "exp": 1 }),
        json!({ "sub": "ada", "iss": "https://other.example" }),
    ] {
        assert_eq!(attempt(invalid).await?, "TOKEN_INVALID");
    }
    let other = IdentityProvider::start(Algorithm::RS256, None).await?;
    let forged = other.token(&json!({ "sub": "ada", "iss": provider.url() }))?;
    assert_eq!(reason(list(&client(&cluster, forged)?, "team").await), "TOKEN_INVALID");
    Ok(())
}

#[tokio::test]
async fn people_have_the_same_rights_over_http() -> Result<()> {
    let (provider, cluster) = start().await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = |namespace: &str| format!("http://{}/api/v1/namespaces/{namespace}/tasks", cluster.addr());
    let token = provider.token(&json!({ "sub": "cat", "groups": ["squad"] }))?;
    let body = serde_json::to_value(tasks::task("echo"))?;
    for (namespace, status) in [("team", StatusCode::OK), ("default", StatusCode::FORBIDDEN)] {
        let made = http.post(url(namespace)).bearer_auth(&token).json(&body).send().await?;
        assert_eq!(made.status(), status, "{namespace}");
        let listed = http.get(url(namespace)).bearer_auth(&token).send().await?;
        assert_eq!(listed.status(), status, "{namespace}");
    }
    // gRPC-Web, which pages of other origins use.
    for (namespace, status) in [("team", "0"), ("default", "7")] {
        let parent = format!("namespaces/{namespace}");
        let message = framing::encode(&v1::ListTasksRequest { parent, ..Default::default() });
        let call = http.post(format!("http://{}/rota.v1.TaskService/ListTasks", cluster.addr()));
        let call = call.bearer_auth(&token).header("content-type", "application/grpc-web+proto");
        let answer = call.body(message).send().await?;
        // The status of a refusal is a header, that of an answer a trailer in the body.
        let found =
            answer.headers().get("grpc-status").map_or("0", |found| found.to_str().unwrap_or_default());
        assert_eq!(found, status, "{namespace}");
        assert_eq!(answer.bytes().await?.is_empty(), status != "0", "{namespace}");
    }
    // What the body names counts as well.
    let batch = json!({ "requests": [{ "parent": "namespaces/default", "task": body }] });
    let refused =
        http.post(format!("{}:batchCreate", url("team"))).bearer_auth(&token).json(&batch).send().await?;
    let refused: Value = refused.json().await?;
    assert_eq!(refused["details"][0]["reason"], "NAMESPACE_FORBIDDEN", "{refused}");
    let viewer = provider.token(&json!({ "sub": "eve", "groups": ["everyone"] }))?;
    let listed = http.get(url("team")).bearer_auth(&viewer).send().await?;
    assert_eq!(listed.headers().get("rota-role").context("a role")?, "viewer");
    Ok(())
}

#[tokio::test]
async fn developers_change_no_agent_by_answers() -> Result<()> {
    let (provider, cluster) = start().await?;
    let developer = client(&cluster, provider.token(&json!({ "sub": "bob", "groups": ["developers"] }))?)?;
    let task = developer.create_task(create("default")).await?;
    let input = |scope: v1::PermissionScope| v1::SendTaskInputRequest {
        name: task.name.clone(),
        input: Some(v1::TaskInput { text: "x".into(), scope: scope.into(), ..Default::default() }),
    };
    assert_eq!(reason(developer.send_task_input(input(v1::PermissionScope::Agent)).await), "ROLE_FORBIDDEN");
    // Refused for its content, not for its sender.
    assert_ne!(
        reason(developer.send_task_input(input(v1::PermissionScope::Session)).await),
        "ROLE_FORBIDDEN"
    );
    let admin = cluster.client().send_task_input(input(v1::PermissionScope::Agent)).await;
    assert_ne!(reason(admin), "ROLE_FORBIDDEN");
    Ok(())
}

#[tokio::test]
async fn approvals_name_the_person_who_decides() -> Result<()> {
    let (provider, cluster) = start().await?;
    let claims = json!({ "sub": "bob", "groups": ["developers"], "preferred_username": "the boss" });
    let developer = client(&cluster, provider.token(&claims)?)?;
    let steps = ["person", "token"].map(|name| json!({ "name": name, "approval": { "prompt": "go?" } }));
    let outputs = json!({ "all": "${{ [steps.person.result, steps.token.result] }}" });
    let spec = serde_json::from_value(json!({ "steps": steps, "outputs": outputs }))?;
    let workflow = v1::Workflow { spec: Some(spec), ..Default::default() };
    let parent = "namespaces/default".to_owned();
    let request = v1::CreateWorkflowRequest { parent, workflow: Some(workflow), ..Default::default() };
    let name = developer.create_workflow(request).await?.name;
    for (client, step, message) in
        [(&developer, "person", "approved by the boss: go"), (cluster.client(), "token", "approved: go")]
    {
        let decide = v1::DecideStepRequest {
            name: name.clone(),
            step: step.to_owned(),
            decision: v1::StepDecision::Approve.into(),
            comment: "go".to_owned(),
        };
        // It waits for the decision as soon as the workflow has started.
        tasks::eventually("the decision", || async { Ok(client.decide_step(decide.clone()).await.is_ok()) })
            .await?;
        let request = v1::ListWorkflowStepsRequest { parent: name.clone(), ..Default::default() };
        let found = client.list_workflow_steps(request).await?;
        let found = found.steps.into_iter().find(|found| found.name == step).context("a step")?;
        assert_eq!(found.message, message);
    }
    let status = async || {
        let found = developer.get_workflow(v1::GetWorkflowRequest { name: name.clone() }).await?;
        anyhow::Ok(found.status.unwrap_or_default())
    };
    tasks::eventually("the end", || async { Ok(status().await?.outputs.is_some()) }).await?;
    // A name can be chosen, a subject cannot.
    let by_person = json!({ "approved": true, "comment": "go", "by": "the boss", "bySubject": "bob" });
    let expected = json!({ "all": [by_person, { "approved": true, "comment": "go" }] });
    assert_eq!(serde_json::to_value(status().await?.outputs)?, expected);
    Ok(())
}

#[tokio::test]
async fn resolved_compensations_have_the_subject() -> Result<()> {
    let (provider, cluster) = start().await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let claims = json!({ "sub": "bob", "groups": ["developers"], "preferred_username": "the boss" });
    let developer = client(&cluster, provider.token(&claims)?)?;
    let task = |shell: &str| {
        let runtime = json!({ "command": { "shell": shell } });
        json!({ "target": { "agent": "echo" }, "retry": { "maxAttempts": 1 }, "runtime": runtime })
    };
    let steps = json!([
        { "name": "made", "task": task("true"), "compensate": task("exit 3") },
        { "name": "bad", "needs": [{ "step": "made" }], "task": task("exit 3") },
    ]);
    let spec = serde_json::from_value(json!({ "onFailure": "ON_STEP_FAILURE_COMPENSATE", "steps": steps }))?;
    let workflow = v1::Workflow { spec: Some(spec), ..Default::default() };
    let parent = "namespaces/default".to_owned();
    let request = v1::CreateWorkflowRequest { parent, workflow: Some(workflow), ..Default::default() };
    let name = developer.create_workflow(request).await?.name;
    let resolve = v1::ResolveCompensationRequest {
        name,
        step: "made".to_owned(),
        resolution: v1::CompensationResolution::Skip.into(),
        failure: 1,
        ..Default::default()
    };
    tasks::eventually("the resolution", || async {
        Ok(developer.resolve_compensation(resolve.clone()).await.is_ok())
    })
    .await?;
    let step = developer.resolve_compensation(resolve).await?.step.context("a step")?;
    let resolved = step.resolved_compensation.context("a resolution")?;
    assert_eq!((resolved.by.as_str(), resolved.by_subject.as_str()), ("the boss", "bob"));
    Ok(())
}
