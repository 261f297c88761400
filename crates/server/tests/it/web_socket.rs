//! Feeds and commands over one WebSocket, with a plain client.

mod feeds;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{SinkExt, StreamExt};
use http::StatusCode;
use http::header::{ORIGIN, SET_COOKIE};
use rota_proto::v1::script_step::Kind as Step;
use rota_server::{SessionLimits, ShutdownOutcome};
use rota_testkit::{Backend, Cluster, Setup, tasks};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

const ADMIN: &str = "open sesame";
const VIEWER: &str = "look sesame";
/// `ADMIN` in Base64 for addresses.
const OFFER: (&str, &str) = ("sec-websocket-protocol", "rota.v1, rota.token.b3BlbiBzZXNhbWU");
const PARENT: &str = "namespaces/default";

fn setup() -> Setup {
    Setup {
        token: Some(ADMIN.to_owned()),
        viewer_token: Some(VIEWER.to_owned()),
        cors_origins: vec!["https://app.example".to_owned(), "http://app.example:3000".to_owned()],
        ..Setup::new(Backend::Memory)
    }
}

async fn cluster() -> Result<Cluster> {
    Cluster::start_with(setup()).await
}

struct Socket(WebSocketStream<TcpStream>);

/// Opens a WebSocket; the status of the answer if it is refused.
async fn open(
    cluster: &Cluster,
    headers: &[(&'static str, &str)],
) -> Result<Result<Socket, (StatusCode, Value)>> {
    let mut request = format!("ws://{}/api/v1/ws", cluster.addr()).into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse()?);
    }
    let stream = TcpStream::connect(cluster.addr()).await?;
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(Ok(Socket(socket))),
        Err(Error::Http(refused)) => {
            let error = refused.body().as_deref().map(serde_json::from_slice).transpose()?;
            Ok(Err((refused.status(), error.unwrap_or_default())))
        }
        Err(error) => Err(error.into()),
    }
}

