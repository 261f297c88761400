//! A real OIDC issuer on this machine: keys generated at run time, served as a cluster serves its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use anyhow::Result;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use jsonwebtoken::jwk::Jwk;
use rota_server::Oidc;
use rota_telemetry::{OnExit, clock, spawn};
pub(super) use rota_testkit::identity_provider::SigningKey as Key;
use serde_json::{Value, json};
use std::sync::Mutex;

pub(super) const OPERATOR: &str = "system:serviceaccount:rota:rota-operator";
const BEARER: &str = "may read keys";

#[derive(Default)]
struct Published {
    keys: Mutex<Vec<Jwk>>,
    away: AtomicBool,
    asked: AtomicUsize,
    url: Mutex<String>,
    /// Another issuer whose keys the discovery document names.
    elsewhere: Mutex<Option<String>>,
}

pub(super) struct Issuer {
    published: Arc<Published>,
    addr: SocketAddr,
    folder: tempfile::TempDir,
}

impl Issuer {
    pub(super) async fn start(keys: &[&Key]) -> Result<Self> {
        let published = Arc::<Published>::default();
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(key_set))
            .with_state(Arc::clone(&published));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        *published.url.lock().unwrap() = format!("http://{addr}");
        spawn("issuer", OnExit::Done, async move { axum::serve(listener, router).await });
        let issuer = Self { published, addr, folder: tempfile::tempdir()? };
        std::fs::write(issuer.token_file(), BEARER)?;
        issuer.list(keys)?;
        Ok(issuer)
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// Replaces the keys that the issuer publishes from now on.
    pub(super) fn list(&self, keys: &[&Key]) -> Result<()> {
        *self.published.keys.lock().unwrap() = keys.iter().map(|key| key.public()).collect::<Result<_>>()?;
        Ok(())
    }

    /// Has the discovery document name the keys of another issuer.
    pub(super) fn name_keys_of(&self, other: &Self) {
        *self.published.elsewhere.lock().unwrap() = Some(other.url());
    }

    pub(super) fn set_away(&self, away: bool) {
        self.published.away.store(away, SeqCst);
    }

    /// Returns how often the keys were fetched.
    pub(super) fn asked(&self) -> usize {
        self.published.asked.load(SeqCst)
    }

    /// Returns the settings of a control plane that fetches the keys for each unknown key id.
    pub(super) fn oidc(&self) -> Oidc {
        Oidc {
            token_file: Some(self.token_file()),
            operator: Some(OPERATOR.to_owned()),
            refetch: Duration::ZERO,
            ..Oidc::new(self.url(), "rota")
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns the claims of a pod's service account token, to be modified.
    pub(super) fn pod(&self, namespace: &str, name: &str, uid: &str) -> Value {
        let mut claims = self.account("system:serviceaccount:team:default");
        claims["kubernetes.io"] = json!({
            "namespace": namespace,
            "pod": { "name": name, "uid": uid },
            "serviceaccount": { "name": "default", "uid": "1" },
        });
        claims
    }

    pub(super) fn account(&self, subject: &str) -> Value {
        let now = now();
        json!({ "iss": self.url(), "aud": ["rota"], "sub": subject, "iat": now, "nbf": now, "exp": now + 3600 })
    }
}

pub(super) fn now() -> i64 {
    clock::unix_micros() / 1_000_000
}

fn allowed(published: &Published, headers: &HeaderMap) -> Result<(), StatusCode> {
    if published.away.load(SeqCst) {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let shown = headers.get("authorization").and_then(|value| value.to_str().ok());
    if shown == Some(&format!("Bearer {BEARER}")) { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
}

async fn discovery(
    State(published): State<Arc<Published>>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    allowed(&published, &headers)?;
    let url = published.url.lock().unwrap().clone();
    let keys = published.elsewhere.lock().unwrap().clone().unwrap_or_else(|| url.clone());
    Ok(Json(json!({ "issuer": url, "jwks_uri": format!("{keys}/keys") })))
}

async fn key_set(
    State(published): State<Arc<Published>>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    published.asked.fetch_add(1, SeqCst);
    allowed(&published, &headers)?;
    // Issuers also publish keys of unsupported types.
    let mut keys = vec![json!({ "kty": "unheard of", "kid": "x" })];
    keys.extend(published.keys.lock().unwrap().iter().map(|key| json!(key)));
    Ok(Json(json!({ "keys": keys })))
}
