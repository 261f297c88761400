//! Sessions of browsers: what their cookie permits, and how they end.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use reqwest::Response;
use reqwest::header::{COOKIE, HOST, ORIGIN, SET_COOKIE};
use rota_proto::v1::RevokeBrowserSessionRequest;
use rota_server::SessionLimits;
use rota_testkit::{Backend, Cluster, Setup, tasks};
use serde_json::{Value, json};

const ADMIN: &str = "open sesame";
const VIEWER: &str = "look sesame";
const TASKS: &str = "namespaces/default/tasks";
const CURRENT: &str = "browserSessions/current";

fn setup(backend: Backend) -> Setup {
    Setup { token: Some(ADMIN.to_owned()), viewer_token: Some(VIEWER.to_owned()), ..Setup::new(backend) }
}

/// A browser with the control centre open: it has a cookie, and names the origin of its page.
pub(super) struct Browser {
    base: String,
    cookie: String,
    pub(super) name: String,
    http: reqwest::Client,
}

impl Browser {
    pub(super) async fn sign_in(cluster: &Cluster, token: &str) -> Result<Self> {
        let base = format!("http://{}", cluster.addr());
        let http = reqwest::Client::builder().no_proxy().build()?;
        let made =
            http.post(format!("{base}/api/v1/browserSessions")).bearer_auth(token).header(ORIGIN, &base);
        let made = made.header("user-agent", "Browser/1").json(&json!({})).send().await?;
        assert_eq!(made.status(), StatusCode::OK);
        let cookie = made.headers()[SET_COOKIE].to_str()?.to_owned();
        let of_port = format!("rota-session-{}=", cluster.addr().port());
        assert!(cookie.starts_with(&of_port) && cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
        let name = made.json::<Value>().await?["name"].as_str().context("a name")?.to_owned();
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        Ok(Self { base, cookie, name, http })
    }

    fn request(&self, method: http::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}/api/v1/{path}", self.base));
        request.header(COOKIE, format!("other=1; {}", self.cookie)).header("sec-fetch-site", "same-origin")
    }

