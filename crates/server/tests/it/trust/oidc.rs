//! Tokens of an OIDC issuer: rejections with their reasons, key rotation, and announced workers.

use std::time::Duration;

use anyhow::{Context, Result};
use jsonwebtoken::Algorithm;
use rota_proto::v1::{self, TaskState};
use rota_proto::worker::v1::{FetchPreviousResultRequest, Hello};
use rota_server::Oidc;
use rota_testkit::client::{Client, Error, Options, Token};
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, Setup, WorkerHandle, history, tasks};
use serde_json::{Value, json};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use super::issuer::{Issuer, Key, OPERATOR, now};
use super::scope::agent_of_cluster;

const ADMIN: &str = "open sesame";
const PARENT: &str = "namespaces/default";
pub(super) const ECHO: &str = "namespaces/default/agents/echo";

pub(super) async fn start_cluster(backend: Backend, oidc: Oidc) -> Result<Cluster> {
    Cluster::start_with(Setup { token: Some(ADMIN.to_owned()), oidc: Some(oidc), ..Setup::new(backend) })
        .await
}

fn client_with_credential(cluster: &Cluster, token: Token) -> Result<Client> {
    let options = Options::new(format!("http://{}", cluster.addr()));
    Ok(Client::new(Options { token, retry_for: Duration::ZERO, ..options })?)
}

pub(super) fn bearer(cluster: &Cluster, token: &str) -> Result<Client> {
    client_with_credential(cluster, Token::Fixed(token.into()))
}

async fn call(client: &Client) -> Result<(), Error> {
    let request = v1::ListTasksRequest { parent: PARENT.into(), ..Default::default() };
    client.list_tasks(request).await.map(drop)
}

pub(super) async fn rejection(client: &Client) -> (String, String) {
    let error = call(client).await.unwrap_err();
    (error.reason.clone().unwrap_or_default(), error.to_string())
}

#[tokio::test]
async fn every_rejection_has_a_reason() -> Result<()> {
    let (curve, rsa) = (Key::new("curve", Algorithm::ES256)?, Key::new("rsa", Algorithm::RS256)?);
    let issuer = Issuer::start(&[&curve, &rsa]).await?;
    let cluster = start_cluster(Backend::Memory, issuer.oidc()).await?;
    assert_eq!(rejection(&client_with_credential(&cluster, Token::None)?).await.0, "TOKEN_REQUIRED");
    for key in [&curve, &rsa] {
        call(&bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?).await?;
    }
    call(cluster.client()).await?;

    let with = |name: &str, value: Value| {
        let mut claims = issuer.account(OPERATOR);
        claims[name] = value;
        claims
    };
    let bare = json!({ "iss": issuer.url(), "aud": "rota", "sub": OPERATOR });
    // Signed by someone with the id of a key, but not the key.
    let (false_curve, false_rsa) = (Key::new("curve", Algorithm::ES256)?, Key::new("rsa", Algorithm::RS256)?);
    let other_way = Key::new("rsa", Algorithm::ES256)?;
    let password = jsonwebtoken::encode(
        &jsonwebtoken::Header { kid: Some("rsa".into()), ..Default::default() },
        &issuer.account(OPERATOR),
        &jsonwebtoken::EncodingKey::from_secret(b"public"),
    )?;
    let good = curve.sign(&issuer.account(OPERATOR))?;
    let cut = good[..good.len() - 8].to_owned();
    for (token, word) in [
        ("open sesam".to_owned(), "neither the admin token nor a signed one"),
        ("a.b.c".to_owned(), "neither the admin token nor a signed one"),
        (password, "HS256"),
        (cut, "signature"),
        (false_curve.sign(&issuer.account(OPERATOR))?, "signature"),
        (false_rsa.sign(&issuer.account(OPERATOR))?, "signature"),
        (other_way.sign(&issuer.account(OPERATOR))?, "another algorithm"),
        (Key::new("unheard", Algorithm::ES256)?.sign(&issuer.account(OPERATOR))?, "does not list"),
        (Key::new("", Algorithm::ES256)?.sign(&issuer.account(OPERATOR))?, "names no key"),
        (curve.sign(&with("aud", json!("https://kubernetes.default.svc")))?, "audience \"rota\""),
        (curve.sign(&with("iss", json!("https://elsewhere.example")))?, "another issuer"),
        (curve.sign(&with("exp", json!(now() - 120)))?, "expired"),
        (curve.sign(&with("nbf", json!(now() + 120)))?, "not valid yet"),
        (curve.sign(&bare)?, "required claims are missing"),
        (curve.sign(&with("kubernetes.io", json!("nonsense")))?, "required claims are missing"),
    ] {
        let (reason, message) = rejection(&bearer(&cluster, &token)?).await;
        assert_eq!(reason, "TOKEN_INVALID", "{message}");
        assert!(message.contains(word), "{message:?} without {word:?}");
        assert!(!message.contains(&token), "{message}");
    }

    // Known identities, and calls that they may not make.
    for (claims, word) in [
        (issuer.account("system:serviceaccount:team:default"), "no role"),
        (issuer.pod("default", "echo-1", "uid-1"), "default/echo-1"),
    ] {
        let (reason, message) = rejection(&bearer(&cluster, &curve.sign(&claims)?)?).await;
        assert_eq!(reason, "ROLE_FORBIDDEN", "{message}");
        assert!(message.contains(word), "{message}");
    }
    // Methods without a rule require an admin: an operator may not use reflection.
    let channel = rota_testkit::client::lazy_channel(&Options::new(format!("http://{}", cluster.addr())))?;
    let token = curve.sign(&issuer.account(OPERATOR))?;
    let mut operator =
        ServerReflectionClient::with_interceptor(channel, move |mut request: tonic::Request<()>| {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
            Ok(request)
        });
    let refused =
        operator.server_reflection_info(tokio_stream::once(ServerReflectionRequest::default())).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::PermissionDenied);
    Ok(())
}

