//! Push messages to browsers that are subscribed, through a push service on this machine: what is in them, and when they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rota_proto::v1::script_step::Kind as Step;
use rota_proto::v1::{RetryPolicy, RevokeBrowserSessionRequest, ScriptFailure, TaskState};
use rota_server::WebPushOptions;
use rota_telemetry::{OnExit, spawn};
use rota_testkit::identity_provider::IdentityProvider;
use rota_testkit::{Backend, Cluster, Setup, tasks};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use web_push_native::Auth;
use web_push_native::p256::SecretKey;
use web_push_native::p256::elliptic_curve::sec1::ToEncodedPoint as _;

use super::browser_sessions::{Browser, reason};

const ADMIN: &str = "open sesame";
const CURRENT: &str = "browserSessions/current";
const CONTACT: &str = "mailto:ops@rota.example";
const AUTH: [u8; 16] = [3; 16];

/// A push message as it arrives.
#[derive(Debug, Clone)]
struct Message {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Message {
    /// Returns what the browser shows.
    fn shown(&self) -> Result<Value> {
        let plain = web_push_native::decrypt(self.body.to_vec(), &secret()?, &Auth::from(AUTH));
        Ok(serde_json::from_slice(&plain.context("it is not for the browser")?)?)
    }
}

/// Key of the browsers of these tests, which only they have.
fn secret() -> Result<SecretKey> {
    Ok(SecretKey::from_slice(&[7; 32])?)
}

/// A push service on a port of its own, which answers each message with a status.
struct PushService {
    origin: String,
    status: Arc<AtomicU16>,
    received: watch::Receiver<Vec<Message>>,
}

type Shared = (Arc<AtomicU16>, Arc<watch::Sender<Vec<Message>>>);

async fn receive(
    State((status, sender)): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    sender.send_modify(|all| all.push(Message { path: uri.path().to_owned(), headers, body }));
    StatusCode::from_u16(status.load(Ordering::Relaxed)).unwrap()
}

impl PushService {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let (sender, received) = watch::channel(Vec::new());
        let status = Arc::new(AtomicU16::new(201));
        let app = Router::new().fallback(receive).with_state((Arc::clone(&status), Arc::new(sender)));
        spawn("push-service", OnExit::Done, async move { axum::serve(listener, app).await.unwrap() });
        Ok(Self { origin, status, received })
    }

    fn setup(&self, backend: Backend) -> Result<Setup> {
        let web_push = WebPushOptions::new(std::slice::from_ref(&self.origin), Some(CONTACT.to_owned()));
        let web_push = web_push.map_err(anyhow::Error::msg)?;
        Ok(Setup { token: Some(ADMIN.to_owned()), web_push, ..Setup::new(backend) })
    }

    /// Returns the subscription of a browser at a path.
    fn subscription(&self, path: &str) -> Result<Value> {
        let key = secret()?.public_key().to_encoded_point(false);
        Ok(json!({
            "endpoint": format!("{}{path}", self.origin),
            "p256dh": BASE64_URL_SAFE_NO_PAD.encode(key.as_bytes()),
            "auth": BASE64_URL_SAFE_NO_PAD.encode(AUTH),
        }))
    }

    async fn subscribe(&self, browser: &Browser, path: &str) -> Result<Value> {
        let answer = browser.post(&format!("{CURRENT}:subscribeWebPush"), &self.subscription(path)?).await?;
        assert_eq!(answer.status(), StatusCode::OK);
        Ok(answer.json().await?)
    }

    /// Waits for a message at a path with this text.
    async fn until(&self, path: &str, text: &str) -> Result<Message> {
        let mut received = self.received.clone();
        let fits =
            |one: &&Message| one.path == path && one.shown().is_ok_and(|shown| shown["text"] == json!(text));
        let found = received.wait_for(|all| all.iter().any(|one| fits(&one)));
        let found = tokio::time::timeout(tasks::WAIT_TIMEOUT, found).await.context("no such message")??;
        found.iter().find(fits).cloned().context("no longer there")
    }

    fn count(&self, path: &str) -> usize {
        self.received.borrow().iter().filter(|one| one.path == path).count()
    }
}

async fn state(browser: &Browser) -> Result<Value> {
    Ok(browser.get(&format!("{CURRENT}/webPush")).await?.json().await?)
}

/// Creates a task that asks these questions, one after the other.
async fn ask(cluster: &Cluster, questions: &[&str]) -> Result<String> {
    let steps = questions.iter().map(|text| Step::Ask((*text).to_owned()));
    let steps = steps.chain([Step::Succeed("done".to_owned())]);
    Ok(tasks::create(cluster.client(), tasks::scripted("echo", steps)).await?.name)
}

