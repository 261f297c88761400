//! Every call of every service, made with the token of each role, and of workers in their own and in another namespace.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::uri::PathAndQuery;
use jsonwebtoken::Algorithm;
use prost::Message;
use rota_proto::v1;
use rota_proto::worker::v1 as worker;
use rota_proto::worker::v1::session_request;
use rota_server::{Role, allowed_roles};
use rota_testkit::client::reason;
use rota_testkit::identity_provider::IdentityProvider;
use rota_testkit::{Backend, Cluster, Setup, bytes_grpc, raw, tasks};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::issuer::{Issuer, Key, OPERATOR};
use super::oidc::{ECHO, announce, bearer};
use super::scope::agent_of_cluster;

const ADMIN: &str = "open sesame";
const VIEWER: &str = "look sesame";
const OWN: &str = "default";
const FOREIGN: &str = "team";

const DEVELOPERS: &str = "
[[allow]]
subject = 'everywhere'
role = 'developer'
[[allow]]
subject = 'inner'
role = 'developer'
";
/// Calls about the caller alone.
const ABOUT_CALLER: &[&str] = &[
    "IssueSignInCode",
    "CreateBrowserSession",
    "GetCurrentBrowserSession",
    "SignOut",
    "GetWebPush",
    "SubscribeWebPush",
    "UnsubscribeWebPush",
];

