//! Push services to which the control plane sends: a browser names its own, which must be one of them, so that none makes the control plane
//! call another address.

use url::{Host, Url};

/// Push services of Chrome and browsers that are made of it, of Firefox, Edge and Safari.
const KNOWN: [&str; 4] =
    ["fcm.googleapis.com", "*.push.services.mozilla.com", "*.notify.windows.com", "*.push.apple.com"];
/// Bytes of an address at a push service.
const MAX_ENDPOINT: usize = 2048;

/// Push services, and who operates this control plane.
#[derive(Debug, Clone)]
pub struct WebPushOptions {
    services: Vec<Service>,
    contact: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Service {
    Origin(String),
    /// Every host whose name ends with this one, over HTTPS.
    Below(String),
}

impl Default for WebPushOptions {
    fn default() -> Self {
        let services = KNOWN.iter().filter_map(|known| Service::parse(known)).collect();
        Self { services, contact: None }
    }
}

impl WebPushOptions {
    /// Returns options with these services, as `HOST`, `*.DOMAIN` or an origin, in place of the known ones unless there are none. Push services
    /// may want a contact, as the URL of a page or a mailbox.
    pub fn new(services: &[String], contact: Option<String>) -> Result<Self, String> {
        let is_contact = |text: &String| text.starts_with("mailto:") || text.starts_with("https://");
        if let Some(wrong) = contact.as_ref().filter(|text| !is_contact(text)) {
            return Err(format!("web_push_contact {wrong:?} must begin with mailto: or https://"));
        }
        let parse = |text: &String| {
            let wrong =
                || format!("web_push_service {text:?} is no HOST, no *.DOMAIN and no https:// origin");
            Service::parse(text).ok_or_else(wrong)
        };
        let services = services.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let services = if services.is_empty() { Self::default().services } else { services };
        Ok(Self { services, contact })
    }

    pub(super) fn contact(&self) -> Option<&str> {
        self.contact.as_deref()
    }

    /// Returns the address at a push service that a browser names.
    pub(super) fn check(&self, endpoint: &str) -> Result<Url, &'static str> {
        if endpoint.len() > MAX_ENDPOINT {
            return Err("has more than 2048 bytes");
        }
        let url = Url::parse(endpoint).map_err(|_| "must be a URL")?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err("must be the address of a push service");
        }
        match self.services.iter().any(|service| service.has(&url)) {
            true => Ok(url),
            false => Err("is at no push service of --web-push-service"),
        }
    }
}

impl Service {
    fn parse(text: &str) -> Option<Self> {
        let (domain, text) = match text.strip_prefix("*.") {
            Some(domain) => (true, format!("https://{domain}")),
            None if text.contains("://") => (false, text.to_owned()),
            None => (false, format!("https://{text}")),
        };
        let url = Url::parse(&text).ok().filter(|_| !text.contains('*'))?;
        let is_loopback = match url.host()? {
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
            Host::Domain(_) => false,
        };
        let is_allowed = url.scheme() == "https" || (url.scheme() == "http" && is_loopback);
        // Nothing but an origin is left once it is written as one.
        let origin = url.origin().ascii_serialization();
        if !is_allowed || url.as_str() != format!("{origin}/") {
            return None;
        }
        match (domain, url.domain(), url.port()) {
            (false, ..) => Some(Self::Origin(origin)),
            (true, Some(domain), None) => Some(Self::Below(domain.to_owned())),
            _ => None,
        }
    }

    fn has(&self, url: &Url) -> bool {
        match self {
            Self::Origin(origin) => url.origin().ascii_serialization() == *origin,
            Self::Below(domain) => {
                let below = url.domain().and_then(|host| host.strip_suffix(domain.as_str()));
                let is_below = below.is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'));
                is_below && url.scheme() == "https" && url.port().is_none()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(services: &[&str]) -> Result<WebPushOptions, String> {
        WebPushOptions::new(&services.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>(), None)
    }

    #[test]
    fn only_listed_push_services_are_called() {
        let known = WebPushOptions::default();
        for endpoint in [
            "https://fcm.googleapis.com/fcm/send/x:y",
            "https://updates.push.services.mozilla.com/wpush/v2/x",
            "https://wns2-by3p.notify.windows.com/w/?token=x",
            "https://web.push.apple.com/x",
        ] {
            assert!(known.check(endpoint).is_ok(), "{endpoint}");
        }
        for endpoint in [
            "http://fcm.googleapis.com/x",
            "https://fcm.googleapis.com:8443/x",
            "https://fcm.googleapis.com.evil.example/x",
            "https://evil.example/fcm.googleapis.com",
            "https://fcm.googleapis.com@evil.example/x",
            "https://user@fcm.googleapis.com/x",
            "https://evilpush.apple.com/x",
            "https://.push.apple.com/x",
            "https://127.0.0.1/x",
            "http://127.0.0.1:1/x",
            "https://[::1]/x",
            "https://169.254.169.254/latest",
            "https://kubernetes.default.svc/x",
            "file:///etc/passwd",
            "fcm.googleapis.com",
            "",
        ] {
            assert!(known.check(endpoint).is_err(), "{endpoint}");
        }
        let long = format!("https://fcm.googleapis.com/{}", "x".repeat(MAX_ENDPOINT));
        assert_eq!(known.check(&long), Err("has more than 2048 bytes"));
    }

    #[test]
    fn settings_name_hosts_domains_and_origins() {
        let own = options(&["push.example", "*.own.example", "https://other.example:8443"]).unwrap();
        for endpoint in ["https://push.example/x", "https://a.own.example/x", "https://other.example:8443/x"]
        {
            assert!(own.check(endpoint).is_ok(), "{endpoint}");
        }
        assert!(own.check("https://fcm.googleapis.com/x").is_err(), "the known ones are replaced");
        assert!(options(&["http://127.0.0.1:99"]).unwrap().check("http://127.0.0.1:99/x").is_ok());
        for wrong in
            ["http://push.example", "*.127.0.0.1", "*.a.example:1", "https://a.example/x", "*", "", "a b"]
        {
            assert!(options(&[wrong]).is_err(), "{wrong:?}");
        }
        assert!(WebPushOptions::new(&[], Some("ops@rota.example".to_owned())).is_err());
    }
}
