//! A small OpenID Connect provider on this machine, with a key made at run time: code flow with PKCE, device flow, refresh tokens.
//! There is no page: the person of the test is signed in wherever a browser is sent to. Knows nothing of Rota but its list of people.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
pub use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header};
use parking_lot::Mutex;
use rota_server::People;
use rota_telemetry::{OnExit, clock, spawn};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;
use uuid::Uuid;

/// Client that the provider knows.
pub const CLIENT: &str = "rota";

/// A signing key of an issuer, with its public half.
#[derive(Clone)]
pub struct SigningKey {
    id: String,
    algorithm: Algorithm,
    signs: EncodingKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Makes a key for ES256 or RS256.
    pub fn new(id: &str, algorithm: Algorithm) -> Result<Self> {
        let signs = match algorithm {
            Algorithm::ES256 => {
                EncodingKey::from_ec_pem(rcgen::KeyPair::generate()?.serialize_pem().as_bytes())?
            }
            _ => {
                let size = rcgen::RsaKeySize::_2048;
                let made = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size)?;
                EncodingKey::from_rsa_pem(made.serialize_pem().as_bytes())?
            }
        };
        Ok(Self { id: id.to_owned(), algorithm, signs })
    }

    /// Returns the public half, as issuers publish it.
    pub fn public(&self) -> Result<Jwk> {
        let mut jwk = Jwk::from_encoding_key(&self.signs, self.algorithm)?;
        jwk.common.key_id = Some(self.id.clone());
        Ok(jwk)
    }

    /// Returns a token with these claims.
    pub fn sign(&self, claims: &Value) -> Result<String> {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) };
        Ok(jsonwebtoken::encode(&header, claims, &self.signs)?)
    }
}

/// What the provider does with the next sign-in.
#[derive(Debug, Clone)]
pub struct Behavior {
    /// Claims of the person who signs in.
    pub person: Value,
    /// `nonce` in place of the one of the request.
    pub nonce: Option<String>,
    /// Whether the person refuses to sign in.
    pub denies: bool,
    /// Seconds for which tokens are valid.
    pub lifetime: i64,
    /// Whether the person has entered the code of a device.
    pub device_approved: bool,
    /// Whether the provider offers the device flow.
    pub has_device_flow: bool,
}

struct Grant {
    redirect_uri: String,
    nonce: Option<String>,
    challenge: String,
}

struct Provider {
    url: String,
    key: SigningKey,
    secret: Option<String>,
    behavior: Mutex<Behavior>,
    codes: Mutex<HashMap<String, Grant>>,
    devices: Mutex<Vec<String>>,
    refresh_tokens: Mutex<Vec<String>>,
    refreshes: AtomicUsize,
}

/// A provider, until it is dropped.
pub struct IdentityProvider {
    provider: Arc<Provider>,
    folder: tempfile::TempDir,
    _stop: DropGuard,
}

impl std::fmt::Debug for IdentityProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdentityProvider").field("url", &self.provider.url).finish_non_exhaustive()
    }
}

impl IdentityProvider {
    /// Starts a provider that signs in this way, for a client with this secret, or without one.
    pub async fn start(algorithm: Algorithm, secret: Option<&str>) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let provider = Arc::new(Provider {
            url: format!("http://{}", listener.local_addr()?),
            key: SigningKey::new("key", algorithm)?,
            secret: secret.map(str::to_owned),
            behavior: Mutex::new(Behavior {
                person: json!({ "sub": "ada", "email": "ada@rota.example" }),
                nonce: None,
                denies: false,
                lifetime: 3600,
                device_approved: true,
                has_device_flow: true,
            }),
            codes: Mutex::default(),
            devices: Mutex::default(),
            refresh_tokens: Mutex::default(),
            refreshes: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/authorize", get(authorize))
            .route("/device", post(device))
            .route("/token", post(token))
            .with_state(Arc::clone(&provider));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        spawn("identity-provider", OnExit::Done, async move {
            tokio::select! {
                served = axum::serve(listener, router) => drop(served),
                () = stopped => {}
            }
        });
        Ok(Self { provider, folder: tempfile::tempdir()?, _stop: stop.drop_guard() })
    }

    /// Returns the issuer of all tokens.
    pub fn url(&self) -> &str {
        &self.provider.url
    }

    /// Returns how many times tokens were renewed.
    pub fn refreshes(&self) -> usize {
        self.provider.refreshes.load(Ordering::Relaxed)
    }

    /// Returns a token that renews a login, once.
    pub fn refresh_token(&self) -> String {
        let token = Uuid::new_v4().to_string();
        self.provider.refresh_tokens.lock().push(token.clone());
        token
    }

    /// Changes what the provider does from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behavior)) {
        change(&mut self.provider.behavior.lock());
    }

    /// Returns a token with claims of a person, which may replace others.
    pub fn token(&self, person: &Value) -> Result<String> {
        self.provider.key.sign(&self.provider.claims(person, None, 3600))
    }

    /// Returns the text of a file for `--sign-in` with a list, and further keys at its begin.
    pub fn sign_in(&self, more: &str, allow: &str) -> String {
        format!("issuer = '{}'\nclient_id = '{CLIENT}'\n{more}\n{allow}", self.url())
    }

