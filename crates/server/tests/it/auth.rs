//! Authentication and transports: tokens, health, reflection, gRPC-Web, TLS.

use anyhow::{Context, Result};
use prost::Message;
use rota_proto::v1::{self, TaskState};
use rota_testkit::client::{Client, Options, Token};
use rota_testkit::{Backend, Cluster, Setup, WorkerHandle, history, tasks};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const WORD: &str = "open sesame";

async fn cluster_with_token() -> Result<Cluster> {
    Cluster::start_with(Setup { token: Some(WORD.to_owned()), ..Setup::new(Backend::Memory) }).await
}

fn list_request() -> v1::ListTasksRequest {
    v1::ListTasksRequest { parent: "namespaces/default".into(), ..Default::default() }
}

#[tokio::test]
async fn calls_without_token_are_rejected() -> Result<()> {
    let cluster = cluster_with_token().await?;
    let endpoint = format!("http://{}", cluster.addr());
    for (token, reason, message) in [
        (Token::None, "TOKEN_REQUIRED", "a token is required"),
        (Token::Fixed("open sesam".into()), "TOKEN_INVALID", "wrong token"),
        (Token::Fixed("open sesame!".into()), "TOKEN_INVALID", "wrong token"),
    ] {
        let client = Client::new(Options { token, ..Options::new(endpoint.clone()) })?;
        let refused = client.list_tasks(list_request()).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.reason.as_deref()),
            (rota_testkit::client::Code::Unauthenticated, Some(reason))
        );
        assert_eq!(refused.message, message);
        let refused = client.all_agents("namespaces/default").await.unwrap_err();
        assert_eq!(refused.code, rota_testkit::client::Code::Unauthenticated);
        let status =
            rota_testkit::RawWorker::join(&client, rota_testkit::raw::hello("echo", "hand", 1)).await;
        assert!(status.unwrap_err().to_string().contains("token"));
    }
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let stranger =
        cluster.worker_options(cluster.addr(), "echo", "stranger", 1, cluster.folder().join("stranger"))?;
    let stranger = WorkerHandle::start(rota_testkit::worker::Options { token: None, ..stranger });
    assert!(stranger.end().await.is_err());
    let _worker = cluster.worker("echo", "one", 1)?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    tasks::until_state(client, &task.name, TaskState::Succeeded).await?;
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn health_is_public_and_reflection_is_not() -> Result<()> {
    let cluster = cluster_with_token().await?;
    let channel = rota_testkit::client::lazy_channel(&Options::new(format!("http://{}", cluster.addr())))?;
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "rota.v1.TaskService", "rota.v1.AgentService", "rota.worker.v1.WorkerService"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await?.into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let ask = || {
        let message_request = Some(MessageRequest::ListServices(String::new()));
        tokio_stream::once(ServerReflectionRequest { host: String::new(), message_request })
    };
    let refused = ServerReflectionClient::new(channel.clone()).server_reflection_info(ask()).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::Unauthenticated);
    let mut known = ServerReflectionClient::with_interceptor(channel, |mut request: tonic::Request<()>| {
        request
            .metadata_mut()
            .insert("authorization", tonic::metadata::MetadataValue::from_static("Bearer open sesame"));
        Ok(request)
    });
    let answer = known.server_reflection_info(ask()).await?.into_inner().message().await?;
    let Some(MessageResponse::ListServicesResponse(listed)) =
        answer.and_then(|answer| answer.message_response)
    else {
        anyhow::bail!("no list");
    };
    let names: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    for wanted in [
        "rota.v1.TaskService",
        "rota.v1.AgentService",
        "rota.v1.AdminService",
        "rota.worker.v1.WorkerService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|name| name == wanted), "{names:?}");
    }
    Ok(())
}

/// Parses the frames of a gRPC-Web response: messages, and the text of the trailers.
fn parse_frames(mut bytes: &[u8]) -> Result<(Vec<Vec<u8>>, String)> {
    let (mut messages, mut trailers) = (Vec::new(), String::new());
    while let Some((head, rest)) = bytes.split_at_checked(5) {
        let length = u32::from_be_bytes(head[1..].try_into()?);
        let (body, rest) = rest.split_at_checked(length as usize).context("cut short")?;
        if head[0] & 0x80 == 0 {
            messages.push(body.to_vec());
        } else {
            trailers += std::str::from_utf8(body)?;
        }
        bytes = rest;
    }
    Ok((messages, trailers))
}

