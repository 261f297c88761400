//! Logins of contexts: tokens of a person, which are renewed before they expire. Knows no command.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rota_client::discover::{self, Contexts, Found, Login};
use rota_oidc::{Client, Http, Provider, Tokens};
use rota_telemetry::clock;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::Reporter;

/// Time before the end of a token at which it is renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// Determines the server as [`discover::find`] does, with a token that is valid for a while if it is that of a login.
pub async fn find(globals: &Globals) -> anyhow::Result<Found> {
    let flags = globals.flags();
    let found = discover::find(&flags).context("failed to determine the server")?;
    let (Some(name), Some(login)) = (&found.context, &found.login) else { return Ok(found) };
    if remaining(login) > RENEW_BEFORE {
        return Ok(found);
    }
    match renew(name).await {
        Ok(()) => Ok(discover::find(&flags)?),
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

/// Returns the time for which a token is valid.
fn remaining(login: &Login) -> Duration {
    let seconds = login.expires - clock::unix_micros() / 1_000_000;
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// Renews the tokens of a context, unless another process has.
async fn renew(name: &str) -> anyhow::Result<()> {
    let path = discover::contexts_file();
    // An issuer takes each token of this kind once. Another process holds the lock for two requests at most.
    let lock = path.with_extension("renewal");
    let _lock = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::create(lock)?;
        file.lock().map(|()| file)
    })
    .await??;
    let contexts = Contexts::read(&path)?;
    let login = contexts.get(name, &path)?.login.clone().context("the context was logged out")?;
    if remaining(&login) > RENEW_BEFORE {
        return Ok(());
    }
    let token = login.refresh_token.clone().context("the issuer has given no refresh token")?;
    let tokens = client(&login.issuer, login.issuer_ca.as_deref(), &login.client_id, &login.scopes).await?;
    let tokens = tokens.refresh(&token).await?;
    store(&path, name, Login { refresh_token: tokens.refresh_token.clone(), ..login }, &tokens)
}

/// Keeps tokens in a context.
pub fn store(path: &Path, name: &str, login: Login, tokens: &Tokens) -> anyhow::Result<()> {
    let expires = tokens.claims().context("the issuer's token is none")?.exp;
    let login = Login { id_token: tokens.id_token.clone(), expires, ..login };
    Contexts::change(path, |contexts| {
        contexts.get(name, path)?;
        if let Some(context) = contexts.named.get_mut(name) {
            (context.token, context.token_file, context.login) = (None, None, Some(login));
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