async fn connect(cluster: &Cluster, headers: &[(&'static str, &str)]) -> Result<Socket> {
    match open(cluster, headers).await? {
        Ok(socket) => Ok(socket),
        Err(refused) => bail!("refused: {refused:?}"),
    }
}

fn reason(error: &Value) -> &str {
    error["details"][0]["reason"].as_str().unwrap_or_default()
}

impl Socket {
    async fn send(&mut self, message: Value) -> Result<()> {
        Ok(self.0.send(Message::text(message.to_string())).await?)
    }

    /// Returns the next message; how the connection has ended, if it has.
    async fn next(&mut self) -> Result<Result<Value, Option<CloseFrame>>> {
        loop {
            let next = tokio::time::timeout(tasks::WAIT_TIMEOUT, self.0.next()).await.context("silence")?;
            match next {
                Some(Ok(Message::Text(text))) => return Ok(Ok(serde_json::from_str(&text)?)),
                Some(Ok(Message::Close(frame))) => return Ok(Err(frame)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(Err(None)),
            }
        }
    }

    /// Waits for a message; others are passed over.
    async fn until(&mut self, kind: &str, id: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            match self.next().await? {
                Ok(message) if message["type"] == kind && message["id"] == id && holds(&message) => {
                    return Ok(message);
                }
                Ok(_) => {}
                Err(end) => bail!("the connection has ended before {kind} of {id}: {end:?}"),
            }
        }
    }

    async fn subscribe(&mut self, id: &str, channel: &str, more: Value) -> Result<()> {
        let mut wanted = json!({ "type": "subscribe", "id": id, "channel": channel, "parent": PARENT });
        for (name, value) in more.as_object().into_iter().flatten() {
            wanted[name] = value.clone();
        }
        self.send(wanted).await?;
        self.until("subscribed", id, |_| true).await.map(drop)
    }

    /// Returns the code with which the server ends the connection.
    async fn close_code(&mut self) -> Result<u16> {
        loop {
            match self.next().await? {
                Ok(_) => {}
                Err(Some(frame)) => return Ok(frame.code.into()),
                Err(None) => bail!("the connection has ended without a reason"),
            }
        }
    }
}

fn is_state(message: &Value, name: &str, state: &str) -> bool {
    message["task"]["name"] == name && message["task"]["status"]["state"] == state
}

#[tokio::test]
async fn feeds_and_commands_share_a_connection() -> Result<()> {
    let cluster = cluster().await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 2)?;
    let before = tasks::create(cluster.client(), tasks::task("missing")).await?.name;
    let mut socket = connect(&cluster, &[OFFER]).await?;
    socket.subscribe("tasks", "tasks", json!({})).await?;
    let whole = socket.until("snapshot", "tasks", |part| part["complete"] == true).await?;
    assert_eq!(whole["items"][0]["name"], before);
    socket.subscribe("agents", "agents", json!({})).await?;
    socket
        .until("snapshot", "agents", |part| part["items"][0]["name"] == format!("{PARENT}/agents/echo"))
        .await?;
    socket.until("snapshot", "agents", |part| part["complete"] == true).await?;
    socket.subscribe("system", "system", json!({ "parent": "" })).await?;
    let system = socket.until("system_status", "system", |_| true).await?;
    assert_eq!(system["status"]["state"], "SYSTEM_STATE_HEALTHY", "{system}");

    // A command is a call as any other: with its key it works once, and its task appears in the feed.
    let task = serde_json::to_value(tasks::scripted(
        "echo",
        [Step::Ask("go?".into()), Step::Succeed("done".into())],
    ))?;
    let create =
        json!({ "type": "create", "id": "c", "parent": PARENT, "task": task, "idempotencyKey": "once" });
    socket.send(create.clone()).await?;
    let name = socket.until("result", "c", |_| true).await?["result"]["name"].clone();
    let name = name.as_str().context("a name")?.to_owned();
    socket.send(create).await?;
    assert_eq!(socket.until("result", "c", |_| true).await?["result"]["name"], name);
    let asks = tasks::until_state(cluster.client(), &name, rota_proto::v1::TaskState::InputRequired).await?;
    let question = asks.status.context("a status")?.pending_input[0].request_id.clone();
    let input = json!({ "requestId": question, "text": "yes" });
    socket.send(json!({ "type": "answer", "id": "a", "name": name, "input": input })).await?;
    let done = socket
        .until("task_completed", "tasks", |message| is_state(message, &name, "TASK_STATE_SUCCEEDED"))
        .await?;
    assert!(done["token"].as_str().is_some_and(|token| !token.is_empty()), "{done}");

    let work = json!({ "spec": { "runtime": { "scripted": { "steps": [{ "succeed": "x" }] } } } });
    let agent = format!("{PARENT}/agents/echo");
    socket.send(json!({ "type": "assign", "id": "g", "agent": agent, "task": work })).await?;
    let assigned = socket.until("result", "g", |_| true).await?;
    assert_eq!(assigned["result"]["spec"]["target"]["agent"], "echo");
    socket.send(json!({ "type": "cancel", "id": "k", "name": before, "reason": "enough" })).await?;
    socket
        .until("task_completed", "tasks", |message| is_state(message, &before, "TASK_STATE_CANCELLED"))
        .await?;

    // Agents come and go.
    tasks::agent(cluster.client(), "other", tasks::script([]), &[]).await?;
    let other = format!("{PARENT}/agents/other");
    socket.until("agent_created", "agents", |message| message["agent"]["name"] == other).await?;
    socket.send(json!({ "type": "terminate", "id": "t", "name": other })).await?;
    socket.until("agent_terminated", "agents", |message| message["deleted"] == other).await?;
    // Nothing comes of a subscription that has ended, and its id is free.
    socket.send(json!({ "type": "unsubscribe", "id": "tasks" })).await?;
    socket.until("unsubscribed", "tasks", |_| true).await?;
    socket.subscribe("tasks", "tasks", json!({ "snapshot": false })).await
}

#[tokio::test]
async fn subscriptions_continue_from_their_position() -> Result<()> {
    let (cluster, stranger) = (cluster().await?, cluster().await?);
    let mut socket = connect(&cluster, &[OFFER]).await?;
    socket.subscribe("t", "tasks", json!({ "snapshot": false })).await?;
    let first = tasks::create(cluster.client(), tasks::task("missing")).await?.name;
    let seen = socket.until("task_progress", "t", |message| message["task"]["name"] == first).await?;
    drop(socket);
    let second = tasks::create(cluster.client(), tasks::task("missing")).await?.name;
    let mut socket = connect(&cluster, &[OFFER]).await?;
    socket.subscribe("t", "tasks", json!({ "token": seen["token"] })).await?;
    let missed = loop {
        match socket.next().await? {
            Ok(message) if message["type"] == "task_progress" => break message,
            Ok(message) => ensure!(message["type"] == "position", "{message}"),
            Err(end) => bail!("{end:?}"),
        }
    };
    assert_eq!(missed["task"]["name"], second);

    // A position of another store: what exists is sent again, then changes.
    let mut other = connect(&stranger, &[OFFER]).await?;
    other.subscribe("t", "tasks", json!({ "snapshot": false })).await?;
    tasks::create(stranger.client(), tasks::task("missing")).await?;
    let token = other.until("task_progress", "t", |_| true).await?["token"].clone();
    socket.subscribe("u", "tasks", json!({ "token": token })).await?;
    socket.until("error_recovery", "u", |message| message["resync"] == true).await?;
    let whole = socket.until("snapshot", "u", |part| part["complete"] == true).await?;
    assert_eq!(whole["items"].as_array().map(Vec::len), Some(2), "{whole}");
    let third = tasks::create(cluster.client(), tasks::task("missing")).await?.name;
    socket.until("task_progress", "u", |message| message["task"]["name"] == third).await.map(drop)
}

#[tokio::test]
async fn handshakes_need_credentials_and_an_own_origin() -> Result<()> {
    let cluster = cluster().await?;
    let own = format!("http://{}", cluster.addr());
    for (headers, expected) in [
        (&[][..], (StatusCode::UNAUTHORIZED, "TOKEN_REQUIRED")),
        (&[("authorization", "Bearer wrong")][..], (StatusCode::UNAUTHORIZED, "TOKEN_INVALID")),
        (
            &[("sec-websocket-protocol", "rota.v1, rota.token.eA")][..],
            (StatusCode::UNAUTHORIZED, "TOKEN_INVALID"),
        ),
        (&[OFFER, ("origin", "https://evil.example")][..], (StatusCode::FORBIDDEN, "ORIGIN_REFUSED")),
        (&[OFFER, ("origin", "null")][..], (StatusCode::FORBIDDEN, "ORIGIN_REFUSED")),
    ] {
        let (status, error) = open(&cluster, headers).await?.err().context("it was opened")?;
        assert_eq!((status, reason(&error)), expected, "{headers:?}");
    }
    for origin in [own.as_str(), "https://app.example"] {
        connect(&cluster, &[OFFER, ("origin", origin)]).await?.subscribe("a", "agents", json!({})).await?;
    }
    // Where no token is required, pages of other programs are refused, too.
    let trusting = Cluster::start(Backend::Memory).await?;
    let refused = open(&trusting, &[("origin", "http://localhost:3000")]).await?;
    assert_eq!(refused.err().map(|(status, _)| status), Some(StatusCode::FORBIDDEN));
    connect(&trusting, &[]).await?.subscribe("a", "agents", json!({})).await?;
    let plain = reqwest::Client::builder().no_proxy().build()?.get(format!("{own}/api/v1/ws")).send().await?;
    assert_eq!(
        (plain.status(), plain.headers()["upgrade"].to_str()?),
        (StatusCode::UPGRADE_REQUIRED, "websocket")
    );
    Ok(())
}

#[tokio::test]
async fn viewers_follow_and_command_nothing() -> Result<()> {
    let cluster = cluster().await?;
    let mut socket = connect(&cluster, &[("authorization", "Bearer look sesame")]).await?;
    socket.subscribe("t", "tasks", json!({})).await?;
    let task = serde_json::to_value(tasks::task("missing"))?;
    socket.send(json!({ "type": "create", "id": "c", "parent": PARENT, "task": task })).await?;
    assert_eq!(reason(&socket.until("error", "c", |_| true).await?["error"]), "ROLE_FORBIDDEN");
    socket.send(json!({ "type": "cancel", "id": "d", "name": "tasks/x" })).await?;
    assert_eq!(reason(&socket.until("error", "d", |_| true).await?["error"]), "PATH_UNKNOWN");
    Ok(())
}

/// Signs a browser in; returns its cookie and the name of its session.
async fn sign_in(base: &str) -> Result<(String, String)> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let made = http.post(format!("{base}/api/v1/browserSessions")).bearer_auth(ADMIN).header(ORIGIN, base);
    let made = made.json(&json!({})).send().await?;
    let cookie = made.headers()[SET_COOKIE].to_str()?.split(';').next().unwrap_or_default().to_owned();
    Ok((cookie, made.json::<Value>().await?["name"].as_str().context("a name")?.to_owned()))
}