    /// Returns the people of a list.
    pub fn people(&self, more: &str, allow: &str) -> Result<People> {
        let path = self.folder.path().join("sign-in.toml");
        std::fs::write(&path, self.sign_in(more, allow))?;
        std::fs::write(self.folder.path().join("secret"), self.provider.secret.as_deref().unwrap_or("none"))?;
        Ok(People::load(&path)?)
    }
}

impl Provider {
    fn claims(&self, person: &Value, nonce: Option<&str>, lifetime: i64) -> Value {
        let now = clock::unix_micros() / 1_000_000;
        let mut claims =
            json!({ "iss": self.url, "aud": CLIENT, "iat": now, "exp": now + lifetime, "nonce": nonce });
        for (name, value) in person.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        claims
    }

    fn tokens(&self, nonce: Option<&str>) -> Response {
        let behavior = self.behavior.lock().clone();
        let nonce = behavior.nonce.as_deref().or(nonce);
        let claims = self.claims(&behavior.person, nonce, behavior.lifetime);
        let Ok(token) = self.key.sign(&claims) else { return refused("server_error") };
        let refresh_token = Uuid::new_v4().to_string();
        self.refresh_tokens.lock().push(refresh_token.clone());
        Json(json!({
            "access_token": token,
            "id_token": token,
            "token_type": "Bearer",
            "expires_in": behavior.lifetime.max(0),
            "refresh_token": refresh_token,
        }))
        .into_response()
    }

    /// Whether a request is that of the client, with its secret if it has one.
    fn is_client(&self, form: &HashMap<String, String>, headers: &HeaderMap) -> bool {
        // As forms encode both (RFC 6749, 2.3.1).
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let basic = |secret: &String| BASE64_STANDARD.encode(format!("{CLIENT}:{}", encoded(secret)));
        let expected = self.secret.as_ref().map(|secret| format!("Basic {}", basic(secret)));
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match expected {
            Some(expected) => given == Some(&expected),
            None => form.get("client_id").is_some_and(|id| id == CLIENT),
        }
    }
}

fn refused(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response()
}

async fn discovery(State(provider): State<Arc<Provider>>) -> Json<Value> {
    let url = &provider.url;
    let mut found = json!({
        "issuer": url,
        "jwks_uri": format!("{url}/keys"),
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
    });
    if provider.behavior.lock().has_device_flow {
        found["device_authorization_endpoint"] = json!(format!("{url}/device"));
    }
    Json(found)
}

async fn keys(State(provider): State<Arc<Provider>>) -> Json<Value> {
    Json(json!({ "keys": [provider.key.public().ok()] }))
}

async fn authorize(
    State(provider): State<Arc<Provider>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let of = |name: &str| query.get(name).cloned().unwrap_or_default();
    let is_valid = of("client_id") == CLIENT
        && of("response_type") == "code"
        && of("code_challenge_method") == "S256"
        && of("scope").split(' ').any(|scope| scope == "openid");
    let Some(mut back) = Url::parse(&of("redirect_uri")).ok().filter(|_| is_valid) else {
        return refused("invalid_request");
    };
    if provider.behavior.lock().denies {
        back.query_pairs_mut().append_pair("error", "access_denied").append_pair("state", &of("state"));
    } else {
        let code = Uuid::new_v4().to_string();
        let grant = Grant {
            redirect_uri: of("redirect_uri"),
            nonce: query.get("nonce").cloned(),
            challenge: of("code_challenge"),
        };
        back.query_pairs_mut().append_pair("code", &code).append_pair("state", &of("state"));
        provider.codes.lock().insert(code, grant);
    }
    (StatusCode::FOUND, [(header::LOCATION, back.to_string())]).into_response()
}

async fn device(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    if !provider.is_client(&form, &headers) {
        return refused("invalid_client");
    }
    let code = Uuid::new_v4().to_string();
    provider.devices.lock().push(code.clone());
    Json(json!({
        "device_code": code,
        "user_code": "WDJB-MJHT",
        "verification_uri": format!("{}/enter", provider.url),
        "expires_in": Duration::from_secs(600).as_secs(),
        "interval": 1,
    }))
    .into_response()
}

async fn token(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    if !provider.is_client(&form, &headers) {
        return refused("invalid_client");
    }
    let of = |name: &str| form.get(name).cloned().unwrap_or_default();
    match of("grant_type").as_str() {
        "authorization_code" => {
            let verifier = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(of("code_verifier")));
            match provider.codes.lock().remove(&of("code")) {
                Some(grant) if grant.redirect_uri == of("redirect_uri") && grant.challenge == verifier => {
                    provider.tokens(grant.nonce.as_deref())
                }
                _ => refused("invalid_grant"),
            }
        }
        "refresh_token" => {
            let mut known = provider.refresh_tokens.lock();
            let Some(at) = known.iter().position(|token| *token == of("refresh_token")) else {
                return refused("invalid_grant");
            };
            // Each works once.
            known.remove(at);
            drop(known);
            provider.refreshes.fetch_add(1, Ordering::Relaxed);
            provider.tokens(None)
        }
        "urn:ietf:params:oauth:grant-type:device_code" => {
            if !provider.devices.lock().contains(&of("device_code")) {
                return refused("invalid_grant");
            }
            let approved = provider.behavior.lock().device_approved;
            if approved { provider.tokens(None) } else { refused("authorization_pending") }
        }
        _ => refused("unsupported_grant_type"),
    }
}
