//! The control centre in the browser, served by the control plane from the program itself. Its source is `console/`; it is a
//! client of the [HTTP API](https://docs.rs/rota-gateway) like any other, and has no rights of its own. Knows no task.
//!
//! # Main types
//!
//! - [`Pages`] is the page for one base path: the same files are built for each.
//! - [`Pages::answer`] answers `GET` of pages and their files, and nothing else: calls of gRPC are `POST`, those of the HTTP
//!   API are below `/api/`.
//!
//! # How it is built
//!
//! `scripts/console` builds `console/dist`; the build script of this crate puts its files into the program. Without them, a page
//! describes how to build them.
//!
//! # Safety
//!
//! Pages run no script but their own files, load no style but these and those of their scripts (by a nonce), connect to nothing but their own server, and cannot be framed.
//! The session of a browser is a cookie that no script can read, and that works for calls of these pages alone.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tonic::body::Body;
use uuid::Uuid;

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
/// Stands for the nonce in the page as it is built.
const NONCE: &str = "ROTA_NONCE";
/// Scripts, styles and connections of this server only; images also of what the page itself has read. Styles of elements are set by scripts, not by attributes.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; \
    font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The control centre below a path.
#[derive(Debug, Clone)]
pub struct Pages {
    /// Page as it is built, in which [`NONCE`] stands for the nonce of a response.
    index: Arc<str>,
}

impl Pages {
    /// Returns the pages for a base path such as `/rota`; empty for the root.
    pub fn new(base: &str) -> Self {
        let built = FILES.iter().find(|file| file.path == INDEX);
        let built = built.and_then(|file| std::str::from_utf8(file.body).ok()).unwrap_or(MISSING);
        Self { index: Self::built(built, base) }
    }

    /// The build names its files relative to the page, which is shown at paths of any depth.
    fn built(index: &str, base: &str) -> Arc<str> {
        index.replace("\"./", &format!("\"{base}/")).into()
    }

    /// Returns the response to a request of a page or a file; `None` to all others.
    pub fn answer<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let path = request.uri().path();
        let only_head = *request.method() == Method::HEAD;
        let reads = only_head || *request.method() == Method::GET;
        (reads && !path.starts_with("/api/")).then(|| self.respond(path, request.headers(), only_head))
    }

    /// Returns a file, or the page that shows whatever the path names.
    fn respond(&self, path: &str, headers: &HeaderMap, only_head: bool) -> Response<Body> {
        let is_asset = path.starts_with(ASSETS);
        let Some(file) = FILES.iter().find(|file| file.path == path && file.path != INDEX) else {
            if is_asset {
                let body = Bytes::from_static(b"there is no such file\n");
                let mut missing = response("text/plain", body, only_head);
                *missing.status_mut() = StatusCode::NOT_FOUND;
                return missing;
            }
            return self.page(only_head);
        };
        let packed = file.packed.filter(|_| accepts_brotli(headers));
        let body = Bytes::from_static(packed.unwrap_or(file.body));
        let mut response = response(media_type(file.path), body, only_head);
        let headers = response.headers_mut();
        if is_asset {
            let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
            headers.insert(header::CACHE_CONTROL, forever);
        }
        if packed.is_some() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
        }
        response
    }

    /// Returns the page with a nonce of its own.
    fn page(&self, only_head: bool) -> Response<Body> {
        let nonce = Uuid::new_v4().simple().to_string();
        let body = self.index.replace(NONCE, &nonce).into();
        let mut response = response("text/html; charset=utf-8", body, only_head);
        let policy = POLICY.replace("style-src 'self'", &format!("style-src 'self' 'nonce-{nonce}'"));
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        response
    }
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

fn response(media_type: &'static str, body: Bytes, only_head: bool) -> Response<Body> {
    let length = body.len();
    let shown = if only_head { Bytes::new() } else { body };
    let mut response = Response::new(Body::new(Full::new(shown)));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::VARY, "accept-encoding"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn get(path: &str, encodings: &str) -> Response<Body> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, encodings.parse().unwrap());
        Pages::new("").respond(path, &headers, false)
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

    #[tokio::test]
    async fn pages_name_their_files_below_the_base_path() {
        let text = async |pages: &Pages| {
            let page = pages.respond("/tasks/default/x", &HeaderMap::new(), false);
            let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
            let body = page.into_body().collect().await.unwrap().to_bytes();
            (policy, String::from_utf8(body.to_vec()).unwrap())
        };
        for base in ["", "/rota", "/team/rota"] {
            let pages =
                Pages { index: Pages::built("<script src=\"./assets/a.js\" nonce=\"ROTA_NONCE\">", base) };
            let (policy, page) = text(&pages).await;
            assert!(page.contains(&format!("src=\"{base}/assets/a.js\"")), "{page}");
            let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
            assert!(page.contains(&format!("nonce=\"{nonce}\"")), "{page}");
            assert_ne!(text(&pages).await.0, policy, "each page has a nonce of its own");
            let built = text(&Pages::new(base)).await.1;
            assert!(!built.contains("\"./") && !built.contains(NONCE), "{built}");
        }
    }

    /// `scripts/image` looks for it in a program.
    #[test]
    fn only_the_built_page_names_scripts() {
        let names = |page: &str| page.contains("src=\"./assets/");
        let built = FILES.iter().find(|file| file.path == INDEX);
        assert!(built.is_none_or(|file| names(std::str::from_utf8(file.body).unwrap())));
        assert!(!names(MISSING));
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
