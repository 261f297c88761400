//! Flows by which a person gets tokens.

use std::time::Duration;

use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, DeviceAuthorizationUrl, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, ErrorResponse, ExtraTokenFields, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, RefreshToken, RequestTokenError, Scope, StandardDeviceAuthorizationResponse,
    StandardRevocableToken, StandardTokenResponse, TokenResponse, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::{Error, Http, Provider};

/// Longest wait for a person who enters the code of a device.
const MAX_DEVICE_WAIT: Duration = Duration::from_secs(15 * 60);

/// What OpenID Connect adds to the tokens of OAuth.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct IdToken {
    id_token: Option<String>,
}

impl ExtraTokenFields for IdToken {}

type Answer = StandardTokenResponse<IdToken, BasicTokenType>;
type OAuth = oauth2::Client<
    BasicErrorResponse,
    Answer,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointMaybeSet,
    EndpointMaybeSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// A client of a provider.
#[derive(Debug, Clone)]
pub struct Client {
    http: Http,
    issuer: String,
    oauth: OAuth,
    scopes: Vec<Scope>,
}

/// Address that a browser is sent to, with what belongs to its return.
#[derive(Debug)]
pub struct Redirect {
    pub url: url::Url,
    /// Comes back with the browser.
    pub state: String,
    /// Comes back in the ID token.
    pub nonce: String,
    /// Proves that the code was asked for by the client that redeems it.
    pub verifier: SecretString,
}

/// A code that a person enters on another device.
#[derive(Debug)]
pub struct DeviceCode(StandardDeviceAuthorizationResponse);

impl DeviceCode {
    /// Returns the page, if possible one that has the code already.
    pub fn url(&self) -> &str {
        let complete = self.0.verification_uri_complete().map(|url| url.secret().as_str());
        complete.unwrap_or_else(|| self.0.verification_uri().as_str())
    }

    pub fn user_code(&self) -> &str {
        self.0.user_code().secret()
    }
}

/// Tokens of a person who has signed in.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub id_token: SecretString,
    pub refresh_token: Option<SecretString>,
}

/// What the holder of a token needs to know of it.
#[derive(Debug, Clone, Deserialize)]
pub struct OwnClaims {
    /// Time at which it expires, in seconds.
    pub exp: i64,
    /// Mark of the sign-in that has led to it.
    pub nonce: Option<String>,
}

impl Tokens {
    /// Returns claims of the ID token without verifying it, as servers do that accept it.
    pub fn claims(&self) -> Option<OwnClaims> {
        let decoded = jsonwebtoken::dangerous::insecure_decode::<OwnClaims>(self.id_token.expose_secret());
        decoded.ok().map(|token| token.claims)
    }
}

