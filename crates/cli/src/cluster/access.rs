//! Address of a control plane in a cluster: a context of the kubeconfig, a namespace and a release, as `kube://CONTEXT/NAMESPACE/RELEASE`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rota_client::discover::CLUSTER_SCHEME;

use crate::exit::Failure;

/// A part of the address that is left open.
const OPEN: &str = "-";
/// Characters of names of contexts that stand for themselves.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'@').remove(b':');

/// Where a control plane runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Context of the kubeconfig; its current one by default.
    pub context: Option<String>,
    /// Namespace of the release; any by default.
    pub namespace: Option<String>,
    /// Name of the release of the chart; any by default.
    pub release: Option<String>,
}

impl Access {
    /// Returns the address, which contexts keep as that of their control plane.
    pub fn endpoint(&self) -> String {
        let parts = [&self.context, &self.namespace, &self.release];
        let used = parts.iter().rposition(|part| part.is_some()).map_or(1, |last| last + 1);
        let texts = parts[..used].iter().map(|part| match part.as_deref() {
            None => OPEN.to_owned(),
            Some(OPEN) => "%2D".to_owned(),
            Some(text) => utf8_percent_encode(text, PART).to_string(),
        });
        format!("{CLUSTER_SCHEME}{}", texts.collect::<Vec<_>>().join("/"))
    }

    /// Reads an address; `None` if it is that of a server.
    pub fn parse(endpoint: &str) -> Result<Option<Self>, Failure> {
        let Some(rest) = endpoint.strip_prefix(CLUSTER_SCHEME) else { return Ok(None) };
        let invalid = || {
            Failure::usage(format!("{endpoint} is not the address of a cluster")).hint(format!(
                "write {CLUSTER_SCHEME}CONTEXT/NAMESPACE/RELEASE, with - for parts that are open"
            ))
        };
        let read = |part: &str| match part {
            "" | OPEN => Ok(None),
            text => match percent_decode_str(text).decode_utf8() {
                Ok(text) => Ok(Some(text.into_owned())),
                Err(_) => Err(invalid()),
            },
        };
        let mut parts = rest.split('/').map(read);
        let mut next = || parts.next().unwrap_or(Ok(None));
        let access = Self { context: next()?, namespace: next()?, release: next()? };
        match parts.next() {
            None => Ok(Some(access)),
            Some(_) => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(context: &str, namespace: &str, release: &str) -> Access {
        let part = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Access { context: part(context), namespace: part(namespace), release: part(release) }
    }

    #[test]
    fn addresses_name_their_parts() {
        for (given, endpoint) in [
            (access("", "", ""), "kube://-"),
            (access("prod", "", ""), "kube://prod"),
            (access("", "rota", ""), "kube://-/rota"),
            (access("", "", "blue"), "kube://-/-/blue"),
            (access("kind@home", "rota", "blue"), "kube://kind@home/rota/blue"),
            (access("arn:aws:eks:x:1:cluster/y", "", ""), "kube://arn:aws:eks:x:1:cluster%2Fy"),
            (access("-", "", ""), "kube://%2D"),
        ] {
            assert_eq!(given.endpoint(), endpoint);
            assert_eq!(Access::parse(endpoint).unwrap(), Some(given));
        }
    }

    #[test]
    fn other_addresses_are_none_of_a_cluster() {
        assert_eq!(Access::parse("https://rota.example").unwrap(), None);
        assert!(Access::parse("kube://a/b/c/d").is_err());
        assert!(Access::parse("kube://%ff").is_err());
    }
}
