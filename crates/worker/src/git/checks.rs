//! Names and addresses that tasks choose, before git sees them.

pub(crate) use rota_forge::local_path;
pub(crate) use rota_proto::names::branch;
pub(super) use rota_proto::names::is_commit;

/// Whether git takes this for the name of a branch or tag, or for a reference such as `refs/pull/7/head`. See
/// `git check-ref-format`; a colon or a star would make it a rule about references of the cache.
pub(super) fn is_reference(name: &str) -> bool {
    let fine = |letter: char| !letter.is_control() && !" ~^:?*[\\".contains(letter);
    let component = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    name.len() <= 256
        && name.chars().all(fine)
        && name.split('/').all(component)
        && !name.starts_with(['-', '+'])
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && name != "@"
}

/// Returns scheme, user and host of an HTTP URL.
pub(super) fn http_origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    (matches!(scheme.as_str(), "http" | "https") && !host.is_empty()).then(|| format!("{scheme}://{host}"))
}

/// Returns the host of an SSH URL, as the file of known hosts names it.
pub(super) fn ssh_host(url: &str) -> Option<String> {
    let authority = match url.split_once("://") {
        Some(("ssh", rest)) => rest.split('/').next()?,
        Some(_) => return None,
        None => url.split_once(':')?.0,
    };
    let host = authority.rsplit('@').next()?;
    let (name, port) = match host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
        Some((name, port)) => (name, port),
        None => (host, "22"),
    };
    let name = name.trim_matches(['[', ']']);
    let fine = |letter: char| letter.is_ascii_alphanumeric() || ".-_:".contains(letter);
    if name.is_empty() || name.starts_with('-') || !name.chars().all(fine) {
        return None;
    }
    Some(if port == "22" { name.to_owned() } else { format!("[{name}]:{port}") })
}

/// Returns whether a URL has credentials. The user of an SSH URL is none.
pub(super) fn has_credentials(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.and_then(|rest| rest.split('/').next()).is_some_and(|authority| authority.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_no_rules() {
        for name in ["main", "feature/one", "v1.2", "refs/pull/7/head", "ü"] {
            assert!(is_reference(name), "{name}");
        }
        for name in [
            "", "-x", "+x", "a:b", "a*", "a..b", "/a", "a/", "a//b", "x.lock", ".a", "a b", "@", "a@{1}",
            "a\n",
        ] {
            assert!(!is_reference(name), "{name:?}");
        }
    }

    #[test]
    fn credentials_belong_to_one_host() {
        assert_eq!(
            http_origin("https://me@git.example:8443/a/b.git").as_deref(),
            Some("https://git.example:8443")
        );
        assert_eq!(http_origin("HTTP://git.example").as_deref(), Some("http://git.example"));
        assert_eq!(
            http_origin("https://git.example?x=@evil.example/").as_deref(),
            Some("https://git.example")
        );
        assert_eq!(http_origin("git@git.example:a/b.git"), None);
        assert_eq!(http_origin("ssh://git@git.example/a"), None);
    }

    #[test]
    fn hosts_of_ssh_are_named_as_ssh_remembers_them() {
        for (url, host) in [
            ("git@git.example:a/b.git", Some("git.example")),
            ("git.example:a", Some("git.example")),
            ("ssh://git@git.example/a", Some("git.example")),
            ("ssh://git@git.example:22/a", Some("git.example")),
            ("ssh://git@git.example:2222/a", Some("[git.example]:2222")),
            ("ssh://git@[2001:db8::1]/a", Some("2001:db8::1")),
            ("https://git.example/a", None),
            ("git@-x;y:a", None),
        ] {
            assert_eq!(ssh_host(url).as_deref(), host, "{url}");
        }
    }
}
