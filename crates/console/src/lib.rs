//! The control centre in the browser, served by the control plane from the program itself. Its source is `console/`; it is a
//! client of the [HTTP API](https://docs.rs/rota-gateway) like any other, and has no rights of its own. Knows no task.
//!
//! # Main types
//!
//! - [`Layer`] answers `GET` of pages and their files, and passes everything else on: calls of gRPC are `POST`, those of the
//!   HTTP API are below `/api/`.
//!
//! # How it is built
//!
//! `scripts/console` builds `console/dist`; the build script of this crate puts its files into the program. Without them, a page
//! describes how to build them.
//!
//! # Safety
//!
//! Pages run no script and load no style but their own files, connect to nothing but their own server, and cannot be framed.
//! The session of a browser is a cookie that no script can read, and that works for calls of these pages alone.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::{Either, Ready, ready};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tonic::body::Body;

/// A file of the control centre.
struct File {
    path: &'static str,
    body: &'static [u8],
    /// The same, compressed with Brotli.
    packed: Option<&'static [u8]>,
}

static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

const INDEX: &str = "/index.html";
/// Files whose names change with their contents.
const ASSETS: &str = "/assets/";
const MISSING: &str = "<!doctype html><html lang=\"en\"><title>Rota</title><h1>Rota</h1>\
    <p>This program was built without the control centre: run scripts/console, then build it again. \
    The command line and the HTTP API work without it.</p></html>\n";
/// Scripts, styles and connections of this server only; images also of what the page itself has read. Styles of elements are set by scripts, not by attributes.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; \
    font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Whether the program contains the control centre.
pub fn is_built() -> bool {
    !FILES.is_empty()
}

/// Serves the control centre in front of other services.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    /// Whether it is served; otherwise every request is passed on.
    pub enabled: bool,
}

impl<S> tower::Layer<S> for Layer {
    type Service = Service<S>;

    fn layer(&self, inner: S) -> Service<S> {
        Service { enabled: self.enabled, inner }
    }
}

#[derive(Debug, Clone)]
pub struct Service<S> {
    enabled: bool,
    inner: S,
}

impl<S> tower::Service<Request<Body>> for Service<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if !self.enabled || !reads || path.starts_with("/api/") {
            return Either::Left(self.inner.call(request));
        }
        Either::Right(ready(Ok(respond(path, request.headers(), *request.method() == Method::HEAD))))
    }
}

/// Returns a file, or the page that shows whatever the path names.
fn respond(path: &str, headers: &HeaderMap, only_head: bool) -> Response<Body> {
    let named = FILES.iter().find(|file| file.path == path);
    if named.is_none() && path.starts_with(ASSETS) {
        return response(
            StatusCode::NOT_FOUND,
            "text/plain",
            b"there is no such file\n",
            "no-cache",
            None,
            only_head,
        );
    }
    let Some(file) = named.or_else(|| FILES.iter().find(|file| file.path == INDEX)) else {
        return response(
            StatusCode::OK,
            "text/html; charset=utf-8",
            MISSING.as_bytes(),
            "no-cache",
            None,
            only_head,
        );
    };
    let cache = if path.starts_with(ASSETS) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let (body, encoding) = match file.packed.filter(|_| accepts_brotli(headers)) {
        Some(packed) => (packed, Some("br")),
        None => (file.body, None),
    };
    response(StatusCode::OK, media_type(file.path), body, cache, encoding, only_head)
}

fn accepts_brotli(headers: &HeaderMap) -> bool {
    let listed =
        headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    listed.split(',').any(|one| {
        let (name, quality) = one.split_once(';').unwrap_or((one, ""));
        name.trim() == "br" && !matches!(quality.trim(), "q=0" | "q=0.0")
    })
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

fn response(
    status: StatusCode,
    media_type: &'static str,
    body: &'static [u8],
    cache: &'static str,
    encoding: Option<&'static str>,
    only_head: bool,
) -> Response<Body> {
    let shown = if only_head { Bytes::new() } else { Bytes::from_static(body) };
    let mut response = Response::new(Body::new(Full::new(shown)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, cache),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::VARY, "accept-encoding"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, encodings: &str) -> Response<Body> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, encodings.parse().unwrap());
        respond(path, &headers, false)
    }

    #[test]
    fn pages_forbid_foreign_scripts_and_frames() {
        for path in ["/", "/tasks/default/x", "/index.html"] {
            let page = get(path, "br");
            assert_eq!(page.status(), StatusCode::OK);
            assert_eq!(page.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
            assert_eq!(page.headers()[header::CACHE_CONTROL], "no-cache");
            let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
            assert!(!policy.contains("unsafe"));
        }
    }

    #[test]
    fn unknown_assets_are_no_pages() {
        assert_eq!(get("/assets/index-old.js", "br").status(), StatusCode::NOT_FOUND);
        assert_eq!(get("/assets/../index.html", "br").status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn scripts_are_compressed_and_kept() {
        let Some(script) = FILES.iter().find(|file| file.path.ends_with(".js")) else { return };
        let packed = get(script.path, "gzip, br;q=0.9");
        assert_eq!(packed.headers()[header::CONTENT_ENCODING], "br");
        assert!(packed.headers()[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
        for plain in ["gzip", "br;q=0"] {
            assert!(!get(script.path, plain).headers().contains_key(header::CONTENT_ENCODING));
        }
    }
}