#[tokio::test]
async fn questions_reach_a_subscribed_browser() -> Result<()> {
    let service = PushService::start().await?;
    let mut cluster = Cluster::start_with(service.setup(Backend::Sqlite)?).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let browser = Browser::sign_in(&cluster, ADMIN).await?;
    let before = state(&browser).await?;
    assert!(before["subscribed"].is_null(), "{before}");
    assert_eq!(service.subscribe(&browser, "/push/1").await?["subscribed"], true);
    // The page subscribes again whenever it is opened.
    assert_eq!(service.subscribe(&browser, "/push/1").await?["subscribed"], true);

    let task = ask(&cluster, &["which way?"]).await?;
    let message = service.until("/push/1", "which way?").await?;
    let id = task.rsplit('/').next().unwrap_or_default();
    let waits = tasks::until_state(cluster.client(), &task, TaskState::InputRequired).await?;
    let request = &waits.status.context("a status")?.pending_input[0].request_id;
    let shown = json!({
        "title": id,
        "text": "which way?",
        "path": format!("/tasks/default/{id}"),
        "tag": format!("{task} {request}"),
    });
    assert_eq!(message.shown()?, shown);
    let header = |name: &str| message.headers[name].to_str().unwrap_or_default();
    assert_eq!((header("content-encoding"), header("urgency")), ("aes128gcm", "high"));
    assert!(header("ttl").parse::<u64>()? > 3600 && header("topic").len() == 32);
    let authorization = header("authorization").strip_prefix("vapid t=").context("a signature")?;
    let (token, key) = authorization.split_once(", k=").context("a key")?;
    assert_eq!(before["publicKey"], key);
    let point = BASE64_URL_SAFE_NO_PAD.decode(key)?;
    let [x, y] = [&point[1..33], &point[33..]].map(|half| BASE64_URL_SAFE_NO_PAD.encode(half));
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[&service.origin]);
    let key = DecodingKey::from_ec_components(&x, &y)?;
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation)?.claims;
    assert_eq!(claims["sub"], CONTACT);

    // It outlives a restart, with the same key.
    cluster.kill().await;
    cluster.restart().await?;
    let after = state(&browser).await?;
    assert_eq!((&after["subscribed"], &after["publicKey"]), (&json!(true), &before["publicKey"]));
    ask(&cluster, &["and now?"]).await?;
    service.until("/push/1", "and now?").await?;

    // A push service that does not know the browser any more ends the subscription.
    service.status.store(410, Ordering::Relaxed);
    ask(&cluster, &["anyone?"]).await?;
    service.until("/push/1", "anyone?").await?;
    tasks::eventually("the subscription has ended", || async {
        Ok(state(&browser).await?["subscribed"].is_null())
    })
    .await
}

#[tokio::test]
async fn work_that_fails_its_checks_reaches_a_browser() -> Result<()> {
    let service = PushService::start().await?;
    let cluster = Cluster::start_with(service.setup(Backend::Memory)?).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    service.subscribe(&Browser::sign_in(&cluster, ADMIN).await?, "/push/1").await?;
    let mut failed = Vec::new();
    // Only the second is in the inbox.
    for class in ["agent", "checks"] {
        let (class, message) = (class.to_owned(), format!("failed by {class}"));
        let failure = ScriptFailure { class, message, ..ScriptFailure::default() };
        let mut task = tasks::scripted("echo", [Step::Fail(failure)]);
        let once = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
        task.spec.get_or_insert_default().retry = Some(once);
        let name = tasks::create(cluster.client(), task).await?.name;
        tasks::until_state(cluster.client(), &name, TaskState::Failed).await?;
        failed.push(name);
    }
    let message = service.until("/push/1", "failed by checks").await?;
    assert_eq!(message.shown()?["tag"], format!("{} checks", failed[1]));
    assert_eq!(service.count("/push/1"), 1);
    Ok(())
}

#[tokio::test]
async fn messages_are_sent_again_once() -> Result<()> {
    let service = PushService::start().await?;
    let cluster = Cluster::start_with(service.setup(Backend::Memory)?).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let browser = Browser::sign_in(&cluster, ADMIN).await?;
    service.subscribe(&browser, "/push/1").await?;
    service.status.store(503, Ordering::Relaxed);
    let task = ask(&cluster, &["first?", "second?"]).await?;
    let mut received = service.received.clone();
    let twice = received.wait_for(|all| all.len() == 2);
    tokio::time::timeout(tasks::WAIT_TIMEOUT, twice).await.context("no second attempt")??;
    service.status.store(201, Ordering::Relaxed);
    tasks::answer(cluster.client(), &task, "yes").await?;
    let second = service.until("/push/1", "second?").await?;
    let all = service.received.borrow().clone();
    assert_eq!(all.len(), 3, "the first one is given up");
    assert_eq!(all[0].headers["topic"], all[1].headers["topic"]);
    assert_ne!(all[0].headers["topic"], second.headers["topic"]);
    Ok(())
}

