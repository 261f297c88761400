//! One WebSocket for many feeds and commands: the handshake. Each feed and each command is a call of the same services with the
//! credentials of the handshake, so that roles, limits and errors are those of other requests. Adds no feed of its own.
//!
//! Tokens are in a subprotocol, since a page can set no header, and addresses end up in logs.

mod caller;
mod connection;
mod message;
mod subscription;

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderName, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use rota_telemetry::{OnExit, spawn};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;

use self::caller::Caller;
use crate::call::Inner;
use crate::{Gateway, status};

/// Path at which a WebSocket is opened.
pub const SOCKET: &str = "/api/v1/ws";
/// Version of the messages, as a subprotocol.
const PROTOCOL: &str = "rota.v1";
/// Subprotocol that has a token, in Base64 for addresses.
const TOKEN: &str = "rota.token.";
/// Headers of the handshake that count for the calls of its connection.
const PASSED: [HeaderName; 5] =
    [http::header::COOKIE, HOST, ORIGIN, HeaderName::from_static("sec-fetch-site"), http::header::USER_AGENT];

/// What the connections of a server have in common.
#[derive(Debug, Clone)]
pub struct Sockets {
    /// Ends all open connections when it is cancelled.
    pub stop: CancellationToken,
    /// Connections that are open, for the shutdown.
    pub open: TaskTracker,
    /// Origins whose pages may open one with a token, besides the server's own.
    pub origins: Arc<[HeaderValue]>,
}

/// Answers a handshake, and serves its connection from then on.
pub(crate) async fn accept<S: Inner>(
    gateway: Arc<Gateway>,
    inner: S,
    sockets: Sockets,
    mut request: Request<Body>,
) -> Response<Body> {
    let refuse = |status: Box<Status>| status::response(&gateway.pool, &status);
    let Some(key) = key(&request) else {
        let hint = "open it with a WebSocket client, over HTTP/1.1";
        let mut response =
            refuse(status::error("WEBSOCKET_EXPECTED", "the path is that of a WebSocket", hint));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        return response;
    };
    if !sockets.permits(request.headers()) {
        let hint =
            "name the origin with --cors-origin, or open the connection from the control plane's own pages";
        return refuse(status::error(
            "ORIGIN_REFUSED",
            "pages of this origin may not open a WebSocket",
            hint,
        ));
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    let mut headers: HeaderMap = PASSED
        .into_iter()
        .filter_map(|name| Some((name.clone(), parts.headers.get(name)?.clone())))
        .collect();
    headers.extend(authorization(&parts.headers).map(|value| (AUTHORIZATION, value)));
    let caller = Caller { gateway: Arc::clone(&gateway), inner, headers, extensions: parts.extensions };
    let checked = caller.check();
    if let Err(refused) = checked.await {
        return refuse(refused);
    }
    let served = async move {
        match upgraded.await {
            Ok(stream) => connection::serve(stream, caller, sockets.stop).await,
            Err(error) => tracing::debug!(%error, "a WebSocket was not opened"),
        }
    };
    spawn("web-socket", OnExit::Done, sockets.open.track_future(Box::pin(served)));
    switch(&key, &parts.headers)
}

impl Sockets {
    /// Whether the page that opens a connection may do so. Programs that are no pages name no origin.
    fn permits(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(ORIGIN) else { return true };
        let own = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let is_own = own.is_some_and(|(_, authority)| {
            authority.parse::<Authority>().is_ok() && authority.eq_ignore_ascii_case(host)
        });
        is_own || self.origins.contains(origin)
    }
}

/// Returns the key of a handshake, if a request is one.
fn key(request: &Request<Body>) -> Option<Vec<u8>> {
    let headers = request.headers();
    let names = |name: HeaderName, token: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
    };
    let is_handshake = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && names(CONNECTION, "upgrade")
        && names(UPGRADE, "websocket")
        && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| is_handshake)?;
    Some(key.as_bytes().to_vec())
}

/// Returns the subprotocols that a client offers.
fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

/// Returns the credentials of the handshake: its header, or the token among its subprotocols.
fn authorization(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(AUTHORIZATION).cloned().or_else(|| {
        let token = protocols(headers).find_map(|protocol| protocol.strip_prefix(TOKEN))?;
        let token = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let mut value = HeaderValue::from_bytes(&[b"Bearer ", token.as_slice()].concat()).ok()?;
        value.set_sensitive(true);
        Some(value)
    })
}

/// Returns the answer after which the connection is a WebSocket.
fn switch(key: &[u8], headers: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key)) {
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if protocols(headers).any(|protocol| protocol == PROTOCOL) {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(named: &[(HeaderName, &str)]) -> HeaderMap {
        named.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn pages_of_other_origins_are_refused_unless_listed() {
        let sockets = Sockets {
            stop: CancellationToken::new(),
            open: TaskTracker::new(),
            origins: [HeaderValue::from_static("https://app.example")].into(),
        };
        let permits = |origin| sockets.permits(&headers(&[(HOST, "rota.example:7420"), (ORIGIN, origin)]));
        assert!(sockets.permits(&headers(&[(HOST, "rota.example:7420")])));
        assert!(permits("https://rota.example:7420") && permits("https://app.example"));
        for other in ["https://rota.example", "http://app.example", "null", "", "rota.example:7420"] {
            assert!(!permits(other), "{other:?}");
        }
    }

    #[test]
    fn tokens_are_in_a_subprotocol_or_a_header() {
        let token = BASE64_URL_SAFE_NO_PAD.encode("a+b&c%20d");
        let offered = format!("rota.v1, rota.token.{token}");
        let of = |named: &[_]| authorization(&headers(named));
        assert_eq!(of(&[(SEC_WEBSOCKET_PROTOCOL, &offered)]).unwrap(), "Bearer a+b&c%20d");
        let both = [(SEC_WEBSOCKET_PROTOCOL, offered.as_str()), (AUTHORIZATION, "Bearer x")];
        assert_eq!(of(&both).unwrap(), "Bearer x");
        assert_eq!(of(&[(SEC_WEBSOCKET_PROTOCOL, "rota.v1, rota.token.***")]), None);
        let answer = switch(b"dGhlIHNhbXBsZSBub25jZQ==", &headers(&[(SEC_WEBSOCKET_PROTOCOL, &offered)]));
        assert_eq!(answer.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer.headers()[SEC_WEBSOCKET_PROTOCOL], "rota.v1");
    }
}