impl Client {
    /// Returns a client by its id, with its secret if it has one.
    pub fn new(
        http: Http,
        provider: &Provider,
        id: &str,
        secret: Option<&SecretString>,
        scopes: &[String],
    ) -> Result<Self, Error> {
        let issuer = provider.issuer.clone();
        let wrong = |error: url::ParseError| Error::Unavailable(format!("{issuer}: {error}"));
        let token = provider.token_endpoint.clone();
        let token = token.ok_or_else(|| Error::Unsupported { issuer: issuer.clone(), what: "tokens" })?;
        let authorize = provider.authorization_endpoint.clone().map(AuthUrl::new);
        let device = provider.device_authorization_endpoint.clone().map(DeviceAuthorizationUrl::new);
        let mut oauth: OAuth = oauth2::Client::new(ClientId::new(id.to_owned()))
            .set_auth_uri_option(authorize.transpose().map_err(wrong)?)
            .set_device_authorization_url_option(device.transpose().map_err(wrong)?)
            .set_token_uri(TokenUrl::new(token).map_err(wrong)?);
        if let Some(secret) = secret {
            oauth = oauth.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()));
        }
        let scopes = scopes.iter().cloned().map(Scope::new).collect();
        Ok(Self { http, issuer, oauth, scopes })
    }

    /// Returns where to send a browser, which comes back to `redirect`.
    pub fn authorize(&self, redirect: &str) -> Result<Redirect, Error> {
        let redirect = redirect_url(redirect)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let nonce = CsrfToken::new_random().into_secret();
        let request = self.oauth.authorize_url(CsrfToken::new_random);
        let request = request.map_err(|_| self.unsupported("sign-in by browser"))?;
        let (url, state) = request
            .set_redirect_uri(std::borrow::Cow::Owned(redirect))
            .set_pkce_challenge(challenge)
            .add_scopes(self.scopes.iter().cloned())
            .add_extra_param("nonce", nonce.clone())
            .url();
        let (state, verifier) = (state.into_secret(), verifier.into_secret().into());
        Ok(Redirect { url, state, nonce, verifier })
    }

    /// Redeems the code that a browser has come back with.
    pub async fn redeem(&self, redirect: &str, code: &str, verifier: &SecretString) -> Result<Tokens, Error> {
        let redirect = redirect_url(redirect)?;
        let answered = self
            .oauth
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(verifier.expose_secret().to_owned()))
            .set_redirect_uri(std::borrow::Cow::Owned(redirect))
            .request_async(&self.http)
            .await;
        self.tokens(answered.map_err(failure)?)
    }

    /// Asks for a code that a person enters on another device.
    pub async fn device_code(&self) -> Result<DeviceCode, Error> {
        let request = self.oauth.exchange_device_code().map_err(|_| self.unsupported("device flow"))?;
        let request = request.add_scopes(self.scopes.iter().cloned());
        let answered = request.request_async(&self.http).await;
        answered.map(DeviceCode).map_err(failure)
    }

    /// Waits until a person has entered the code, as often as the issuer permits to ask.
    pub async fn device_tokens(&self, code: &DeviceCode) -> Result<Tokens, Error> {
        let wait = code.0.expires_in().min(MAX_DEVICE_WAIT);
        let answered = self
            .oauth
            .exchange_device_access_token(&code.0)
            .request_async(&self.http, tokio::time::sleep, Some(wait))
            .await;
        self.tokens(answered.map_err(failure)?)
    }

    /// Fetches tokens in place of those that expire.
    pub async fn refresh(&self, token: &SecretString) -> Result<Tokens, Error> {
        let known = RefreshToken::new(token.expose_secret().to_owned());
        let request = self.oauth.exchange_refresh_token(&known);
        let answered = request.request_async(&self.http).await;
        let tokens = self.tokens(answered.map_err(failure)?)?;
        // An issuer that sends no other one keeps it.
        Ok(Tokens { refresh_token: tokens.refresh_token.or_else(|| Some(token.clone())), ..tokens })
    }

    fn tokens(&self, answer: Answer) -> Result<Tokens, Error> {
        let refresh_token = answer.refresh_token().map(|token| token.secret().clone().into());
        let id_token = answer.extra_fields().id_token.clone();
        let id_token = id_token.ok_or_else(|| self.unsupported("ID token: is `openid` among the scopes?"))?;
        Ok(Tokens { id_token: id_token.into(), refresh_token })
    }

    fn unsupported(&self, what: &'static str) -> Error {
        Error::Unsupported { issuer: self.issuer.clone(), what }
    }
}

fn redirect_url(url: &str) -> Result<RedirectUrl, Error> {
    RedirectUrl::new(url.to_owned()).map_err(|error| Error::Unavailable(format!("{url}: {error}")))
}

fn failure<T: ErrorResponse + std::fmt::Display>(error: RequestTokenError<Error, T>) -> Error {
    match error {
        RequestTokenError::ServerResponse(refused) => Error::Refused(refused.to_string()),
        RequestTokenError::Request(error) => error,
        RequestTokenError::Parse(error, _) => {
            Error::Unavailable(format!("the answer of the issuer is invalid: {error}"))
        }
        RequestTokenError::Other(why) => Error::Unavailable(format!("the issuer has failed: {why}")),
    }
}
