//! The path below which a proxy serves the control centre and the HTTP API. Requests with it lose it here, whether or not the proxy has
//! removed it, so that no other part of the server knows of it but what browsers send back: addresses of pages and paths of cookies.

use std::str::FromStr;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{Request, Uri};

/// Characters of a base path.
const MAX_LENGTH: usize = 128;
/// First segments of the server's own paths: behind a proxy that removes the base path, they would lose one of their own.
const OWN: [&str; 3] = ["api", "assets", "sign-in"];

/// A path such as `/rota`, without a slash at its end. The default is the root, and empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath(Option<Arc<str>>);

/// Why a text is no base path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BasePathError {
    #[error("must begin with a slash")]
    Relative,
    #[error(
        "may have letters, digits, `-`, `_` and slashes between them, and at most {MAX_LENGTH} characters"
    )]
    Characters,
    #[error("may not begin with /{0}, which the control plane has itself")]
    Own(&'static str),
}

impl FromStr for BasePath {
    type Err = BasePathError;

    fn from_str(text: &str) -> Result<Self, BasePathError> {
        let path = text.strip_suffix('/').unwrap_or(text);
        if text == "/" {
            return Ok(Self::default());
        }
        let mut segments = path.strip_prefix('/').ok_or(BasePathError::Relative)?.split('/');
        let is_named = |segment: &str| {
            let mut bytes = segment.bytes();
            !segment.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if path.len() > MAX_LENGTH || !segments.clone().all(is_named) {
            return Err(BasePathError::Characters);
        }
        let first = segments.next().unwrap_or_default();
        match OWN.into_iter().find(|own| *own == first) {
            Some(own) => Err(BasePathError::Own(own)),
            None => Ok(Self(Some(path.into()))),
        }
    }
}

impl BasePath {
    /// Returns the path; nothing for the root, so that paths of the server can follow.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether a path is this one, or below it.
    pub(crate) fn contains(&self, path: &str) -> bool {
        path.strip_prefix(self.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }

    /// Removes the path from a request below it.
    pub(crate) fn strip<B>(&self, mut request: Request<B>) -> Request<B> {
        if let Some(uri) = self.remove(request.uri()) {
            *request.uri_mut() = uri;
        }
        request
    }

    /// Returns the address without the path; `None` if it has none.
    fn remove(&self, uri: &Uri) -> Option<Uri> {
        let base = self.0.as_deref()?;
        let all = uri.path_and_query().map(PathAndQuery::as_str).filter(|all| self.contains(all))?;
        let rest = all.strip_prefix(base)?;
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(rest.parse().ok()?);
        Uri::from_parts(parts).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_paths_are_plain() {
        for (text, path) in
            [("/", ""), ("/rota", "/rota"), ("/team/rota/", "/team/rota"), ("/a-b_1", "/a-b_1")]
        {
            assert_eq!(text.parse::<BasePath>().unwrap().as_str(), path);
        }
        assert_eq!("rota".parse::<BasePath>(), Err(BasePathError::Relative));
        assert_eq!("".parse::<BasePath>(), Err(BasePathError::Relative));
        let long = format!("/{}", "x".repeat(MAX_LENGTH));
        for other in ["//", "//evil.example", "/a//b", "/a.b", "/a b", "/a?b", "/a#b", "/%61", "/../a", &long]
        {
            assert_eq!(other.parse::<BasePath>(), Err(BasePathError::Characters), "{other}");
        }
        assert_eq!("/api/rota".parse::<BasePath>(), Err(BasePathError::Own("api")));
        assert!("/apis".parse::<BasePath>().is_ok());
    }

    #[test]
    fn only_requests_below_lose_it() {
        let base: BasePath = "/rota".parse().unwrap();
        let removed = |uri: &str| base.remove(&uri.parse().unwrap()).map(|uri| uri.to_string());
        for (uri, rest) in [
            ("/rota", "/"),
            ("/rota/", "/"),
            ("/rota?a=/b", "/?a=/b"),
            ("/rota/api/v1/system:watch?x=1", "/api/v1/system:watch?x=1"),
            ("/rota/rota/x", "/rota/x"),
            ("https://host:1/rota/tasks", "https://host:1/tasks"),
        ] {
            assert_eq!(removed(uri).as_deref(), Some(rest));
        }
        for other in ["/", "/rotary", "/api/v1/x", "/rota.v1.TaskService/GetTask", "/a/rota/x"] {
            assert_eq!(removed(other), None, "{other}");
        }
        assert_eq!(BasePath::default().remove(&"/tasks".parse().unwrap()), None);
    }
}
