//! A gateway in front of the API of a real forge, which loses one answer: what was asked for is done all the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;

/// A running gateway. It ends with its process.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    origin: String,
    client: reqwest::Client,
    /// Whether the answer to the next POST is lost.
    loses: AtomicBool,
    calls: Mutex<Vec<String>>,
}

impl Gateway {
    /// Starts a gateway to the forge at an origin. The answer to its first POST is lost.
    pub async fn start(origin: &str) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            origin: origin.to_owned(),
            client: reqwest::Client::builder().no_proxy().build()?,
            loses: AtomicBool::new(true),
            calls: Mutex::default(),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        rota_telemetry::spawn("gateway", rota_telemetry::OnExit::Done, async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shared })
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the calls with the status of the forge.
    pub fn calls(&self) -> Vec<String> {
        self.shared.calls.lock().clone()
    }
}

async fn pass(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match answer(&shared, method, &uri, &headers, body).await {
        Ok(answer) => answer,
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

async fn answer(
    shared: &Shared,
    method: Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response> {
    let mut call = shared.client.request(method.clone(), format!("{}{uri}", shared.origin)).body(body);
    for name in [header::AUTHORIZATION, header::CONTENT_TYPE, header::IF_NONE_MATCH] {
        if let Some(value) = headers.get(&name) {
            call = call.header(name, value);
        }
    }
    let answered = call.send().await?;
    let status = answered.status();
    shared.calls.lock().push(format!("{method} {} {}", uri.path(), status.as_u16()));
    if method == Method::POST && shared.loses.swap(false, Ordering::Relaxed) {
        return Ok(StatusCode::BAD_GATEWAY.into_response());
    }
    let mut passed = Response::builder().status(status);
    for name in [header::CONTENT_TYPE, header::ETAG, header::LINK] {
        if let Some(value) = answered.headers().get(&name) {
            passed = passed.header(name, value);
        }
    }
    Ok(passed.body(Body::from(answered.bytes().await?))?)
}
