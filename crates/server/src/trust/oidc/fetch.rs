//! Fetches the keys of an issuer. Certificates and token are read each time, since a cluster renews both.

use rota_oidc::{Http, Provider};

use crate::options::Oidc;
use crate::trust::files;

/// Returns the issuer's key set, not parsed. The error is a message for users.
pub(super) async fn key_set(options: &Oidc) -> Result<Vec<u8>, String> {
    let ca = match &options.ca {
        Some(path) => Some(files::read(path).await?),
        None => None,
    };
    let bearer = match &options.token_file {
        Some(path) => Some(String::from_utf8_lossy(&files::read(path).await?).trim().to_owned()),
        None => None,
    };
    let fetched = async {
        let http = Http::new(ca.as_deref())?;
        let url = match &options.jwks_url {
            Some(url) => url.clone(),
            None => Provider::discover(&http, &options.issuer, bearer.as_deref()).await?.jwks_uri,
        };
        http.get(&url, bearer.as_deref()).await
    };
    fetched.await.map_err(|error: rota_oidc::Error| error.to_string())
}