#[tokio::test]
async fn rotated_keys_work_while_issuer_is_unreachable() -> Result<()> {
    let (first, second) = (Key::new("first", Algorithm::ES256)?, Key::new("second", Algorithm::RS256)?);
    let issuer = Issuer::start(&[&first]).await?;
    issuer.set_away(true);
    let cluster = start_cluster(Backend::Memory, issuer.oidc()).await?;
    let by = |key: &Key| bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?);
    let reason = async |key: &Key| anyhow::Ok(rejection(&by(key)?).await.0);
    assert_eq!(reason(&first).await?, "ISSUER_KEYS_UNAVAILABLE");
    issuer.set_away(false);
    call(&by(&first)?).await?;
    // Known keys work without the issuer; an unknown key cannot be distinguished from an invalid one.
    issuer.set_away(true);
    call(&by(&first)?).await?;
    assert_eq!(reason(&second).await?, "ISSUER_KEYS_UNAVAILABLE");
    issuer.set_away(false);
    assert_eq!(reason(&second).await?, "TOKEN_INVALID");
    issuer.list(&[&first, &second])?;
    call(&by(&second)?).await?;
    call(&by(&first)?).await?;
    // A withdrawn key is dropped with the next fetch.
    issuer.list(&[&second])?;
    assert_eq!(reason(&Key::new("third", Algorithm::ES256)?).await?, "TOKEN_INVALID");
    assert_eq!(reason(&first).await?, "TOKEN_INVALID");
    call(&by(&second)?).await?;
    Ok(())
}

