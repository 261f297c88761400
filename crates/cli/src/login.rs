//! Logins of contexts: tokens of a person, which are renewed before they expire. Knows no command.

mod renewal;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rota_client::discover::{self, Contexts, Found, Login, Registration, ServerContext};
use rota_client::{Options, Token};
use rota_oidc::{Client, Http, Provider, Tokens};
use rota_telemetry::{OnExit, clock, spawn};
use tokio::sync::watch;

use crate::cluster;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::Reporter;
use renewal::Renewals;

/// Longest time before the end of a token at which it is renewed.
const MAX_MARGIN: Duration = Duration::from_secs(300);
/// Time after which a renewal that has failed is tried again, by commands that run for long.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(30);

/// Determines the server as [`discover::find`] does, with a token that is valid for a while if it is that of a login, and a port to
/// it if it is in a cluster.
pub async fn find(globals: &Globals) -> anyhow::Result<Found> {
    let found = determine(globals).await?;
    Box::pin(cluster::reach(found)).await
}

async fn determine(globals: &Globals) -> anyhow::Result<Found> {
    let flags = globals.flags();
    let found = discover::find(&flags).context("failed to determine the server")?;
    let (Some(name), Some(login)) = (&found.context, &found.login) else { return Ok(found) };
    if !is_due(login) {
        return Ok(found);
    }
    let reporter = Reporter::new(globals.color);
    let mut renewals =
        Renewals::new(discover::contexts_file(), (name, &found.options.endpoint), login.clone());
    match renewals.renew(false).await {
        Ok(None) => Ok(discover::find(&flags)?),
        Ok(Some(error)) => {
            reporter.warn(&format!("the renewed login of the context {name} could not be kept: {error:#}"));
            let mut found = found;
            found.options.token = Token::Fixed(renewals.login.id_token.clone());
            found.login = Some(renewals.login);
            Ok(found)
        }
        Err(error) if remaining(login) > Duration::ZERO => {
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
        let mut renewals = Renewals::new(discover::contexts_file(), (&name, &endpoint), login);
        let (mut reported, mut is_kept) = (None, true);
        while renewals.login.refresh_token.is_some() {
            let left = remaining(&renewals.login).saturating_sub(margin(&renewals.login));
            tokio::time::sleep(left.max(RENEWAL_INTERVAL)).await;
            match renewals.renew(true).await {
                Ok(unkept) => {
                    tokens.send_replace(renewals.login.id_token.clone());
                    if let Some(error) = unkept.as_ref().filter(|_| is_kept) {
                        let hint = format!("other commands may need another login: rota login {name}");
                        tracing::warn!(context = name, %error, hint, "the renewed login could not be kept");
                    }
                    (reported, is_kept) = (None, unkept.is_none());
                }
                Err(error) => match Trouble::of(&renewals.login) {
                    trouble if reported == Some(trouble) => {}
                    Trouble::Failing => {
                        reported = Some(Trouble::Failing);
                        tracing::warn!(context = name, %error, "login renewal failed, retrying");
                    }
                    Trouble::Expired => {
                        reported = Some(Trouble::Expired);
                        let hint = format!("sign in again: rota login {name}");
                        tracing::warn!(context = name, %error, hint, "the login has expired");
                    }
                },
            }
        }
    });
    Token::Renewed(token)
}

/// What a failed renewal means for a login. A command that runs for long reports each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Its token is still valid.
    Failing,
    /// Its calls are refused from now on.
    Expired,
}

impl Trouble {
    fn of(login: &Login) -> Self {
        if remaining(login).is_zero() { Self::Expired } else { Self::Failing }
    }
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

/// Refuses a context that has another address by now: tokens are for the server that they were asked for.
fn check_endpoint(context: &ServerContext, endpoint: &str) -> anyhow::Result<()> {
    let is_same = Options::new(&context.endpoint).endpoint == endpoint;
    is_same.then_some(()).context("the context has another address by now")
}

/// Keeps tokens in a context. Returns the login.
pub fn store(path: &Path, at: (&str, &str), login: Login, tokens: &Tokens) -> anyhow::Result<Login> {
    let login = received(login, tokens)?;
    keep(path, at, &login, |_| Ok(()))?;
    Ok(login)
}

/// Returns a login with the tokens that an issuer has given now.
fn received(login: Login, tokens: &Tokens) -> anyhow::Result<Login> {
    let expires = tokens.claims().context("the issuer's token is none")?.exp;
    let received = clock::unix_micros() / 1_000_000;
    Ok(Login { id_token: tokens.id_token.clone(), expires, received, ..login })
}

/// Keeps a login in a context, with the client of the issuer that its logins are bound to from then on.
fn keep(
    path: &Path,
    (name, endpoint): (&str, &str),
    login: &Login,
    check: impl FnOnce(&ServerContext) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let registration = Registration { issuer: login.issuer.clone(), client_id: login.client_id.clone() };
    Contexts::change(path, |contexts| {
        let context = contexts.get(name, path)?;
        check_endpoint(context, endpoint)?;
        check(context)?;
        if let Some(context) = contexts.named.get_mut(name) {
            (context.token, context.token_file) = (None, None);
            (context.login, context.registration) = (Some(login.clone()), Some(registration));
        }
        anyhow::Ok(())
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
    fn trouble_of_a_login_depends_on_its_end() {
        assert_eq!(Trouble::of(&login(270, 30)), Trouble::Failing);
        assert_eq!(Trouble::of(&login(270, 0)), Trouble::Expired);
    }

    #[test]
    fn times_of_hostile_tokens_do_not_overflow() {
        assert!(!is_due(&login(0, i64::MAX)));
        let past = Login { expires: i64::MIN, ..login(0, 0) };
        assert!(is_due(&past) && remaining(&past).is_zero());
    }
}
