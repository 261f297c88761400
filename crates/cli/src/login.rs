//! Logins of contexts: tokens of a person, which are renewed before they expire. Knows no command.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rota_client::discover::{self, Contexts, Found, Login, Registration, ServerContext};
use rota_client::{Options, Token};
use rota_oidc::{Client, Http, Provider, Tokens};
use rota_telemetry::{OnExit, clock, spawn};
use tokio::sync::watch;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::Reporter;

/// Longest time before the end of a token at which it is renewed.
const MAX_MARGIN: Duration = Duration::from_secs(300);
/// Time after which a renewal that has failed is tried again, by commands that run for long.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(30);

/// Determines the server as [`discover::find`] does, with a token that is valid for a while if it is that of a login.
pub async fn find(globals: &Globals) -> anyhow::Result<Found> {
    let flags = globals.flags();
    let found = discover::find(&flags).context("failed to determine the server")?;
    let (Some(name), Some(login)) = (&found.context, &found.login) else { return Ok(found) };
    if !is_due(login) {
        return Ok(found);
    }
    match renew(name, &found.options.endpoint).await {
        Ok(_) => Ok(discover::find(&flags)?),
        Err(error) if remaining(login) > Duration::ZERO => {
            let reporter = Reporter::new(globals.color);
            reporter.warn(&format!("the login of the context {name} could not be renewed: {error:#}"));
            Ok(found)
        }
        Err(error) => {
            let message = format!("the login of the context {name} has expired: {error:#}");
            Err(Failure::new(Exit::Unreachable, message)
                .hint(format!("sign in again: rota login {name}"))
                .into())
        }
    }
}

/// Returns the token of a server, which is renewed for as long as the program runs if it is that of a login.
pub fn renewed_token(found: &Found) -> Token {
    let (Some(name), Some(login)) = (found.context.clone(), found.login.clone()) else {
        return found.options.token.clone();
    };
    let endpoint = found.options.endpoint.clone();
    let (tokens, token) = watch::channel(login.id_token.clone());
    spawn("login-renewal", OnExit::Done, async move {
        let mut login = login;
        while login.refresh_token.is_some() {
            tokio::time::sleep(remaining(&login).saturating_sub(margin(&login)).max(RENEWAL_INTERVAL)).await;
            match renew(&name, &endpoint).await {
                Ok(renewed) => {
                    tokens.send_replace(renewed.id_token.clone());
                    login = renewed;
                }
                Err(error) => {
                    tracing::warn!(context = name, error = %error, "login renewal failed, retrying")
                }
            }
        }
    });
    Token::Renewed(token)
}

/// Returns the time for which a token is valid.
fn remaining(login: &Login) -> Duration {
    seconds(login.expires.saturating_sub(clock::unix_micros() / 1_000_000))
}

/// Returns the time before the end of a token at which it is renewed: a quarter of its life, as some live for minutes only.
fn margin(login: &Login) -> Duration {
    (seconds(login.expires.saturating_sub(login.received)) / 4).min(MAX_MARGIN)
}

fn is_due(login: &Login) -> bool {
    remaining(login) <= margin(login)
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// Renews the tokens of a context of this address, unless another process has, or does so while the token is valid. Returns the login.
async fn renew(name: &str, endpoint: &str) -> anyhow::Result<Login> {
    let path = discover::contexts_file();
    let read = || {
        let contexts = Contexts::read(&path)?;
        let context = contexts.get(name, &path)?;
        check_endpoint(context, endpoint)?;
        context.login.clone().context("the context was logged out")
    };
    let login = read()?;
    let is_valid = remaining(&login) > Duration::ZERO;
    // An issuer takes each token of this kind once. Another process holds the lock for two requests at most.
    let lock = path.with_extension("renewal");
    let lock = tokio::task::spawn_blocking(move || {
        let file = File::create(lock)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) if is_valid => Ok(None),
            Err(TryLockError::WouldBlock) => file.lock().map(|()| Some(file)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    });
    let Some(_lock) = lock.await?? else { return Ok(login) };
    let login = read()?;
    if !is_due(&login) {
        return Ok(login);
    }
    let token = login.refresh_token.clone().context("the issuer has given no refresh token")?;
    let tokens = client(&login.issuer, login.issuer_ca.as_deref(), &login.client_id, &login.scopes).await?;
    let tokens = tokens.refresh(&token).await?;
    store(&path, (name, endpoint), Login { refresh_token: tokens.refresh_token.clone(), ..login }, &tokens)
}

/// Refuses a context that has another address by now: tokens are for the server that they were asked for.
fn check_endpoint(context: &ServerContext, endpoint: &str) -> anyhow::Result<()> {
    let is_same = Options::new(&context.endpoint).endpoint == endpoint;
    is_same.then_some(()).context("the context has another address by now")
}

/// Keeps tokens in a context, with the client of the issuer that its logins are bound to from then on. Returns the login.
pub fn store(
    path: &Path,
    (name, endpoint): (&str, &str),
    login: Login,
    tokens: &Tokens,
) -> anyhow::Result<Login> {
    let expires = tokens.claims().context("the issuer's token is none")?.exp;
    let received = clock::unix_micros() / 1_000_000;
    let login = Login { id_token: tokens.id_token.clone(), expires, received, ..login };
    let registration = Registration { issuer: login.issuer.clone(), client_id: login.client_id.clone() };
    Contexts::change(path, |contexts| {
        check_endpoint(contexts.get(name, path)?, endpoint)?;
        if let Some(context) = contexts.named.get_mut(name) {
            (context.token, context.token_file) = (None, None);
            (context.login, context.registration) = (Some(login.clone()), Some(registration));
        }
        anyhow::Ok(login)
    })
}

/// Returns a client of an issuer.
pub async fn client(issuer: &str, ca: Option<&Path>, id: &str, scopes: &[String]) -> anyhow::Result<Client> {
    let ca = ca.map(|path| std::fs::read(path).with_context(|| format!("failed to read {}", path.display())));
    let http = Http::new(ca.transpose()?.as_deref())?;
    rota_oidc::check_url(issuer).map_err(|why| anyhow::anyhow!("the issuer {issuer} {why}"))?;
    let provider = Provider::discover(&http, issuer, None).await?;
    Ok(Client::new(http, &provider, id, None, scopes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(lived: i64, expires_in: i64) -> Login {
        let now = clock::unix_micros() / 1_000_000;
        Login {
            issuer: "https://id.example".into(),
            issuer_ca: None,
            client_id: "rota".into(),
            scopes: Vec::new(),
            expires: now.saturating_add(expires_in),
            received: now - lived,
            id_token: "t".into(),
            refresh_token: None,
        }
    }

    #[test]
    fn margin_follows_the_life_of_a_token() {
        // A token of five minutes is not due as soon as it is received.
        assert!(!is_due(&login(0, 300)) && is_due(&login(270, 30)));
        assert!(!is_due(&login(0, 86_400)) && is_due(&login(86_200, 200)));
    }

    #[test]
    fn times_of_hostile_tokens_do_not_overflow() {
        assert!(!is_due(&login(0, i64::MAX)));
        let past = Login { expires: i64::MIN, ..login(0, 0) };
        assert!(is_due(&past) && remaining(&past).is_zero());
    }
}
