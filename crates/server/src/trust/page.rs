//! Calls that a web page makes through its visitor's browser. A page may give its own name an address of this machine (DNS
//! rebinding), so that the browser takes the control plane for the page's server. Where no token is required, that name
//! shows in `Host` and `Origin`.

use std::net::IpAddr;

use http::HeaderName;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use tonic::Status;

use crate::wire::status;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses a call to an address of this machine under another name, or by a page of another server: its origin has another
/// authority, if only another port.
pub(super) fn check<B>(request: &http::Request<B>, on_loopback: bool) -> Result<(), Status> {
    let host = host(request);
    if on_loopback && !host.is_empty() && !is_local(host) {
        return Err(refused(&format!("host {host:?}")));
    }
    let origin = request.headers().get(ORIGIN).map(|value| value.to_str().unwrap_or_default());
    match origin {
        Some(origin) if !is_of(origin, host) => Err(refused(&format!("origin {origin:?}"))),
        _ => Ok(()),
    }
}

/// Refuses a call with the cookie of a session that another server's page may have made: browsers send it with calls of every page
/// of the same host, whatever its port. They name the page's site, or its origin when a call may change something; other programs
/// have a token. `reads` is whether the call can only read.
pub(super) fn check_cookie<B>(request: &http::Request<B>, reads: bool) -> Result<(), Status> {
    let header =
        |name: HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    let is_own = match (header(SEC_FETCH_SITE), header(ORIGIN)) {
        (Some(site), _) => site == "same-origin" || (reads && site == "none"),
        (None, Some(origin)) => is_of(origin, host(request)),
        (None, None) => reads,
    };
    if is_own {
        return Ok(());
    }
    Err(status::hinted(
        "CROSS_SITE_REFUSED",
        "calls with a session's cookie are refused unless the control plane's own pages make them",
        "call with a token: `Authorization: Bearer …`",
    ))
}

/// Returns the authority that a call is for.
fn host<B>(request: &http::Request<B>) -> &str {
    let header = || request.headers().get(HOST)?.to_str().ok();
    request.uri().authority().map(Authority::as_str).or_else(header).unwrap_or_default()
}

/// Returns whether an origin is that of pages of this host.
fn is_of(origin: &str, host: &str) -> bool {
    let authority = origin.split_once("://").unwrap_or_default().1;
    !authority.is_empty() && authority.eq_ignore_ascii_case(host)
}

fn refused(what: &str) -> Status {
    status::hinted(
        "HOST_REFUSED",
        format!("calls for {what} are refused, since no token is required"),
        "use the control plane's own pages, on localhost or its own name, or start it with a token",
    )
}

/// Returns whether an authority names this machine.
fn is_local(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn code(uri: &str, headers: &[(&str, &str)], on_loopback: bool) -> Code {
        let mut request = http::Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap(), on_loopback).err().map_or(Code::Ok, |status| status.code())
    }

    #[test]
    fn cookies_work_for_own_pages_alone() {
        let of = |headers: &[(&str, &str)], reads| {
            let mut request = http::Request::post("/a").header("host", "rota.example");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            check_cookie(&request.body(()).unwrap(), reads).is_ok()
        };
        let site = |site| [("sec-fetch-site", site)];
        let origin = |origin| [("origin", origin)];
        assert!(of(&site("same-origin"), false) && of(&site("same-origin"), true));
        for other in ["same-site", "cross-site", ""] {
            assert!(!of(&site(other), false) && !of(&site(other), true), "{other}");
        }
        // An address that a person has entered reads.
        assert!(of(&site("none"), true) && !of(&site("none"), false));
        assert!(of(&origin("https://rota.example"), false));
        for other in ["https://evil.example", "https://rota.example:3000", "null", ""] {
            assert!(!of(&origin(other), false) && !of(&origin(other), true), "{other}");
        }
        let both = [("sec-fetch-site", "cross-site"), ("origin", "https://rota.example")];
        assert!(!of(&both, false));
        assert!(of(&[], true) && !of(&[], false));
    }

    #[test]
    fn pages_under_other_names_are_refused() {
        let refused = Code::PermissionDenied;
        for local in ["localhost:7420", "127.0.0.1:7420", "[::1]:7420", "localhost"] {
            let origin = format!("http://{local}");
            assert_eq!(code("/a", &[("host", local), ("origin", &origin)], true), Code::Ok, "{local}");
            assert_eq!(code(&format!("http://{local}/a"), &[], true), Code::Ok, "{local}");
        }
        assert_eq!(code("/a", &[("host", "evil.example:7420")], true), refused);
        assert_eq!(code("http://evil.example/a", &[], true), refused);
        assert_eq!(code("/a", &[("host", "localhost"), ("origin", "http://evil.example")], true), refused);
        assert_eq!(code("/a", &[("host", "localhost"), ("origin", "null")], true), refused);
        assert_eq!(code("/a", &[("host", "localhost.evil.example")], true), refused);
        // On other addresses the control plane may have any name, and still no page from elsewhere calls it.
        assert_eq!(code("/a", &[("host", "rota.example")], false), Code::Ok);
        // Its own pages call it, those of another program on the same machine do not.
        let own = [("host", "rota.example:7420"), ("origin", "http://Rota.example:7420")];
        assert_eq!(code("/a", &own, false), Code::Ok);
        let other = [("host", "localhost:7420"), ("origin", "http://localhost:3000")];
        assert_eq!(code("/a", &other, true), refused);
        assert_eq!(code("/a", &other, false), refused);
        assert_eq!(code("/a", &[("origin", "http://localhost")], false), refused);
        assert_eq!(
            code("/a", &[("host", "rota.example"), ("origin", "http://evil.example")], false),
            refused
        );
    }
}
