//! Repositories of forges, by their URLs.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use url::Url;

/// Forge whose API is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    GitHub,
    GitLab,
    /// Also Forgejo, whose API is the same.
    Gitea,
}

/// Parts of names of hosts, by which forges are known.
const HOSTS: [(&str, Provider); 5] = [
    ("github", Provider::GitHub),
    ("gitlab", Provider::GitLab),
    ("gitea", Provider::Gitea),
    ("forgejo", Provider::Gitea),
    ("codeberg.org", Provider::Gitea),
];

/// Returns the path of a repository, if git would take its URL for one on this machine.
pub fn local_path(url: &str) -> Option<PathBuf> {
    if let Some(rest) = url.strip_prefix("file://") {
        // Git has no hosts in these: `file://srv/x` is `/srv/x`. It decodes URLs, not paths.
        let path = format!("/{}", rest.trim_start_matches('/'));
        return Some(percent_decode_str(&path).decode_utf8_lossy().into_owned().into());
    }
    let before_slash = url.split('/').next().unwrap_or_default();
    (!before_slash.contains(':')).then(|| url.into())
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    pub provider: Provider,
    /// Address of the API, which ends with a slash.
    pub(crate) api: Url,
    /// Owner and name, such as `team/project`.
    pub(crate) path: String,
}

impl Provider {
    /// Returns the forge of a repository, if the name of its host has it.
    pub fn of(url: &str) -> Option<Self> {
        let (host, _) = parts(url)?;
        let name = host.host.to_ascii_lowercase();
        HOSTS.iter().find(|(part, _)| name.contains(part)).map(|(_, provider)| *provider)
    }
}

impl Repository {
    /// Returns the repository that git knows by a URL. Without `api`, the address of the API follows from the host. The error is what
    /// is wrong with the URL, for users.
    pub fn of(url: &str, provider: Option<Provider>, api: Option<&str>) -> Result<Self, String> {
        let (host, path) = parts(url).ok_or_else(|| format!("{url} is no URL of a forge"))?;
        let unknown = || format!("the forge of {} is not known: name its provider", host.host);
        let provider = provider.or_else(|| Provider::of(url)).ok_or_else(unknown)?;
        let path = path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        if !path.contains('/') || path.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(format!("{url} names no owner and repository"));
        }
        let (mut below, mut path) = (String::new(), path.to_owned());
        if provider != Provider::GitLab
            && let Some((owner, name)) = path.rsplit_once('/')
            && let Some((folder, owner)) = owner.rsplit_once('/')
        {
            // A forge that is not at the root of its host.
            (below, path) = (format!("{folder}/"), format!("{owner}/{name}"));
        }
        let api = match api {
            Some(api) => format!("{}/", api.trim_end_matches('/')),
            None => match provider {
                Provider::GitHub if host.host.eq_ignore_ascii_case("github.com") => {
                    "https://api.github.com/".to_owned()
                }
                Provider::GitHub => format!("{}/api/v3/", host.origin()),
                Provider::GitLab => format!("{}/api/v4/", host.origin()),
                Provider::Gitea => format!("{}/{below}api/v1/", host.origin()),
            },
        };
        let api = Url::parse(&api).map_err(|error| format!("{api} is no URL: {error}"))?;
        if !matches!(api.scheme(), "https" | "http") || !api.username().is_empty() {
            return Err(format!("{api} is no URL of HTTP without credentials"));
        }
        Ok(Self { provider, api, path })
    }
}

struct Host {
    scheme: &'static str,
    host: String,
    port: Option<u16>,
}

impl Host {
    fn origin(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", self.scheme, self.host)
    }
}

/// Returns host and path of a URL, or of `USER@HOST:PATH`. The port of SSH is not that of the API.
fn parts(url: &str) -> Option<(Host, String)> {
    if !url.contains("://") {
        let (host, path) = url.split_once(':')?;
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let is_host = !host.is_empty() && !host.contains('/');
        return is_host
            .then(|| (Host { scheme: "https", host: host.to_owned(), port: None }, path.to_owned()));
    }
    let url = Url::parse(url).ok()?;
    let (scheme, port) = match url.scheme() {
        "http" => ("http", url.port()),
        "https" => ("https", url.port()),
        "ssh" | "git" => ("https", None),
        _ => return None,
    };
    Some((Host { scheme, host: url.host_str()?.to_owned(), port }, url.path().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forges_are_known_by_their_hosts() {
        for (url, api, path) in [
            ("https://github.com/team/project.git", "https://api.github.com/", "team/project"),
            ("git@github.com:team/project.git", "https://api.github.com/", "team/project"),
            (
                "https://github.example:8443/team/project",
                "https://github.example:8443/api/v3/",
                "team/project",
            ),
            ("ssh://git@gitlab.example:2222/a/b/c.git", "https://gitlab.example/api/v4/", "a/b/c"),
            ("http://gitea.example:3000/team/project", "http://gitea.example:3000/api/v1/", "team/project"),
            ("https://gitea.example/git/team/project", "https://gitea.example/git/api/v1/", "team/project"),
        ] {
            let found = Repository::of(url, None, None).unwrap();
            assert_eq!((found.api.as_str(), found.path.as_str()), (api, path), "{url}");
        }
        for (url, reason) in [
            ("https://git.example/team/project", "name its provider"),
            ("https://github.com/project", "no owner"),
            ("/srv/project.git", "no URL"),
            ("file:///srv/project.git", "no URL"),
        ] {
            let failed = Repository::of(url, None, None).unwrap_err();
            assert!(failed.contains(reason), "{failed}");
        }
        let named =
            Repository::of("https://git.example/t/p", Some(Provider::Gitea), Some("https://api.example/x"));
        assert_eq!(named.unwrap().api.as_str(), "https://api.example/x/");
        let secret =
            Repository::of("https://git.example/t/p", Some(Provider::Gitea), Some("https://a:b@api.example"));
        assert!(secret.is_err());
    }

    #[test]
    fn addresses_on_this_machine_are_known() {
        for (url, path) in [
            ("file:///a%20b", "/a b"),
            ("file://srv/x.git", "/srv/x.git"),
            ("file://x.git", "/x.git"),
            ("/srv/x.git", "/srv/x.git"),
            ("../x", "../x"),
            ("x", "x"),
            ("./a:b", "./a:b"),
        ] {
            assert_eq!(local_path(url), Some(path.into()), "{url}");
        }
        for url in ["https://git.example/x", "git@git.example:x/y.git", "ssh://git@git.example/x"] {
            assert_eq!(local_path(url), None);
        }
    }
}