    pub(super) async fn get(&self, path: &str) -> Result<Response> {
        Ok(self.request(http::Method::GET, path).send().await?)
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Response> {
        Ok(self.request(http::Method::POST, path).json(body).send().await?)
    }
}

pub(super) async fn reason(response: Response) -> Result<(StatusCode, String)> {
    let status = response.status();
    let error = response.json::<Value>().await?;
    Ok((status, error["details"][0]["reason"].as_str().unwrap_or_default().to_owned()))
}

fn ended() -> (StatusCode, String) {
    (StatusCode::UNAUTHORIZED, "SESSION_ENDED".to_owned())
}

#[tokio::test]
async fn cookie_has_the_role_of_its_token() -> Result<()> {
    let cluster = Cluster::start_with(setup(Backend::Memory)).await?;
    let admin = Browser::sign_in(&cluster, ADMIN).await?;
    let made = admin.post(TASKS, &serde_json::to_value(tasks::task("missing"))?).await?;
    assert_eq!(made.status(), StatusCode::OK);
    let current = admin.get(CURRENT).await?.json::<Value>().await?;
    assert_eq!((&current["name"], &current["userAgent"]), (&json!(admin.name), &json!("Browser/1")));
    assert!(current["viewer"].is_null() && current["expireTime"].is_string(), "{current}");

    let viewer = Browser::sign_in(&cluster, VIEWER).await?;
    let listed = viewer.get(TASKS).await?;
    assert_eq!((listed.status(), &listed.headers()["rota-role"]), (StatusCode::OK, &"viewer".parse()?));
    let refused = (StatusCode::FORBIDDEN, "ROLE_FORBIDDEN".to_owned());
    assert_eq!(reason(viewer.post(TASKS, &json!({})).await?).await?, refused);
    assert_eq!(reason(viewer.get("browserSessions").await?).await?, refused);
    let own = format!("{}:revoke", viewer.name);
    assert_eq!(reason(viewer.post(&own, &json!({})).await?).await?, refused);

    // A session opens no other one, and neither does a wrong token.
    let required = (StatusCode::UNAUTHORIZED, "TOKEN_REQUIRED".to_owned());
    assert_eq!(reason(admin.post("browserSessions", &json!({})).await?).await?, required);
    let wrong = admin.request(http::Method::POST, "browserSessions").bearer_auth("wrong").json(&json!({}));
    assert_eq!(reason(wrong.send().await?).await?.1, "TOKEN_INVALID");
    let guessed = admin.http.get(format!("{}/api/v1/{TASKS}", admin.base));
    let guessed = guessed.header(COOKIE, "__Host-rota-session=00000000000000000000000000000000");
    assert_eq!(reason(guessed.send().await?).await?, ended());
    Ok(())
}

#[tokio::test]
async fn pages_from_elsewhere_cannot_use_the_cookie() -> Result<()> {
    let cluster = Cluster::start_with(setup(Backend::Memory)).await?;
    let admin = Browser::sign_in(&cluster, ADMIN).await?;
    let call = |method: http::Method, headers: &[(&str, &str)]| {
        let request = admin.http.request(method, format!("{}/api/v1/{TASKS}", admin.base));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.header(COOKIE, &admin.cookie).json(&json!({})).send()
    };
    let refused = (StatusCode::FORBIDDEN, "CROSS_SITE_REFUSED".to_owned());
    for headers in [
        [("sec-fetch-site", "same-site"), ("x", "x")],
        [("sec-fetch-site", "cross-site"), ("origin", admin.base.as_str())],
        [("origin", "http://127.0.0.1:1"), ("x", "x")],
        // Every browser names one of both.
        [("x", "x"), ("y", "y")],
    ] {
        let answer = reason(call(http::Method::POST, &headers).await?).await?;
        assert_eq!(answer, refused, "{headers:?}");
    }
    assert_eq!(reason(call(http::Method::GET, &[("origin", "null")]).await?).await?, refused);
    // gRPC-Web of such a page: a call of gRPC is none that only reads.
    let list = format!("{}/rota.v1.TaskService/ListTasks", admin.base);
    let web = admin.http.post(list).header(COOKIE, &admin.cookie).header("origin", "http://127.0.0.1:1");
    let web = web.header("content-type", "application/grpc-web+proto").body(vec![0; 5]).send().await?;
    assert_eq!(web.headers()["grpc-status"], "7");
    // Their own page may call, by its origin as well.
    let own = call(http::Method::POST, &[("origin", admin.base.as_str())]).await?;
    assert_eq!(reason(own).await?.1, "INVALID_FIELD");
    Ok(())
}

#[tokio::test]
async fn revoked_session_ends_with_its_streams() -> Result<()> {
    let cluster = Cluster::start_with(setup(Backend::Memory)).await?;
    let (one, two) = (Browser::sign_in(&cluster, ADMIN).await?, Browser::sign_in(&cluster, ADMIN).await?);
    let watch = |browser: &Browser| {
        let request = browser.request(http::Method::GET, &format!("{TASKS}:watch"));
        request.header("accept", "text/event-stream").send()
    };
    let (watched, mut other) = (watch(&one).await?, watch(&two).await?);
    assert_eq!((watched.status(), other.status()), (StatusCode::OK, StatusCode::OK));
    let listed = cluster.client().all_browser_sessions().await?;
    assert_eq!(listed.iter().map(|session| &session.name).collect::<Vec<_>>(), [&one.name, &two.name]);
    let request = RevokeBrowserSessionRequest { name: one.name.clone() };
    assert_eq!(cluster.client().revoke_browser_session(request.clone()).await?.name, one.name);
    let streamed = watched.text().await?;
    assert!(streamed.contains("event: error") && streamed.contains("SESSION_ENDED"), "{streamed}");
    assert_eq!(reason(one.get(TASKS).await?).await?, ended());
    // The other one continues.
    tasks::create(cluster.client(), tasks::task("missing")).await?;
    while !String::from_utf8_lossy(&other.chunk().await?.context("the stream has ended")?).contains("TASK") {}
    let again = cluster.client().revoke_browser_session(request).await.unwrap_err();
    assert_eq!(again.reason.as_deref(), Some("SESSION_NOT_FOUND"));
    Ok(())
}

#[tokio::test]
async fn sessions_of_concurrent_sign_ins_are_bounded() -> Result<()> {
    let cluster = Cluster::start_with(setup(Backend::Memory)).await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/api/v1/browserSessions", cluster.addr());
    let sign_ins = (0..300).map(|_| http.post(&url).bearer_auth(VIEWER).json(&json!({})).send());
    let made: Vec<_> = futures::stream::iter(sign_ins).buffer_unordered(32).try_collect().await?;
    assert!(made.iter().all(|answer| answer.status() == StatusCode::OK));
    assert_eq!(cluster.client().all_browser_sessions().await?.len(), 256);
    Ok(())
}

#[tokio::test]
async fn sign_out_ends_the_session_and_removes_the_cookie() -> Result<()> {
    let cluster = Cluster::start_with(setup(Backend::Memory)).await?;
    let viewer = Browser::sign_in(&cluster, VIEWER).await?;
    let left = viewer.post(&format!("{CURRENT}:signOut"), &json!({})).await?;
    assert_eq!(left.status(), StatusCode::OK);
    assert!(left.headers()[SET_COOKIE].to_str()?.contains("Max-Age=0"));
    assert_eq!(reason(viewer.get(TASKS).await?).await?, ended());
    assert!(cluster.client().all_browser_sessions().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn sessions_outlive_a_restart_and_end_with_their_token() -> Result<()> {
    let mut cluster = Cluster::start_with(setup(Backend::Sqlite)).await?;
    let (admin, viewer) =
        (Browser::sign_in(&cluster, ADMIN).await?, Browser::sign_in(&cluster, VIEWER).await?);
    let left = Browser::sign_in(&cluster, ADMIN).await?;
    left.post(&format!("{CURRENT}:signOut"), &json!({})).await?;
    cluster.kill().await;
    std::fs::write(cluster.folder().join("viewers"), "another one of viewers, long enough")?;
    cluster.restart().await?;
    assert_eq!(admin.get(TASKS).await?.status(), StatusCode::OK);
    for over in [&viewer, &left] {
        assert_eq!(reason(over.get(TASKS).await?).await?, ended());
    }
    // Nothing in the store is enough to use a session.
    let (id, secret) = admin.cookie.rsplit_once('=').context("a cookie")?.1.split_at(32);
    let store = std::fs::read(cluster.folder().join("rota.sqlite"))?;
    let wal = std::fs::read(cluster.folder().join("rota.sqlite-wal")).unwrap_or_default();
    let all = [store, wal].concat();
    let has = |text: &str| all.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(has(&uuid(id)) && !has(secret));
    Ok(())
}

#[tokio::test]
async fn streams_end_with_the_token_of_their_session() -> Result<()> {
    let cluster = Cluster::start_with(setup(Backend::Memory)).await?;
    let viewer = Browser::sign_in(&cluster, VIEWER).await?;
    let watched = viewer.request(http::Method::GET, &format!("{TASKS}:watch"));
    let watched = watched.header("accept", "text/event-stream").send().await?;
    assert_eq!(watched.status(), StatusCode::OK);
    std::fs::write(cluster.folder().join("viewers"), "another one of viewers, long enough")?;
    let streamed = tokio::time::timeout(tasks::WAIT_TIMEOUT, watched.text()).await;
    let streamed = streamed.context("the stream continues")??;
    assert!(streamed.contains("the token of the session was replaced"), "{streamed}");
    assert_eq!(reason(viewer.get(TASKS).await?).await?, ended());
    Ok(())
}

fn uuid(simple: &str) -> String {
    let part = |range| simple.get(range).unwrap_or_default();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

#[tokio::test]
async fn sessions_expire_under_open_streams() -> Result<()> {
    let sessions = SessionLimits { idle: Duration::from_secs(3600), lifetime: Duration::from_secs(8) };
    let cluster = Cluster::start_with(Setup { sessions, ..setup(Backend::Memory) }).await?;
    let admin = Browser::sign_in(&cluster, ADMIN).await?;
    let watched = admin.request(http::Method::GET, &format!("{TASKS}:watch"));
    let streamed = watched.header("accept", "text/event-stream").send().await?.text().await?;
    assert!(streamed.contains("the session has expired"), "{streamed}");
    assert_eq!(reason(admin.get(TASKS).await?).await?, ended());
    Ok(())
}

#[tokio::test]
async fn pages_over_https_have_a_host_cookie() -> Result<()> {
    let cluster = Cluster::start_with(setup(Backend::Memory)).await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    // TLS ends at a proxy, which passes another host on.
    let made = http.post(format!("http://{}/api/v1/browserSessions", cluster.addr())).bearer_auth(ADMIN);
    let made = made.header(ORIGIN, "https://rota.example").header(HOST, "rota:7420").json(&json!({}));
    let made = made.send().await?;
    let cookie = made.headers()[SET_COOKIE].to_str()?.to_owned();
    assert!(cookie.starts_with("__Host-rota-session=") && cookie.contains("; Secure; Path=/;"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    let listed = http.get(format!("http://{}/api/v1/{TASKS}", cluster.addr())).header(COOKIE, cookie);
    assert_eq!(listed.header("sec-fetch-site", "same-origin").send().await?.status(), StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn open_control_plane_has_no_sessions() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let current = http.get(format!("http://{}/api/v1/{CURRENT}", cluster.addr())).send().await?;
    assert_eq!(reason(current).await?, (StatusCode::NOT_FOUND, "SESSION_NOT_FOUND".to_owned()));
    Ok(())
}
