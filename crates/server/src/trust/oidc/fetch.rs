//! Fetches the keys of an issuer. Certificates and token are read each time, since a cluster renews both.

use rota_oidc::{Http, Provider};
use url::Url;

use crate::options::Oidc;
use crate::trust::files;

/// The issuer of people has no such flag: providers serve the document to all.
const JWKS_URL_HINT: &str =
    "the keys of --oidc-issuer are found without its discovery document by --oidc-jwks-url";

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
    let http = Http::new(ca.as_deref()).map_err(|error| error.to_string())?;
    let (url, bearer) = match &options.jwks_url {
        Some(url) => (url.clone(), bearer),
        None => {
            let provider = Provider::discover(&http, &options.issuer, bearer.as_deref()).await;
            let url = provider.map_err(|error| format!("{error}; {JWKS_URL_HINT}"))?.jwks_uri;
            // The token is for the issuer, and not for whatever host its document names.
            let bearer = bearer.filter(|_| same_origin(&url, &options.issuer));
            (url, bearer)
        }
    };
    http.get(&url, bearer.as_deref()).await.map_err(|error| error.to_string())
}

/// Whether two URLs have the same scheme, host and port.
fn same_origin(one: &str, other: &str) -> bool {
    matches!((Url::parse(one), Url::parse(other)), (Ok(one), Ok(other)) if one.origin() == other.origin())
}

#[cfg(test)]
mod tests {
    use super::same_origin;

    #[test]
    fn origins_are_compared_whole() {
        let issuer = "https://issuer.example/realm";
        for same in ["https://issuer.example/keys", "https://ISSUER.example:443/keys"] {
            assert!(same_origin(same, issuer), "{same}");
        }
        for other in [
            "https://issuer.example.evil.example/keys",
            "https://issuer.example@evil.example/keys",
            "https://issuer.example:8443/keys",
            "http://issuer.example/keys",
            "keys",
        ] {
            assert!(!same_origin(other, issuer), "{other}");
        }
    }
}
