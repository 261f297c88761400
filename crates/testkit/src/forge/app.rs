//! A GitHub App: proves itself by what its private key signs, and gets tokens.

use std::fmt;

use anyhow::{Context, Result};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

/// Number of every app that tests create.
const APP: u64 = 4711;
/// Number of the installation of these apps.
const INSTALLATION: u64 = 815;

/// Called with each token that is made.
type OnToken = Box<dyn Fn(&str) + Send>;

/// An app with its key and the tokens that were made for it.
pub struct App {
    private_key: String,
    public_key: Vec<u8>,
    made: usize,
    on_token: OnToken,
}

impl fmt::Debug for App {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("App").field("made", &self.made).finish_non_exhaustive()
    }
}

impl App {
    /// Creates an app with a key of its own. `on_token` is called with each token.
    pub fn new(on_token: impl Fn(&str) + Send + 'static) -> Result<Self> {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        let public_key = key.public_key_raw().to_vec();
        Ok(Self { private_key: key.serialize_pem(), public_key, made: 0, on_token: Box::new(on_token) })
    }

    /// Returns the secret that users give to Rota.
    pub fn secret(&self, api: &str) -> String {
        json!({"appId": APP, "installationId": INSTALLATION, "privateKey": self.private_key, "apiUrl": api})
            .to_string()
    }

    /// Returns the token that is accepted.
    pub(super) fn current(&self) -> Option<String> {
        (self.made > 0).then(|| format!("ghs_{}", self.made))
    }

    /// Makes a token, if what the key has signed is right.
    pub(super) fn token(&mut self, path: &str, authorization: &str) -> Result<Value> {
        anyhow::ensure!(path == format!("/app/installations/{INSTALLATION}/access_tokens"), "not installed");
        let signed = authorization.strip_prefix("Bearer ").context("no token")?;
        let mut rules = Validation::new(Algorithm::RS256);
        rules.set_required_spec_claims(&["exp", "iss"]);
        rules.set_issuer(&[APP.to_string()]);
        let key = DecodingKey::from_rsa_der(&self.public_key);
        let claims = jsonwebtoken::decode::<Value>(signed, &key, &rules)?.claims;
        let time = |name: &str| claims[name].as_u64().context("a claim is missing");
        anyhow::ensure!(time("exp")? - time("iat")? <= 600, "it must expire within ten minutes");
        self.made += 1;
        let token = self.current().unwrap_or_default();
        (self.on_token)(&token);
        Ok(json!({"token": token, "expires_at": "2038-01-01T00:00:00Z"}))
    }
}
