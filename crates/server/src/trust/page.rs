//! Calls that a web page makes through its visitor's browser. A page may give its own name an address of this machine (DNS
//! rebinding), so that the browser takes the control plane for the page's server. Where no token is required, that name
//! shows in `Host` and `Origin`.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use tonic::Status;

use crate::wire::status;

/// Refuses a call to an address of this machine under another name, or by a page of another server: its origin has another
/// authority, if only another port.
pub(super) fn check<B>(request: &http::Request<B>, on_loopback: bool) -> Result<(), Status> {
    let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    let host = request.uri().authority().map(Authority::as_str).or_else(|| header(HOST)).unwrap_or_default();
    if on_loopback && !host.is_empty() && !is_local(host) {
        return Err(refused(&format!("host {host:?}")));
    }
    match header(ORIGIN) {
        Some(origin) if !is_of(origin, host) => Err(refused(&format!("origin {origin:?}"))),
        _ => Ok(()),
    }
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
