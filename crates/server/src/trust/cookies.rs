//! The cookie of a browser session. Over HTTPS no other server can set it (`__Host-`), and no plain connection carries it. Browsers
//! keep cookies by host and not by port, so that over plain HTTP each control plane of a host has a name of its own.

use std::time::Duration;

use cookie::{Cookie, SameSite};
use http::HeaderMap;
use http::header::{COOKIE, HOST, ORIGIN};
use http::uri::Authority;
use url::Url;

use crate::base_path::BasePath;

const SECURE: &str = "__Host-rota-session";
const PLAIN: &str = "rota-session-";
/// Path of what the cookie is sent to over plain HTTP, below the base path: other programs on the same host rarely have it.
const PLAIN_PATH: &str = "/api/";
const FLOW_SECURE: &str = "__Host-rota-sign-in";
const FLOW_PLAIN: &str = "rota-sign-in-";
const FLOW_PATH: &str = "/sign-in";
/// Cookies of a call that are tried: other control planes of the host have one each.
const MAX_TRIED: usize = 16;

/// What the cookies of a control plane depend on. Over HTTPS, those of two control planes of one host differ by their names, since
/// cookies with `__Host-` have no path of their own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cookies {
    /// Whether connections to the server itself have TLS.
    pub(crate) has_tls: bool,
    pub(crate) base: BasePath,
}

impl Cookies {
    /// Returns the cookie for the origin of a call, which is that of its page: a proxy may end TLS in front of the server. Other
    /// callers name no origin: theirs is that of the connection.
    pub(crate) fn of(&self, headers: &HeaderMap) -> SessionCookie {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (is_secure, authority) = match header(ORIGIN).and_then(|origin| origin.split_once("://")) {
            Some((scheme, authority)) => (scheme.eq_ignore_ascii_case("https"), authority),
            None => (self.has_tls, header(HOST).unwrap_or_default()),
        };
        let port = || authority.parse::<Authority>().ok()?.port_u16();
        SessionCookie { port: (!is_secure).then(|| port().unwrap_or(80)), base: self.base.clone() }
    }

    /// Returns the cookie for pages at an address.
    pub(crate) fn of_page(&self, page: &Url) -> SessionCookie {
        let port = page.port_or_known_default();
        SessionCookie { port: port.filter(|_| page.scheme() != "https"), base: self.base.clone() }
    }

    /// Returns the values of a call's cookies that may be sessions of this control plane, the most trustworthy ones first: pages of
    /// sibling domains can set any cookie except one with `__Host-`. Over HTTPS there is no other one.
    pub(super) fn values(&self, headers: &HeaderMap) -> impl Iterator<Item = String> + use<> {
        let secure = secure(SECURE, &self.base);
        let own = self.of(headers).port.map(|port| format!("{PLAIN}{port}"));
        let is_ours = |name: &str| name == secure || (own.is_some() && name.starts_with(PLAIN));
        let mut ours: Vec<_> = all(headers).filter(|cookie| is_ours(cookie.name())).collect();
        ours.sort_by_key(|cookie| (cookie.name() != secure, Some(cookie.name()) != own.as_deref()));
        let values: Vec<_> =
            ours.into_iter().take(MAX_TRIED).map(|cookie| cookie.value().to_owned()).collect();
        values.into_iter()
    }
}

/// Cookie of the page that makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionCookie {
    /// Port of the page over plain HTTP; `None` over HTTPS.
    port: Option<u16>,
    base: BasePath,
}

/// Returns the name of a cookie over HTTPS.
fn secure(name: &str, base: &BasePath) -> String {
    format!("{name}{}", base.as_str().replace('/', "."))
}

impl SessionCookie {
    fn flow_name(&self) -> String {
        self.port.map_or_else(|| secure(FLOW_SECURE, &self.base), |port| format!("{FLOW_PLAIN}{port}"))
    }

    /// Returns a path below that of the control plane.
    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str())
    }

    /// Returns the header that sets the cookie of a sign-in, with which a browser comes back from another site.
    pub(crate) fn set_flow(&self, value: &str, lifetime: Duration) -> String {
        let age = cookie::time::Duration::try_from(lifetime).unwrap_or(cookie::time::Duration::MAX);
        let cookie = Cookie::build((self.flow_name(), value.to_owned()));
        let cookie = match self.port {
            None => cookie.path("/").secure(true),
            Some(_) => cookie.path(self.path(FLOW_PATH)),
        };
        cookie.http_only(true).same_site(SameSite::Lax).max_age(age).to_string()
    }

    /// Returns the value of the cookie of a sign-in.
    pub(crate) fn flow(&self, headers: &HeaderMap) -> Option<String> {
        let name = self.flow_name();
        all(headers).find(|cookie| cookie.name() == name).map(|cookie| cookie.value().to_owned())
    }

    /// Returns the header that sets the cookie.
    pub(crate) fn set(&self, value: &str, lifetime: Duration) -> String {
        let age = cookie::time::Duration::try_from(lifetime).unwrap_or(cookie::time::Duration::MAX);
        let cookie = match self.port {
            None => Cookie::build((secure(SECURE, &self.base), value.to_owned())).path("/").secure(true),
            Some(port) => {
                Cookie::build((format!("{PLAIN}{port}"), value.to_owned())).path(self.path(PLAIN_PATH))
            }
        };
        cookie.http_only(true).same_site(SameSite::Strict).max_age(age).to_string()
    }

    /// Returns the header that removes the cookie.
    pub(crate) fn remove(&self) -> String {
        self.set("", Duration::ZERO)
    }
}

