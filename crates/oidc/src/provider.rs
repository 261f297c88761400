//! What an issuer publishes about itself.

use serde::Deserialize;

use crate::http::check_url;
use crate::{Error, Http};

/// Endpoints that an issuer has published.
#[derive(Debug, Clone, Deserialize)]
pub struct Provider {
    /// `iss` claim of its tokens.
    pub issuer: String,
    /// Location of its signing keys.
    pub jwks_uri: String,
    /// Page that browsers are sent to.
    pub authorization_endpoint: Option<String>,
    /// Where codes are exchanged for tokens.
    pub token_endpoint: Option<String>,
    /// Where the flow of devices begins.
    pub device_authorization_endpoint: Option<String>,
}

impl Provider {
    /// Fetches the document of an issuer.
    pub async fn discover(http: &Http, issuer: &str, bearer: Option<&str>) -> Result<Self, Error> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = http.get(&url, bearer).await?;
        let wrong = |why: String| Error::Unavailable(format!("{url} {why}"));
        let found: Self = serde_json::from_slice(&document)
            .map_err(|error| wrong(format!("does not describe an issuer: {error}")))?;
        if found.issuer != issuer {
            return Err(wrong(format!("describes another issuer, {:?}", found.issuer)));
        }
        check_url(&found.jwks_uri)
            .map_err(|why| wrong(format!("names keys at {:?}, which {why}", found.jwks_uri)))?;
        let endpoints =
            [&found.authorization_endpoint, &found.token_endpoint, &found.device_authorization_endpoint];
        for endpoint in endpoints.into_iter().flatten() {
            check_url(endpoint).map_err(|why| wrong(format!("names {endpoint:?}, which {why}")))?;
        }
        Ok(found)
    }
}