#[tokio::test]
async fn sessions_end_their_connections() -> Result<()> {
    let cluster = cluster().await?;
    let base = format!("http://{}", cluster.addr());
    let (cookie, name) = sign_in(&base).await?;
    let own = [("cookie", cookie.as_str()), ("origin", base.as_str())];
    let foreign = [("cookie", cookie.as_str()), ("origin", "http://app.example:3000")];
    let refused = open(&cluster, &foreign).await?;
    assert_eq!(refused.err().map(|(status, _)| status), Some(StatusCode::FORBIDDEN));
    let mut socket = connect(&cluster, &own).await?;
    socket.subscribe("t", "tasks", json!({})).await?;
    let task = serde_json::to_value(tasks::task("missing"))?;
    socket.send(json!({ "type": "create", "id": "c", "parent": PARENT, "task": task })).await?;
    socket.until("result", "c", |_| true).await?;
    let revoke = rota_proto::v1::RevokeBrowserSessionRequest { name };
    cluster.client().admin().revoke_browser_session(revoke).await?;
    assert_eq!(socket.close_code().await?, 4401);
    Ok(())
}

#[tokio::test]
async fn expired_sessions_end_their_connections() -> Result<()> {
    let sessions = SessionLimits { idle: Duration::from_secs(3600), lifetime: Duration::from_secs(8) };
    let cluster = Cluster::start_with(Setup { sessions, ..setup() }).await?;
    let base = format!("http://{}", cluster.addr());
    let (cookie, _) = sign_in(&base).await?;
    let own = [("cookie", cookie.as_str()), ("origin", base.as_str())];
    let mut socket = connect(&cluster, &own).await?;
    socket.subscribe("t", "tasks", json!({})).await?;
    assert_eq!(socket.close_code().await?, 4401);
    let refused = open(&cluster, &own).await?;
    assert_eq!(refused.err().map(|(status, _)| status), Some(StatusCode::UNAUTHORIZED));
    Ok(())
}

