//! The proxy on the way to a cluster, chosen as kubectl does: that of the kubeconfig, or else that of the environment, which has
//! exceptions. The library of Kubernetes compares `NO_PROXY` with the proxy instead of the cluster.

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

/// Returns the proxy for a cluster: the one that is named, or that of the environment, unless `NO_PROXY` has the cluster.
pub(super) fn proxy_of(
    cluster: &Uri,
    named: Option<String>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Uri>, InvalidUri> {
    let variable = |name: &str| environment(name).or_else(|| environment(&name.to_lowercase()));
    if let Some(named) = named {
        return named.parse().map(Some);
    }
    let Some(proxy) = variable("HTTPS_PROXY") else { return Ok(None) };
    let exceptions = variable("NO_PROXY").unwrap_or_default();
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
            ("http://127.0.0.1:6443", "*", false),
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