/// A token of each role.
struct Callers {
    cluster: Cluster,
    /// Their keys are asked for with the first token of each.
    _issuers: (Issuer, IdentityProvider),
    /// Token of a developer in one namespace.
    inner: String,
    tokens: Vec<(Role, Option<String>)>,
    /// Those of workers, by the namespace of each.
    workers: Vec<(&'static str, String)>,
}

async fn callers() -> Result<Callers> {
    let key = Key::new("key", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    let provider = IdentityProvider::start(Algorithm::RS256, None).await?;
    let list = format!("{DEVELOPERS}namespaces = ['{OWN}']\n");
    let setup = Setup {
        people: Some(provider.people("", &list)?),
        token: Some(ADMIN.to_owned()),
        viewer_token: Some(VIEWER.to_owned()),
        oidc: Some(issuer.oidc()),
        ..Setup::new(Backend::Memory)
    };
    let cluster = Cluster::start_with(setup).await?;
    let mut workers = Vec::new();
    for namespace in [OWN, FOREIGN] {
        let agent = format!("namespaces/{namespace}/agents/echo");
        let request = v1::IssueWorkerTokenRequest { agent, worker: "one".into(), ..Default::default() };
        workers.push((namespace, cluster.client().issue_worker_token(request).await?.token));
        workers.push((namespace, key.sign(&issuer.pod(namespace, "one", "uid"))?));
    }
    let mut tokens = vec![
        (Role::Anonymous, None),
        (Role::Operator, Some(key.sign(&issuer.account(OPERATOR))?)),
        (Role::Viewer, Some(VIEWER.to_owned())),
        (Role::Developer, Some(provider.token(&json!({ "sub": "everywhere" }))?)),
        (Role::Admin, Some(ADMIN.to_owned())),
    ];
    tokens.extend(workers.iter().map(|(_, token)| (Role::Worker, Some(token.clone()))));
    let inner = provider.token(&json!({ "sub": "inner" }))?;
    Ok(Callers { cluster, _issuers: (issuer, provider), inner, tokens, workers })
}

impl Callers {
    /// Makes a call with one message.
    async fn call(
        &self,
        path: &str,
        token: Option<&str>,
        message: Vec<u8>,
    ) -> Result<Result<Streaming<Bytes>, Status>> {
        let (messages, requests) = mpsc::unbounded_channel();
        messages.send(Bytes::from(message))?;
        drop(messages);
        let authorization = token.map(|token| format!("Bearer {token}").parse()).transpose()?;
        let path = PathAndQuery::try_from(path)?;
        let answer = bytes_grpc::open(self.cluster.addr(), path.clone(), authorization, requests);
        timeout(tasks::WAIT_TIMEOUT, answer).await.with_context(|| format!("{path} is not answered"))
    }

    /// Makes a call with one message. Returns the reason for which it fails.
    async fn failure(&self, path: &str, token: &str, message: Vec<u8>) -> Result<Option<String>> {
        let status = match self.call(path, Some(token), message).await? {
            Err(status) => status,
            Ok(mut answers) => match timeout(tasks::WAIT_TIMEOUT, answers.message()).await? {
                Err(status) => status,
                Ok(_) => return Ok(None),
            },
        };
        Ok(Some(reason(&status).unwrap_or_else(|| status.to_string())))
    }
}

/// Returns the paths of all calls.
fn calls() -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for set in [rota_proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET] {
        for file in prost_types::FileDescriptorSet::decode(set)?.file {
            for service in &file.service {
                let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                paths.extend(service.method.iter().map(|method| path(method.name())));
            }
        }
    }
    Ok(paths)
}

#[tokio::test]
async fn every_call_is_refused_to_other_roles() -> Result<()> {
    let callers = callers().await?;
    let calls = calls()?;
    ensure!(calls.len() > 80, "services are missing: {calls:?}");
    for path in &calls {
        let allowed = allowed_roles(path);
        for (role, token) in &callers.tokens {
            let answer = callers.call(path, token.as_deref(), Vec::new()).await?;
            // Handlers themselves refuse what a role may not do with single records.
            let refused = answer.err().filter(|status| {
                status.message().contains("may not make this call")
                    || status.message() == "a token is required"
            });
            let refused = refused.and_then(|status| reason(&status));
            let expected = match (allowed.contains(role), role) {
                (true, _) => None,
                (false, Role::Anonymous) => Some("TOKEN_REQUIRED"),
                (false, _) => Some("ROLE_FORBIDDEN"),
            };
            assert_eq!(refused.as_deref(), expected, "{path} as {role:?}");
        }
    }
    Ok(())
}

/// Returns the messages of a worker's calls that concern a namespace. A call that workers may make without an entry here fails
/// the test.
fn messages(namespace: &str) -> Vec<(&'static str, Vec<u8>)> {
    let (namespace, one) = (namespace.to_owned(), "one".to_owned());
    let parent = format!("namespaces/{namespace}");
    let task_id = "01890a5d-ac96-774b-bcce-b302099a8057".to_owned();
    let hello = worker::Hello { namespace: namespace.clone(), ..raw::hello("echo", "one", 1) };
    let hello = worker::SessionRequest { kind: Some(session_request::Kind::Hello(Box::new(hello))) };
    let previous = worker::FetchPreviousResultRequest {
        namespace: namespace.clone(),
        worker: one.clone(),
        previous_task_id: task_id.clone(),
        task_id: task_id.clone(),
        fence: 1,
    };
    let kept = worker::KeepArtifactsRequest {
        namespace: namespace.clone(),
        worker: one.clone(),
        task_id: task_id.clone(),
        fence: 1,
        artifacts: None,
    };
    let steps = worker::FetchStepResultsRequest {
        namespace: namespace.clone(),
        worker: one.clone(),
        task_id: task_id.clone(),
        fence: 1,
        page_token: String::new(),
    };
    let checkpoint = worker::FetchCheckpointRequest { namespace, worker: one, task_id, fence: 1 };
    let digests = vec![vec![1; 32]];
    let missing = v1::FindMissingPartsRequest {
        parent: parent.clone(),
        digests,
        ..v1::FindMissingPartsRequest::default()
    };
    let part = v1::UploadPartsRequest { parent: parent.clone(), data: b"part".to_vec().into() };
    let download = v1::DownloadPartsRequest { parent, digests: vec![vec![1; 32]] };
    vec![
        ("/rota.worker.v1.WorkerService/Session", hello.encode_to_vec()),
        ("/rota.worker.v1.WorkerService/FetchPreviousResult", previous.encode_to_vec()),
        ("/rota.worker.v1.WorkerService/FetchStepResults", steps.encode_to_vec()),
        ("/rota.worker.v1.WorkerService/KeepArtifacts", kept.encode_to_vec()),
        ("/rota.worker.v1.WorkerService/FetchCheckpoint", checkpoint.encode_to_vec()),
        ("/rota.v1.ArtifactService/FindMissingParts", missing.encode_to_vec()),
        ("/rota.v1.ArtifactService/UploadParts", part.encode_to_vec()),
        ("/rota.v1.ArtifactService/DownloadParts", download.encode_to_vec()),
    ]
}

#[tokio::test]
async fn every_call_of_workers_stays_in_their_namespace() -> Result<()> {
    let callers = callers().await?;
    for path in calls()? {
        let allowed = allowed_roles(&path);
        let is_of_workers = allowed.contains(&Role::Worker) && !allowed.contains(&Role::Anonymous);
        let has_entry = messages(OWN).iter().any(|(entry, _)| *entry == path);
        assert_eq!(is_of_workers, has_entry, "{path} has no entry, or one too many");
    }
    for (own, token) in &callers.workers {
        for namespace in [OWN, FOREIGN] {
            for (path, message) in messages(namespace) {
                let failure = callers.failure(path, token, message).await?;
                let refused = failure.as_deref() == Some("WORKER_NAME_MISMATCH");
                assert_eq!(refused, namespace != *own, "{path} in {namespace} by one of {own}: {failure:?}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn parts_are_for_pods_that_are_workers() -> Result<()> {
    let callers = callers().await?;
    let mut parts = messages(OWN);
    parts.retain(|(path, _)| path.starts_with("/rota.v1.ArtifactService/"));
    assert_eq!(parts.len(), 3);
    let refused = async |token: &str| {
        let mut refused = 0;
        for (path, message) in &parts {
            let failure = callers.failure(path, token, message.clone()).await?;
            refused += usize::from(failure.as_deref() == Some("WORKER_NOT_ANNOUNCED"));
        }
        anyhow::Ok(refused)
    };
    let (grant, pod) = (&callers.workers[0].1, &callers.workers[1].1);
    assert_eq!(refused(grant).await?, 0, "its token is of this control plane");
    assert_eq!(refused(pod).await?, 3, "any pod has such a token");
    let operator = callers.tokens.iter().find(|(role, _)| *role == Role::Operator);
    let operator = operator.and_then(|(_, token)| token.as_deref()).context("no token")?;
    let operator = bearer(&callers.cluster, operator)?;
    agent_of_cluster(&operator, "echo").await?;
    for (announced, expected) in [
        (vec![("one", "of a pod with its name")], 3),
        (vec![("one", "uid")], 0),
        // It was deleted, and its token is still valid.
        (vec![], 3),
    ] {
        announce(&operator, ECHO, &announced).await?;
        assert_eq!(refused(pod).await?, expected, "{announced:?}");
    }
    Ok(())
}

#[tokio::test]
async fn every_call_of_people_needs_a_permitted_namespace() -> Result<()> {
    let callers = callers().await?;
    let gateway = rota_gateway::Gateway::new("", |_| None)?;
    let mut checked = 0;
    for path in calls()? {
        let allowed = allowed_roles(&path);
        let is_own = ABOUT_CALLER.iter().any(|name| path.ends_with(name));
        if !allowed.contains(&Role::Developer) || allowed.contains(&Role::Anonymous) || is_own {
            continue;
        }
        let refused = async |message: Vec<u8>| -> Result<bool> {
            let failure = callers.failure(&path, &callers.inner, message).await?;
            Ok(failure.as_deref() == Some("NAMESPACE_FORBIDDEN"))
        };
        assert!(refused(Vec::new()).await?, "{path} without a name");
        if gateway.names(&path, &[])?.subjects.is_empty() {
            continue;
        }
        for (namespace, expected) in [(OWN, false), (FOREIGN, true), ("-", true)] {
            let message = named(&gateway, &path, &format!("namespaces/{namespace}/tasks/x"))?;
            assert_eq!(refused(message).await?, expected, "{path} in {namespace}");
        }
        checked += 1;
    }
    ensure!(checked > 40, "{checked} calls are too few");
    Ok(())
}

/// Returns the message of a call in which its subjects have this name.
fn named(gateway: &rota_gateway::Gateway, path: &str, name: &str) -> Result<Vec<u8>> {
    let text = |number: u8, value: &[u8]| {
        let length = u8::try_from(value.len()).unwrap_or_default();
        [&[number << 3 | 2, length], value].concat()
    };
    let found = |message: &Vec<u8>| {
        let names = gateway.names(path, message).ok();
        names.is_some_and(|names| names.subjects.iter().all(|subject| subject == name))
    };
    // At the top, or in a message that the request holds.
    let at_top = (1..16).map(|number| text(number, name.as_bytes()));
    let inside = (1..16).flat_map(|outer| (1..16).map(move |inner| (outer, inner)));
    let inside = inside.map(|(outer, inner)| text(outer, &text(inner, name.as_bytes())));
    at_top.chain(inside).find(found).with_context(|| format!("{path}: no field has the subject"))
}