fn all(headers: &HeaderMap) -> impl Iterator<Item = Cookie<'_>> {
    let all = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    all.flat_map(Cookie::split_parse).filter_map(Result::ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(named: &[(http::HeaderName, &str)]) -> HeaderMap {
        named.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn cookies(has_tls: bool) -> Cookies {
        Cookies { has_tls, ..Cookies::default() }
    }

    #[test]
    fn control_planes_of_one_host_have_cookies_of_their_own() {
        let of = |base: &str| Cookies { has_tls: true, base: base.parse().unwrap() };
        let (one, other) = (of("/team/rota"), of("/rota"));
        let minute = Duration::from_secs(60);
        assert_eq!(
            one.of(&HeaderMap::new()).set("v", minute),
            "__Host-rota-session.team.rota=v; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=60"
        );
        let both = headers(&[(
            COOKIE,
            "__Host-rota-session.rota=y; __Host-rota-session.team.rota=x; __Host-rota-session=z",
        )]);
        assert_eq!(one.values(&both).collect::<Vec<_>>(), ["x"]);
        assert_eq!(other.values(&both).collect::<Vec<_>>(), ["y"]);
        let page = "https://rota.example/team/rota".parse().unwrap();
        let flow = one.of_page(&page).set_flow("v", minute);
        assert!(flow.starts_with("__Host-rota-sign-in.team.rota=v;") && flow.contains("; Path=/;"), "{flow}");
        assert_eq!(other.of_page(&page).flow(&headers(&[(COOKIE, &flow)])), None);
        // Over plain HTTP they have paths.
        let plain = headers(&[(ORIGIN, "http://localhost:7420")]);
        assert!(
            one.of(&plain)
                .set("v", minute)
                .contains("rota-session-7420=v; HttpOnly; SameSite=Strict; Path=/team/rota/api/;")
        );
        let page = "http://localhost:7420/team/rota".parse().unwrap();
        assert!(one.of_page(&page).set_flow("v", minute).contains("; Path=/team/rota/sign-in;"));
    }

    #[test]
    fn cookies_are_as_safe_as_their_connection() {
        let of =
            |named: &[_], has_tls| cookies(has_tls).of(&headers(named)).set("v", Duration::from_secs(60));
        let secure = "__Host-rota-session=v; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=60";
        assert_eq!(of(&[(HOST, "rota.example")], true), secure);
        // TLS ends at a proxy.
        assert_eq!(of(&[(HOST, "rota:7420"), (ORIGIN, "https://rota.example")], false), secure);
        assert_eq!(
            of(&[(HOST, "127.0.0.1:7420"), (ORIGIN, "http://127.0.0.1:7420")], false),
            "rota-session-7420=v; HttpOnly; SameSite=Strict; Path=/api/; Max-Age=60"
        );
        assert!(of(&[(ORIGIN, "http://[::1]:7421")], false).starts_with("rota-session-7421=v;"));
        assert!(of(&[(ORIGIN, "null")], false).starts_with("rota-session-80=v;"));
        let removed = cookies(true).of(&HeaderMap::new()).remove();
        assert_eq!(removed, "__Host-rota-session=; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=0");
    }

    #[test]
    fn sign_ins_come_back_from_other_sites() {
        let of = |page: &str| cookies(false).of_page(&page.parse().unwrap());
        let set = of("https://rota.example").set_flow("v", Duration::from_secs(60));
        assert_eq!(set, "__Host-rota-sign-in=v; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=60");
        let set = of("http://localhost:7420").set_flow("v", Duration::from_secs(60));
        assert_eq!(set, "rota-sign-in-7420=v; HttpOnly; SameSite=Lax; Path=/sign-in; Max-Age=60");
        let both = headers(&[(COOKIE, "rota-sign-in-7420=plain; __Host-rota-sign-in=secure")]);
        assert_eq!(of("https://rota.example").flow(&both).as_deref(), Some("secure"));
        assert_eq!(of("http://localhost:7420").flow(&both).as_deref(), Some("plain"));
        assert_eq!(of("http://localhost:7421").flow(&both), None);
    }

    #[test]
    fn values_come_from_all_headers() {
        let mut both = headers(&[(COOKIE, "a=b; rota-session-1=x")]);
        both.append(COOKIE, "__Host-rota-session=y".parse().unwrap());
        assert_eq!(cookies(false).values(&both).collect::<Vec<_>>(), ["y", "x"]);
        assert_eq!(cookies(false).values(&headers(&[(COOKIE, "rota=x; =; ;;")])).count(), 0);
        let many = (0..100).map(|port| format!("rota-session-{port}=x")).collect::<Vec<_>>().join("; ");
        assert_eq!(cookies(false).values(&headers(&[(COOKIE, &many)])).count(), MAX_TRIED);
    }

    #[test]
    fn cookies_of_other_pages_hide_none() {
        let junk = (0..100).map(|port| format!("rota-session-{port}=x; ")).collect::<String>();
        let all = format!("{junk}rota-session-7420=own; __Host-rota-session=secure");
        let first = |named: &[_], has_tls| {
            let mut headers = headers(named);
            headers.append(COOKIE, all.parse().unwrap());
            cookies(has_tls).values(&headers).take(3).collect::<Vec<_>>()
        };
        assert_eq!(first(&[(HOST, "127.0.0.1:7420")], false), ["secure", "own", "x"]);
        // Other pages of the domain could set those without `__Host-`.
        assert_eq!(first(&[(HOST, "rota.example")], true), ["secure"]);
        assert_eq!(first(&[(HOST, "rota:7420"), (ORIGIN, "https://rota.example")], false), ["secure"]);
    }
}