#[tokio::test]
async fn unknown_keys_do_not_cause_fetches() -> Result<()> {
    let key = Key::new("real", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    let oidc = Oidc { refetch: Duration::from_secs(3600), ..issuer.oidc() };
    let cluster = start_cluster(Backend::Memory, oidc).await?;
    for index in 0..20 {
        let made_up = Key::new(&format!("key {index}"), Algorithm::ES256)?;
        let client = bearer(&cluster, &made_up.sign(&issuer.account(OPERATOR))?)?;
        assert_eq!(rejection(&client).await.0, "TOKEN_INVALID");
    }
    call(&bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?).await?;
    assert_eq!(issuer.asked(), 1);
    // Known keys that are old are used, and refreshed in the background.
    let oidc = Oidc { refresh: Duration::ZERO, ..issuer.oidc() };
    let other = start_cluster(Backend::Memory, oidc).await?;
    let client = bearer(&other, &key.sign(&issuer.account(OPERATOR))?)?;
    call(&client).await?;
    issuer.list(&[])?;
    tasks::eventually("the end of a withdrawn key", async || Ok(call(&client).await.is_err())).await?;
    assert_eq!(rejection(&client).await.0, "TOKEN_INVALID");
    Ok(())
}

pub(super) async fn announce(client: &Client, agent: &str, workers: &[(&str, &str)]) -> Result<(), Error> {
    let workers = workers.iter().map(|(worker, instance)| v1::AnnouncedWorker {
        worker: (*worker).to_owned(),
        instance: (*instance).to_owned(),
        ..Default::default()
    });
    let request = v1::AnnounceWorkersRequest { name: agent.to_owned(), workers: workers.collect() };
    client.announce_workers(request).await.map(drop)
}

/// Returns the response to a Hello of this agent and worker.
async fn join_result(client: &Client, agent: &str, worker: &str) -> String {
    join_result_of(client, agent, worker, "uid-1").await
}

/// Likewise for a worker whose process has this UID.
async fn join_result_of(client: &Client, agent: &str, worker: &str, uid: &str) -> String {
    join_result_with(client, Hello { instance: uid.to_owned(), ..raw::hello(agent, worker, 1) }).await
}

async fn join_result_with(client: &Client, hello: Hello) -> String {
    match RawWorker::join(client, hello).await {
        Ok(_) => "in".to_owned(),
        Err(error) => match error.downcast_ref::<tonic::Status>() {
            Some(status) => rota_testkit::client::reason(status).unwrap_or_default(),
            None => error.to_string(),
        },
    }
}

#[tokio::test]
async fn announced_worker_connects_only_as_itself() -> Result<()> {
    let key = Key::new("key", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    let mut cluster = start_cluster(Backend::Sqlite, issuer.oidc()).await?;
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    for agent in ["echo", "other"] {
        agent_of_cluster(&operator, agent).await?;
    }
    let pod = |namespace, name, uid| bearer(&cluster, &key.sign(&issuer.pod(namespace, name, uid))?);
    let one = pod("default", "one", "uid-1")?;
    assert_eq!(join_result(&one, "echo", "two").await, "WORKER_NAME_MISMATCH");
    assert_eq!(join_result(&pod("team", "one", "uid-1")?, "echo", "one").await, "WORKER_NAME_MISMATCH");
    assert_eq!(join_result(&one, "echo", "one").await, "WORKER_NOT_ANNOUNCED");
    announce(&operator, "namespaces/default/agents/other", &[("one", "uid-1")]).await?;
    announce(&operator, ECHO, &[("one", "uid-0"), ("two", "any")]).await?;
    assert_eq!(join_result(&one, "echo", "one").await, "WORKER_NOT_ANNOUNCED");
    assert_eq!(join_result(&pod("default", "two", "any")?, "echo", "two").await, "in");
    announce(&operator, ECHO, &[("one", "uid-1"), ("one-more", "uid-2")]).await?;
    assert_eq!(join_result(&one, "echo", "one").await, "in");
    for not_a_worker in [cluster.client(), &operator] {
        assert_eq!(join_result(not_a_worker, "echo", "by-hand").await, "ROLE_FORBIDDEN");
    }
    let worker = pod("default", "one", "uid-1")?;
    assert_eq!(announce(&worker, ECHO, &[]).await.unwrap_err().reason.as_deref(), Some("ROLE_FORBIDDEN"));

    // After a start, the control plane knows the workers from before, and no announcements yet.
    let fresh = pod("default", "one-more", "uid-2")?;
    let other = pod("default", "one", "uid-3")?;
    cluster.kill().await;
    cluster.restart().await?;
    tasks::eventually("the control plane", async || Ok(call(&operator).await.is_ok())).await?;
    assert_eq!(join_result(&fresh, "echo", "one-more").await, "WORKER_NOT_ANNOUNCED");
    assert_eq!(join_result(&one, "other", "one").await, "WORKER_NOT_ANNOUNCED");
    // Another pod that has the name by now.
    assert_eq!(join_result_of(&other, "echo", "one", "uid-3").await, "WORKER_NOT_ANNOUNCED");
    assert_eq!(join_result_of(&other, "echo", "one", "uid-1").await, "WORKER_NOT_ANNOUNCED");
    // It is not known for which task the pod was created, but that it has none shows that it was not for this one.
    let isolated_task = "01890a5d-ac96-774b-bcce-b302099a8057".to_owned();
    let instance = "uid-1".to_owned();
    let hello = Hello { instance, isolated_task, ..raw::hello("echo", "one", 1) };
    assert_eq!(join_result_with(&one, hello).await, "WORKER_NOT_ANNOUNCED");
    assert_eq!(join_result(&one, "echo", "one").await, "in");
    announce(&operator, ECHO, &[("one-more", "uid-2")]).await?;
    assert_eq!(join_result(&fresh, "echo", "one-more").await, "in");

    for (name, workers, field) in [
        ("namespaces/default/agents/missing", vec![], None),
        ("echo", vec![], Some("name")),
        (ECHO, vec![("NOT A NAME", "a")], Some("workers[0].worker")),
        (ECHO, vec![("a", "")], Some("workers[0].instance")),
        (ECHO, vec![("a", "a"), ("a", "b")], Some("workers[1].worker")),
        (ECHO, vec![("a", &*"x".repeat(129))], Some("workers[0].instance")),
    ] {
        let error = announce(&operator, name, &workers).await.unwrap_err();
        assert_eq!(error.fields.first().map(|field| field.field.as_str()), field, "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn announcement_limits_slots_and_task() -> Result<()> {
    let key = Key::new("key", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    let cluster = start_cluster(Backend::Memory, issuer.oidc()).await?;
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    agent_of_cluster(&operator, "echo").await?;
    let limited = |worker: &str, task: Option<&str>| v1::AnnouncedWorker {
        worker: worker.to_owned(),
        instance: "uid".to_owned(),
        slots: Some(2),
        isolated_task: task.map(str::to_owned),
    };
    let mine = "01890a5d-ac96-774b-bcce-b302099a8057";
    let other = "01890a5d-ac96-774b-bcce-b302099a8058";
    let workers = vec![limited("shared", Some("")), limited("isolated", Some(mine)), limited("free", None)];
    let request = v1::AnnounceWorkersRequest { name: ECHO.to_owned(), workers };
    operator.announce_workers(request).await?;
    let join = async |worker: &str, task: &str| {
        let client = bearer(&cluster, &key.sign(&issuer.pod("default", worker, "uid"))?)?;
        let hello = Hello { isolated_task: task.to_owned(), ..raw::hello("echo", worker, 5) };
        anyhow::Ok(match RawWorker::join(&client, hello).await {
            Ok(_) => "in".to_owned(),
            Err(error) => {
                let status = error.downcast_ref::<tonic::Status>().context("no status")?;
                rota_testkit::client::reason(status).unwrap_or_default()
            }
        })
    };
    assert_eq!(join("shared", other).await?, "WORKER_NAME_MISMATCH");
    assert_eq!(join("isolated", other).await?, "WORKER_NAME_MISMATCH");
    assert_eq!(join("isolated", "").await?, "WORKER_NAME_MISMATCH");
    for (worker, task) in [("shared", ""), ("isolated", mine), ("free", other)] {
        assert_eq!(join(worker, task).await?, "in");
    }
    let request = v1::ListWorkersRequest { parent: PARENT.into(), ..Default::default() };
    let listed = cluster.client().list_workers(request).await?.workers;
    let slots: Vec<_> = listed.iter().map(|worker| worker.slots).collect();
    assert_eq!(slots, [2, 2, 2]);
    Ok(())
}

#[tokio::test]
async fn results_are_not_for_a_pod_that_reuses_the_name() -> Result<()> {
    let key = Key::new("key", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    let cluster = start_cluster(Backend::Memory, issuer.oidc()).await?;
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    agent_of_cluster(&operator, "echo").await?;
    announce(&operator, ECHO, &[("one", "uid-1")]).await?;
    let pod = |uid| bearer(&cluster, &key.sign(&issuer.pod("default", "one", uid))?);
    let one = pod("uid-1")?;
    let mut worker = RawWorker::join(&one, raw::hello("echo", "one", 1)).await?;
    let mut first = tasks::task("echo");
    first.alias = "first".to_owned();
    tasks::create(cluster.client(), first).await?;
    let assign = worker.take().await?;
    worker.succeed(&assign, 0, "confidential");
    assert!(worker.result_ack().await?);
    let mut second = tasks::task("echo");
    let dependency = v1::Dependency { task: "first".to_owned(), ..Default::default() };
    second.spec.get_or_insert_default().depends_on.push(dependency);
    tasks::create(cluster.client(), second).await?;
    let assign = worker.take().await?;
    let fetch = async |client: &Client| {
        let request = FetchPreviousResultRequest {
            namespace: assign.namespace.clone(),
            worker: "one".to_owned(),
            task_id: assign.task_id.clone(),
            fence: assign.fence,
            previous_task_id: assign.previous[0].task_id.clone(),
        };
        let answer = client.workers().fetch_previous_result(request).await;
        answer.map(|answer| answer.into_inner().result.unwrap_or_default().text)
    };
    assert_eq!(fetch(&one).await?, "confidential");
    let refused = fetch(&pod("uid-2")?).await.unwrap_err();
    assert_eq!(rota_testkit::client::reason(&refused).as_deref(), Some("WORKER_NOT_ANNOUNCED"));
    Ok(())
}

#[tokio::test]
async fn worker_waits_for_its_announcement() -> Result<()> {
    let key = Key::new("key", Algorithm::RS256)?;
    let issuer = Issuer::start(&[&key]).await?;
    let cluster = start_cluster(Backend::Memory, issuer.oidc()).await?;
    let operator = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    agent_of_cluster(&operator, "echo").await?;
    let task = tasks::create(&operator, super::scope::of_cluster(tasks::task("echo"))).await?;
    let worker = |name: &str, orphan_timeout| {
        let token_file = cluster.folder().join(format!("{name}.token"));
        std::fs::write(&token_file, key.sign(&issuer.pod("default", name, "uid"))?)?;
        let state = cluster.folder().join(name);
        let options = cluster.worker_options(cluster.addr(), "echo", name, 1, state)?;
        let options = rota_testkit::worker::Options {
            token: None,
            token_file: Some(token_file),
            orphan_timeout,
            ..options
        };
        anyhow::Ok(WorkerHandle::start(options))
    };
    let impatient = worker("impatient", Duration::ZERO)?;
    let refused = impatient.end().await.unwrap_err().to_string();
    assert!(refused.contains("not been announced"), "{refused}");
    let patient = worker("patient", Duration::from_secs(3600))?;

    // Meanwhile, the pool reports its problem.
    let report = async |message: &str| {
        let request =
            v1::ReportAgentRequest { name: ECHO.into(), message: message.into(), ..Default::default() };
        operator.report_agent(request).await
    };
    let causes = async || {
        let request = v1::ExplainTaskRequest { name: task.name.clone() };
        let explanation = operator.explain_task(request).await?;
        anyhow::Ok((
            explanation.causes.into_iter().map(|cause| cause.code).collect::<Vec<_>>(),
            explanation.summary,
        ))
    };
    report("the image cannot be pulled").await?;
    let (codes, summary) = causes().await?;
    assert_eq!(codes, ["workers_cannot_start", "no_worker"]);
    assert!(summary.contains("the image cannot be pulled"), "{summary}");
    let status = cluster.client().get_agent(v1::GetAgentRequest { name: ECHO.into() }).await?.status;
    assert_eq!(status.context("no status")?.message, "the image cannot be pulled");
    assert_eq!(report(&"x".repeat(1025)).await.unwrap_err().fields[0].field, "message");
    report("").await?;
    assert_eq!(causes().await?.0, ["no_worker"]);

    announce(&operator, ECHO, &[("patient", "uid")]).await?;
    tasks::until_state(cluster.client(), &task.name, TaskState::Succeeded).await?;
    patient.drain().await?;
    history::check(cluster.client(), true).await?.check()
}