#[tokio::test]
async fn hostile_clients_are_bounded() -> Result<()> {
    let mut cluster = cluster().await?;
    let mut socket = connect(&cluster, &[OFFER]).await?;
    for text in ["{", "[]", "{\"id\":\"x\",\"type\":\"subscribe\",\"channel\":\"moods\"}"] {
        socket.0.send(Message::text(text)).await?;
        let refused = socket.next().await?.ok().context("an answer")?;
        assert_eq!((refused["type"].as_str(), reason(&refused["error"])), (Some("error"), "MESSAGE_INVALID"));
    }
    // Also a message as large as one may be.
    socket.0.send(Message::text(format!("\"{}\"", "x".repeat((8 << 20) - 2)))).await?;
    assert_eq!(reason(&socket.next().await?.ok().context("an answer")?["error"]), "MESSAGE_INVALID");
    let (mut counted, mut is_whole) = ((0, 0), false);
    for id in 0..1000 {
        let wanted =
            json!({ "type": "subscribe", "id": id.to_string(), "channel": "agents", "parent": PARENT });
        socket.send(wanted).await?;
    }
    while counted.0 + counted.1 < 1000 || !is_whole {
        let message = socket.next().await?.ok().context("an answer")?;
        is_whole |= message["id"] == "0" && message["complete"] == true;
        match message["type"].as_str() {
            Some("subscribed") => counted.0 += 1,
            Some("error") => {
                assert_eq!(reason(&message["error"]), "SUBSCRIPTIONS_EXHAUSTED");
                counted.1 += 1;
            }
            _ => {}
        }
    }
    assert_eq!(counted, (32, 968));
    // It still works, and so do others.
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    socket.until("agent_created", "0", |_| true).await?;
    socket.0.send(Message::binary(vec![1, 2, 3])).await?;
    assert_eq!(socket.close_code().await?, 1003);

    // A frame that claims to be large is refused before it is there.
    let mut socket = connect(&cluster, &[OFFER]).await?;
    let claimed = [&[0x81, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
    socket.0.get_mut().write_all(&claimed).await?;
    assert_eq!(socket.close_code().await?, 1009);
    let mut socket = connect(&cluster, &[OFFER]).await?;
    // Without a mask, and with bits that mean nothing.
    socket.0.get_mut().write_all(&[0xf1, 0x01, b'x']).await?;
    assert_eq!(socket.close_code().await?, 1002);

    let mut socket = connect(&cluster, &[OFFER]).await?;
    socket.subscribe("a", "agents", json!({})).await?;
    cluster.begin_stop();
    assert_eq!(socket.close_code().await?, 1001);
    ensure!(cluster.ended().await.is_some_and(|ended| ended.is_ok()));
    Ok(())
}

/// A connection that is over for the server may last as long as its client likes, and the next owner waits for the store.
#[tokio::test]
async fn silent_client_keeps_no_store_open() -> Result<()> {
    for (grace, outcome) in [(3600, ShutdownOutcome::Graceful), (1, ShutdownOutcome::Forced)] {
        let mut setup = Setup::new(Backend::Memory);
        setup.timing.shutdown_grace = Duration::from_secs(grace);
        let mut cluster = Cluster::start_with(setup).await?;
        let mut socket = connect(&cluster, &[]).await?;
        socket.subscribe("a", "agents", json!({})).await?;
        let store = cluster.store().context("no store")?;
        cluster.begin_stop();
        // Reads, and does not answer the end of the connection.
        let ended = socket.0.get_mut().read_to_end(&mut Vec::new()).await;
        let tick = rota_store::Command::tick(1);
        let closed = store.apply(vec![tick]).await;
        assert!(closed.is_err(), "the connection has ended first: {ended:?}");
        assert_eq!(cluster.ended().await.context("it does not end")??, outcome);
    }
    Ok(())
}
