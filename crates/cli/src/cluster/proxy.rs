//! The proxy on the way to a cluster, chosen as kubectl does: that of the kubeconfig, or else that of the environment, which has
//! exceptions. The library of Kubernetes compares `NO_PROXY` with the proxy instead of the cluster.

use std::net::IpAddr;

use http::Uri;
use http::uri::InvalidUri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::Kubeconfig;

/// Returns the proxy that a kubeconfig names for the cluster of a context.
pub(super) fn named(kubeconfig: &Kubeconfig, context: Option<&str>) -> Option<String> {
    let context = context.or(kubeconfig.current_context.as_deref())?;
    let context = kubeconfig.contexts.iter().find(|one| one.name == context)?.context.as_ref()?;
    let cluster = kubeconfig.clusters.iter().find(|one| one.name == context.cluster)?.cluster.as_ref()?;
    cluster.proxy_url.clone().filter(|url| !url.is_empty())
}

/// Returns a variable, which may also be written in small letters.
pub(super) fn variable(environment: impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    environment(name).or_else(|| environment(&name.to_lowercase()))
}

/// Whether a cluster is on this machine, which the proxy of the environment is never asked for.
fn is_local(cluster: &Uri) -> bool {
    let host = cluster.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(is_loopback)
}

/// Returns the proxy for a cluster: the one that is named, or that of the environment, unless `NO_PROXY` has the cluster.
pub(super) fn proxy_of(
    cluster: &Uri,
    named: Option<String>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Uri>, InvalidUri> {
    if let Some(named) = named {
        return named.parse().map(Some);
    }
    if is_local(cluster) {
        return Ok(None);
    }
    let Some(proxy) = variable(&environment, "HTTPS_PROXY") else { return Ok(None) };
    let exceptions = variable(&environment, "NO_PROXY").unwrap_or_default();
    if exceptions.split(',').any(|one| one.trim() == "*") {
        return Ok(None);
    }
    // Only asked for exceptions: any proxy will do.
    let matcher = Matcher::builder().all("http://proxy.invalid").no(exceptions).build();
    match matcher.intercept(cluster) {
        Some(_) => proxy.parse().map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_of_the_cluster() {
        const PROXY: &str = "socks5://proxy.corp:1080";
        let proxy = |cluster: &str, exceptions: &str| {
            let environment = |name: &str| match name {
                "HTTPS_PROXY" => Some(PROXY.to_owned()),
                "no_proxy" => Some(exceptions.to_owned()).filter(|text| !text.is_empty()),
                _ => None,
            };
            proxy_of(&cluster.parse().unwrap(), None, environment).unwrap()
        };
        for (cluster, exceptions, is_used) in [
            ("https://k8s.corp:6443", "", true),
            ("https://k8s.corp:6443", "other.corp", true),
            // The proxy itself is no exception.
            ("https://k8s.corp:6443", "proxy.corp", true),
            ("https://k8s.corp:6443", "k8s.corp", false),
            ("https://k8s.corp:6443", "localhost, .corp", false),
            ("https://10.1.2.3:6443", "10.0.0.0/8", false),
            ("https://[fd00::1]:6443", "fd00::/8", false),
            ("https://10.1.2.3:6443", "*", false),
            // As for kubectl, those on this machine need no exception.
            ("https://localhost:6443", "", false),
            ("http://127.0.0.2:6443", "other.corp", false),
            ("https://[::1]:6443", "", false),
            ("https://localhost.corp:6443", "", true),
        ] {
            let expected = is_used.then(|| PROXY.parse::<Uri>().unwrap());
            assert_eq!(proxy(cluster, exceptions), expected, "{cluster} {exceptions}");
        }
    }

    #[test]
    fn proxy_of_the_kubeconfig_has_no_exceptions() {
        let cluster: Uri = "https://k8s.corp:6443".parse().unwrap();
        let named = || Some("http://named.corp:8080".to_owned());
        let proxy = proxy_of(&cluster, named(), |_| Some("*".to_owned())).unwrap();
        assert_eq!(proxy, Some("http://named.corp:8080".parse().unwrap()));
        assert_eq!(proxy_of(&cluster, None, |_| None).unwrap(), None);
        assert!(proxy_of(&cluster, Some("not a URL".to_owned()), |_| None).is_err());
    }
}
