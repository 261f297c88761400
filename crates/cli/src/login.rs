//! Logins of contexts: tokens of a person, which are renewed before they expire. Knows no command.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rota_client::discover::{self, Contexts, Found, Login, Registration, ServerContext};
use rota_client::{Options, Token};
use rota_oidc::{Client, Http, Provider, Tokens};
use rota_telemetry::{OnExit, clock, spawn};
use secrecy::ExposeSecret;
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
        let (mut login, mut reported) = (login, None);
        while login.refresh_token.is_some() {
            tokio::time::sleep(remaining(&login).saturating_sub(margin(&login)).max(RENEWAL_INTERVAL)).await;
            match renew(&name, &endpoint).await {
                Ok(renewed) => {
                    tokens.send_replace(renewed.id_token.clone());
                    (login, reported) = (renewed, None);
                }
                Err(error) => match Trouble::of(&login) {
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
    store_renewed(&path, (name, endpoint), login, &tokens)
}

/// Keeps tokens that renew those of a login, unless the context was logged out, or has another login, since the issuer was asked.
fn store_renewed(
    path: &Path,
    (name, endpoint): (&str, &str),
    login: Login,
    tokens: &Tokens,
) -> anyhow::Result<Login> {
    let secret = |login: &Login| login.id_token.expose_secret().to_owned();
    let before = secret(&login);
    let renewed = Login { refresh_token: tokens.refresh_token.clone(), ..login };
    change(path, (name, endpoint), renewed, tokens, |context| {
        let now = context.login.as_ref().context("the context was logged out")?;
        anyhow::ensure!(secret(now) == before, "the context has another login by now");
        Ok(())
    })
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
    change(path, (name, endpoint), login, tokens, |_| Ok(()))
}

fn change(
    path: &Path,
    (name, endpoint): (&str, &str),
    login: Login,
    tokens: &Tokens,
    check: impl FnOnce(&ServerContext) -> anyhow::Result<()>,
) -> anyhow::Result<Login> {
    let expires = tokens.claims().context("the issuer's token is none")?.exp;
    let received = clock::unix_micros() / 1_000_000;
    let login = Login { id_token: tokens.id_token.clone(), expires, received, ..login };
    let registration = Registration { issuer: login.issuer.clone(), client_id: login.client_id.clone() };
    Contexts::change(path, |contexts| {
        let context = contexts.get(name, path)?;
        check_endpoint(context, endpoint)?;
        check(context)?;
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

    /// Token that is valid until 2100. Its holder does not look at the signature.
    const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDB9.eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eA";

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
    fn renewal_brings_no_login_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        let kept = login(270, 30);
        let server = ServerContext {
            endpoint: "https://rota.example".into(),
            login: Some(kept.clone()),
            ..ServerContext::default()
        };
        let tokens = Tokens { id_token: TOKEN.into(), refresh_token: Some("again".into()) };
        let renew = |kept: Login| {
            let endpoint = Options::new("https://rota.example").endpoint;
            store_renewed(&path, ("prod", &endpoint), kept, &tokens)
        };
        let set = |server: ServerContext| {
            Contexts::change(&path, |contexts| {
                contexts.named.insert("prod".into(), server);
                anyhow::Ok(())
            })
        };
        let now = || Contexts::read(&path).unwrap().named["prod"].login.clone();
        set(server.clone()).unwrap();
        assert_eq!(renew(kept.clone()).unwrap().expires, 4_102_444_800);
        assert_eq!(now().unwrap().id_token.expose_secret(), TOKEN);
        let other = renew(kept.clone()).unwrap_err();
        assert!(other.to_string().contains("another login"), "{other}");
        set(ServerContext { login: None, ..server }).unwrap();
        let refused = renew(kept).unwrap_err();
        assert!(refused.to_string().contains("logged out") && now().is_none(), "{refused}");
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
