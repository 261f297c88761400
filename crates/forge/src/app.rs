//! Tokens of a GitHub App: made from its private key, each for an hour, and kept until shortly before they expire.

use std::time::Duration;

use async_trait::async_trait;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::{Error, TokenSource, http};

/// Time before the end of a token at which another is made. They live for an hour.
const RESERVE: Duration = Duration::from_secs(10 * 60);
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Lifetime of what the key signs; ten minutes at most.
const SIGNED_FOR: u64 = 9 * 60;
/// By how much the clock of the forge may be behind.
const SKEW: u64 = 60;

/// Key of an app, as a secret has it: JSON with `appId`, `installationId`, `privateKey` in PEM, and where the
/// API is not at the usual address of its host, `apiUrl`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppKey {
    #[serde(deserialize_with = "text_or_number")]
    app_id: String,
    #[serde(deserialize_with = "text_or_number")]
    installation_id: String,
    private_key: SecretString,
    api_url: Option<String>,
}

fn text_or_number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Id {
        Text(String),
        Number(u64),
    }
    Ok(match Id::deserialize(from)? {
        Id::Text(text) => text,
        Id::Number(number) => number.to_string(),
    })
}

impl AppKey {
    /// Returns the key that a secret has; none if it is something else, such as a token.
    pub fn parse(secret: &str) -> Option<Result<Self, String>> {
        let secret = secret.trim();
        if !secret.starts_with('{') {
            return None;
        }
        let parsed = serde_json::from_str::<Self>(secret);
        // What it quotes could be part of the key.
        let wrong = |error: serde_json::Error| {
            format!(
                "the key of the app is no JSON with appId, installationId and privateKey (line {})",
                error.line()
            )
        };
        Some(parsed.map_err(wrong).and_then(|key| {
            let is_number = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
            match is_number(&key.app_id) && is_number(&key.installation_id) {
                true => Ok(key),
                false => Err("appId and installationId of the app must be numbers".to_owned()),
            }
        }))
    }

    fn signed(&self) -> Result<String, Error> {
        #[derive(Serialize)]
        struct Claims<'a> {
            iat: u64,
            exp: u64,
            iss: &'a str,
        }
        let now =
            rota_telemetry::clock::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims { iat: now.saturating_sub(SKEW), exp: now + SIGNED_FOR, iss: &self.app_id };
        let wrong = |_| Error::Token("the app's private key is no RSA key in PEM".to_owned());
        let key = EncodingKey::from_rsa_pem(self.private_key.expose_secret().as_bytes()).map_err(wrong)?;
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key).map_err(wrong)
    }
}

/// Tokens of an app's installation.
#[derive(Debug)]
pub struct AppTokens {
    key: AppKey,
    client: Client,
    url: Url,
    current: Mutex<Option<(SecretString, Instant)>>,
}

impl AppTokens {
    /// `url` is that of the repository.
    pub fn new(key: AppKey, url: &str, settings: &crate::Settings) -> Result<Self, Error> {
        let repository = crate::Repository::of(url, Some(crate::Provider::GitHub), key.api_url.as_deref());
        let api = repository.map_err(Error::Token)?.api;
        let path = format!("app/installations/{}/access_tokens", key.installation_id);
        let url = api.join(&path).map_err(|error| Error::Token(error.to_string()))?;
        Ok(Self { key, client: http::client(settings)?, url, current: Mutex::default() })
    }

    async fn make(&self) -> Result<SecretString, Error> {
        #[derive(Deserialize)]
        struct Made {
            token: SecretString,
        }
        let away = |error: reqwest::Error| Error::Away(format!("the forge makes no token: {error}"), None);
        let request = self
            .client
            .post(self.url.clone())
            .bearer_auth(self.key.signed()?)
            .header(header::ACCEPT, "application/vnd.github+json");
        let response = request.send().await.map_err(|error| away(error.without_url()))?;
        let wait = http::asked_wait(response.headers());
        match response.status() {
            StatusCode::CREATED | StatusCode::OK => Ok(http::json::<Made>(response).await?.token),
            // GitHub forbids what is beyond a limit.
            status
                if status.is_server_error()
                    || status == StatusCode::TOO_MANY_REQUESTS
                    || status == StatusCode::FORBIDDEN && wait.is_some() =>
            {
                Err(Error::Away(format!("the forge makes no token: it answers {}", status.as_u16()), wait))
            }
            status => Err(Error::Credentials(format!(
                "the forge makes no token for app {} and installation {}: it answers {}",
                self.key.app_id,
                self.key.installation_id,
                status.as_u16()
            ))),
        }
    }
}

#[async_trait]
impl TokenSource for AppTokens {
    async fn token(&self, refused: bool) -> Result<SecretString, Error> {
        let mut current = self.current.lock().await;
        if let Some((token, until)) = current.as_ref().filter(|_| !refused)
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let token = self.make().await?;
        *current = Some((token.clone(), Instant::now() + LIFETIME - RESERVE));
        Ok(token)
    }
}