#[tokio::test]
async fn grpc_web_calls_succeed() -> Result<()> {
    let cluster = cluster_with_token().await?;
    let made = tasks::create(cluster.client(), tasks::task("echo")).await?;
    let call = async |token: &str, message: Vec<u8>, method: &str| {
        let mut body = vec![0];
        body.extend(u32::try_from(message.len())?.to_be_bytes());
        body.extend(message);
        let url = format!("http://{}/rota.v1.TaskService/{method}", cluster.addr());
        let request = reqwest::Client::new()
            .post(url)
            .header("content-type", "application/grpc-web+proto")
            .header("x-grpc-web", "1")
            .header("authorization", format!("Bearer {token}"))
            .body(body);
        anyhow::Ok(request.send().await?)
    };
    let answer = call(WORD, list_request().encode_to_vec(), "ListTasks").await?;
    assert_eq!(answer.version(), http::Version::HTTP_11);
    assert_eq!(answer.status().as_u16(), 200);
    let (messages, trailers) = parse_frames(&answer.bytes().await?)?;
    let listed = v1::ListTasksResponse::decode(&messages[0][..])?;
    assert_eq!(listed.tasks[0].uid, made.uid);
    assert!(trailers.contains("grpc-status:0"), "{trailers:?}");
    // A stream works, too, up to its end.
    tasks::cancel(cluster.client(), &made.name).await?;
    let watch = v1::WatchTaskRequest { name: made.name.clone(), after_log_seq: 0, ..Default::default() };
    let (messages, _) = parse_frames(&call(WORD, watch.encode_to_vec(), "WatchTask").await?.bytes().await?)?;
    let last = v1::WatchTaskResponse::decode(&messages.last().context("no answer")?[..])?;
    assert_eq!(last.task.context("no task")?.status.unwrap().state(), TaskState::Cancelled);
    let answer = call("wrong", list_request().encode_to_vec(), "ListTasks").await?;
    assert_eq!(answer.headers()["grpc-status"], "16");
    // Garbage in a frame is answered with an error and does not end the connection.
    let answer = call(WORD, vec![0xff; 40], "ListTasks").await?;
    let status = answer.headers().get("grpc-status").cloned();
    let (_, trailers) = parse_frames(&answer.bytes().await?)?;
    assert!(status.is_some_and(|status| status != "0") || !trailers.contains("grpc-status:0"));
    Ok(())
}

/// Without a token, neither a page of another origin nor one whose name was given this machine's address gets through.
#[tokio::test]
async fn pages_from_elsewhere_are_refused() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let call = async |header: &str, value: &str| {
        let url = format!("http://{}/rota.v1.TaskService/ListTasks", cluster.addr());
        let request = reqwest::Client::new()
            .post(url)
            .header("content-type", "application/grpc-web+proto")
            .header(header, value)
            .body(vec![0; 5]);
        anyhow::Ok(request.send().await?.headers().get("grpc-status").cloned())
    };
    let refused = Some(http::HeaderValue::from_static("7"));
    assert_eq!(call("origin", "http://evil.example").await?, refused);
    assert_eq!(call("host", "evil.example:7420").await?, refused);
    assert_eq!(call("origin", "http://localhost:3000").await?, refused);
    assert_ne!(call("origin", &format!("http://{}", cluster.addr())).await?, refused);
    Ok(())
}

#[tokio::test]
async fn calls_over_tls_succeed() -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let tls = Some((made.cert.pem(), made.signing_key.serialize_pem()));
    let setup = Setup { tls, token: Some(WORD.to_owned()), ..Setup::new(Backend::Memory) };
    let cluster = Cluster::start_with(setup).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    tasks::until_state(client, &task.name, TaskState::Succeeded).await?;
    // Without the certificate, or without TLS, connecting fails.
    for endpoint in [format!("https://{}", cluster.addr()), format!("http://{}", cluster.addr())] {
        let mut options = Options::new(endpoint);
        options.retry_for = std::time::Duration::ZERO;
        options.tls_name = Some("localhost".to_owned());
        assert!(Client::new(options)?.list_tasks(list_request()).await.is_err());
    }
    history::check(client, true).await?.check()
}
