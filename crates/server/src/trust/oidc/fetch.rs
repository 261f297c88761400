//! Fetches the keys of an issuer. Certificates and token are read each time, since a cluster renews both.

use std::time::Duration;

use reqwest::{Certificate, Client, redirect};
use serde::Deserialize;

use crate::options::Oidc;
use crate::trust::files;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_RESPONSE_SIZE: usize = 1 << 20;

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Returns the issuer's key set, not parsed. The error is a message for users.
pub(super) async fn key_set(options: &Oidc) -> Result<Vec<u8>, String> {
    let client = client(options).await?;
    let bearer = match &options.token_file {
        Some(path) => Some(String::from_utf8_lossy(&files::read(path).await?).trim().to_owned()),
        None => None,
    };
    let get = async |url: &str| get(&client, url, bearer.as_deref()).await;
    if let Some(url) = &options.jwks_url {
        return get(url).await;
    }
    let url = format!("{}/.well-known/openid-configuration", options.issuer.trim_end_matches('/'));
    let found: Discovery = serde_json::from_slice(&get(&url).await?)
        .map_err(|error| format!("{url} does not describe an issuer: {error}"))?;
    if found.issuer != options.issuer {
        return Err(format!("{url} describes another issuer, {:?}", found.issuer));
    }
    Oidc::check_url(&found.jwks_uri)
        .map_err(|why| format!("{url} names keys at {:?}, which {why}", found.jwks_uri))?;
    get(&found.jwks_uri).await
}

async fn client(options: &Oidc) -> Result<Client, String> {
    // No redirects: the token is sent to its audience only, not to whatever that one refers to.
    let mut builder = Client::builder().timeout(REQUEST_TIMEOUT).redirect(redirect::Policy::none());
    if let Some(path) = &options.ca {
        let trusted = Certificate::from_pem_bundle(&files::read(path).await?)
            .map_err(|error| format!("{} holds no certificates in PEM: {error}", path.display()))?;
        builder = builder.tls_certs_only(trusted);
    }
    builder.build().map_err(|error| error.to_string())
}

async fn get(client: &Client, url: &str, bearer: Option<&str>) -> Result<Vec<u8>, String> {
    let failed = |error: reqwest::Error| format!("request to {url} failed: {}", root(&error));
    let mut request = client.get(url);
    if let Some(bearer) = bearer {
        request = request.bearer_auth(bearer);
    }
    let mut answer = request.send().await.map_err(failed)?;
    if !answer.status().is_success() {
        return Err(format!("{url} answers {}", answer.status()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > MAX_RESPONSE_SIZE {
            return Err(format!("{url} answers with more than 1 MiB"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Returns the innermost cause, which names what failed.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
