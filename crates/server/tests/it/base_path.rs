//! A control plane below a path of its host: behind a proxy that leaves the path in requests, and one that removes it.

use anyhow::{Context, Result};
use futures::StreamExt;
use http::header::{ACCEPT, ORIGIN, SET_COOKIE};
use http::{Method, StatusCode};
use rota_testkit::{Backend, Cluster, Setup};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const TOKEN: &str = "open sesame";

async fn cluster() -> Result<Cluster> {
    let (token, base_path) = (Some(TOKEN.to_owned()), "/team/rota".parse()?);
    Cluster::start_with(Setup { token, base_path, ..Setup::new(Backend::Memory) }).await
}

#[tokio::test]
async fn everything_is_served_with_and_without_the_path() -> Result<()> {
    let cluster = cluster().await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = |path: &str| format!("http://{}{path}", cluster.addr());
    for base in ["/team/rota", ""] {
        let tasks = format!("{base}/api/v1/namespaces/default/tasks");
        let list = http.get(url(&tasks)).bearer_auth(TOKEN).send().await?;
        assert_eq!(list.status(), StatusCode::OK, "{tasks}");
        let events = http.get(url(&format!("{tasks}:watch"))).bearer_auth(TOKEN);
        let events = events.header(ACCEPT, "text/event-stream").send().await?;
        assert_eq!(events.headers()["content-type"], "text/event-stream");
        let first = events.bytes_stream().next().await.context("no event")??;
        assert!(!first.is_empty());
        let document: Value =
            http.get(url(&format!("{base}/api/v1/openapi.json"))).send().await?.json().await?;
        assert_eq!(document["servers"], json!([{ "url": "/team/rota" }]));
        for path in ["", "/", "/tasks/default/x?line=1"] {
            let page = http.get(url(&format!("{base}{path}"))).send().await?;
            assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8", "{base}{path}");
        }
        let missing = http.get(url(&format!("{base}/assets/none.js"))).send().await?;
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
        let mut socket = format!("ws://{}{base}/api/v1/ws", cluster.addr()).into_client_request()?;
        let offer = "rota.v1, rota.token.b3BlbiBzZXNhbWU".parse()?;
        socket.headers_mut().insert("sec-websocket-protocol", offer);
        tokio_tungstenite::client_async(socket, TcpStream::connect(cluster.addr()).await?).await?;
    }
    // Clients of gRPC need no path.
    assert!(cluster.client().all_browser_sessions().await?.is_empty());
    let other = http.get(url("/team/rota.v1.TaskService/api/v1/system:status")).send().await?;
    assert_eq!(other.headers()["content-type"], "text/html; charset=utf-8", "it is another path");
    Ok(())
}

#[tokio::test]
async fn sessions_belong_to_the_path() -> Result<()> {
    let cluster = cluster().await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/team/rota/api/v1/browserSessions", cluster.addr());
    for (origin, start, path) in [
        ("http://localhost:7420", "rota-session-7420=", "; Path=/team/rota/api/;"),
        ("https://example.com", "__Host-rota-session.team.rota=", "; Path=/;"),
    ] {
        let request = http.request(Method::POST, &url).bearer_auth(TOKEN).json(&json!({}));
        let answer =
            request.header(ORIGIN, origin).header("host", origin.split("//").nth(1).unwrap()).send().await?;
        assert_eq!(answer.status(), StatusCode::OK, "{origin}");
        let cookie = answer.headers()[SET_COOKIE].to_str()?;
        assert!(cookie.starts_with(start) && cookie.contains(path), "{cookie}");
    }
    Ok(())
}