#[tokio::test]
async fn a_service_that_fails_delays_no_other_browser() -> Result<()> {
    let (service, failing) = (PushService::start().await?, PushService::start().await?);
    failing.status.store(503, Ordering::Relaxed);
    let origins = [service.origin.clone(), failing.origin.clone()];
    let web_push = WebPushOptions::new(&origins, Some(CONTACT.to_owned())).map_err(anyhow::Error::msg)?;
    let cluster = Cluster::start_with(Setup { web_push, ..service.setup(Backend::Memory)? }).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let (one, other) = (Browser::sign_in(&cluster, ADMIN).await?, Browser::sign_in(&cluster, ADMIN).await?);
    service.subscribe(&one, "/push/1").await?;
    failing.subscribe(&other, "/push/2").await?;
    let task = ask(&cluster, &["first?", "second?"]).await?;
    service.until("/push/1", "first?").await?;
    failing.until("/push/2", "first?").await?;
    tasks::answer(cluster.client(), &task, "yes").await?;
    service.until("/push/1", "second?").await?;
    assert_eq!(service.count("/push/1"), 2);
    Ok(())
}

#[tokio::test]
async fn only_browsers_with_a_session_that_may_read_are_notified() -> Result<()> {
    let service = PushService::start().await?;
    let provider = IdentityProvider::start(Algorithm::RS256, None).await?;
    let list = "[[allow]]\nsubject = 'inner'\nrole = 'viewer'\nnamespaces = ['team']\n\
        [[allow]]\nsubject = 'outer'\nrole = 'viewer'\n";
    let setup = Setup { people: Some(provider.people("", list)?), ..service.setup(Backend::Memory)? };
    let cluster = Cluster::start_with(setup).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let token = |subject: &str| provider.token(&json!({ "sub": subject }));
    let (inner, outer) = (
        Browser::sign_in(&cluster, &token("inner")?).await?,
        Browser::sign_in(&cluster, &token("outer")?).await?,
    );
    let (revoked, left, off) = (
        Browser::sign_in(&cluster, ADMIN).await?,
        Browser::sign_in(&cluster, ADMIN).await?,
        Browser::sign_in(&cluster, ADMIN).await?,
    );
    for (browser, path) in
        [(&inner, "/inner"), (&outer, "/outer"), (&revoked, "/revoked"), (&left, "/left"), (&off, "/off")]
    {
        service.subscribe(browser, path).await?;
    }
    let request = RevokeBrowserSessionRequest { name: revoked.name.clone() };
    cluster.client().revoke_browser_session(request).await?;
    left.post(&format!("{CURRENT}:signOut"), &json!({})).await?;
    let unsubscribed = off.post(&format!("{CURRENT}:unsubscribeWebPush"), &json!({})).await?;
    assert!(unsubscribed.json::<Value>().await?["subscribed"].is_null());
    let task = ask(&cluster, &["first?", "second?"]).await?;
    service.until("/outer", "first?").await?;
    tasks::answer(cluster.client(), &task, "yes").await?;
    // The first question was sent to all before.
    service.until("/outer", "second?").await?;
    for path in ["/inner", "/revoked", "/left", "/off"] {
        assert_eq!(service.count(path), 0, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn subscriptions_elsewhere_are_refused() -> Result<()> {
    let service = PushService::start().await?;
    let cluster = Cluster::start_with(service.setup(Backend::Memory)?).await?;
    let browser = Browser::sign_in(&cluster, ADMIN).await?;
    let good = service.subscription("/push/1")?;
    for (field, wrong) in [
        ("endpoint", "http://127.0.0.1:1/push".to_owned()),
        ("endpoint", service.origin.replace("http:", "https:")),
        ("endpoint", "https://169.254.169.254/latest".to_owned()),
        ("endpoint", "https://fcm.googleapis.com/fcm/send/x".to_owned()),
        ("endpoint", format!("{}/{}", service.origin, "x".repeat(4096))),
        ("p256dh", "AAAA".to_owned()),
        ("p256dh", BASE64_URL_SAFE_NO_PAD.encode([4; 65])),
        ("auth", "AAAA".to_owned()),
        ("auth", "?".to_owned()),
    ] {
        let mut subscription = good.clone();
        subscription[field] = json!(wrong);
        let answer = browser.post(&format!("{CURRENT}:subscribeWebPush"), &subscription).await?;
        let refused = (StatusCode::BAD_REQUEST, "INVALID_FIELD".to_owned());
        assert_eq!(reason(answer).await?, refused, "{field} {wrong}");
    }
    assert!(state(&browser).await?["subscribed"].is_null());
    Ok(())
}
