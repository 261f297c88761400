//! `rota login` and `rota logout`: tokens of a person, from the issuer that the control plane accepts.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::Query;
use axum::response::Html;
use axum::routing::get;
use clap::Args;
use rota_client::discover::{self, Contexts, Login as Kept};
use rota_client::{Options, Token};
use rota_oidc::{Client, Error, Tokens};
use rota_proto::v1::{GetSignInOptionsRequest, ListTasksRequest, SignInOptions};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::login;
use crate::output::{Reporter, plain};

const LOGIN_EXAMPLES: &str = "\
Examples:
  rota login
  rota login prod
  rota login --browser

A context is made with `rota context set NAME --endpoint URL`. The token and what renews it are kept in the context, in a file that only its owner can read. Commands renew it by themselves.";

const LOGOUT_EXAMPLES: &str = "\
Examples:
  rota logout
  rota logout prod";

/// Time for which a person may be at the issuer.
const BROWSER_TIMEOUT: Duration = Duration::from_secs(600);
const PAGE: &str =
    "<!doctype html><title>Rota</title><p>You can close this page and return to the command line.</p>";

/// Sign in at the issuer of the control plane, and keep the login in a context
#[derive(Debug, Args)]
#[command(after_long_help = LOGIN_EXAMPLES)]
pub struct Login {
    /// Context that keeps the login [default: that of --context, ROTA_CONTEXT, or the current one]
    #[arg(value_name = "CONTEXT")]
    name: Option<String>,
    /// Sign in with a browser on this machine, also if the issuer offers codes for other devices
    #[arg(long)]
    browser: bool,
    /// PEM file with the CA certificates trusted for the issuer [default: the system's]
    #[arg(long, value_name = "FILE")]
    issuer_ca: Option<PathBuf>,
}

/// Remove the login of a context
#[derive(Debug, Args)]
#[command(after_long_help = LOGOUT_EXAMPLES)]
pub struct Logout {
    /// Context whose login is removed [default: that of --context, ROTA_CONTEXT, or the current one]
    #[arg(value_name = "CONTEXT")]
    name: Option<String>,
}

fn context(given: Option<String>, globals: &Globals, contexts: &Contexts) -> anyhow::Result<String> {
    let name = given.or_else(|| globals.context_name()).or_else(|| contexts.current.clone());
    let missing = || {
        Failure::usage("no context is current")
            .hint("create one with `rota context set NAME --endpoint URL --use`, or name it: rota login NAME")
    };
    name.ok_or_else(|| missing().into())
}

impl Login {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let (path, reporter) = (discover::contexts_file(), Reporter::new(globals.color));
        let contexts = Contexts::read(&path)?;
        let name = context(self.name, globals, &contexts)?;
        let server = contexts.get(&name, &path)?.clone();
        let options = Options { ca: server.ca.clone(), ..Options::new(&server.endpoint) };
        let offered = rota_client::Client::new(options.clone())?;
        let SignInOptions { issuer, client_id, scopes, .. } =
            offered.get_sign_in_options(GetSignInOptionsRequest {}).await?;
        if issuer.is_empty() {
            let message = format!("{} accepts no tokens of people", options.endpoint);
            let hint = "use a token with `rota context set`, or start the control plane with --sign-in";
            return Err(Failure::new(Exit::Failed, message).hint(hint).into());
        }
        let issuer_ca = self.issuer_ca.map(std::path::absolute).transpose()?;
        let client = login::client(&issuer, issuer_ca.as_deref(), &client_id, &scopes).await?;
        reporter.line(&format!("signing in at {}", plain(&issuer)));
        let device = match self.browser {
            true => None,
            false => match client.device_code().await {
                Ok(code) => Some(code),
                Err(Error::Unsupported { .. }) => None,
                Err(error) => return Err(error.into()),
            },
        };
        let tokens = match device {
            Some(code) => {
                reporter.line(&format!(
                    "open {} and enter the code {}",
                    plain(code.url()),
                    plain(code.user_code())
                ));
                client.device_tokens(&code).await?
            }
            None => by_browser(&client, &reporter).await?,
        };
        let token = Token::Fixed(tokens.id_token.clone());
        check(Options { token, ..options }, server.namespace.as_deref().unwrap_or("default")).await?;
        let kept = Kept {
            issuer,
            client_id,
            scopes,
            issuer_ca,
            id_token: tokens.id_token.clone(),
            refresh_token: tokens.refresh_token.clone(),
            expires: 0,
        };
        login::store(&path, &name, kept, &tokens)?;
        reporter.line(&format!("the context {name} has a login"));
        Ok(Exit::Ok)
    }
}

/// Whether the control plane accepts a token: its list may not have the person.
async fn check(options: Options, namespace: &str) -> anyhow::Result<()> {
    let parent = rota_proto::names::namespace(namespace);
    let request = ListTasksRequest { parent, page_size: 1, ..Default::default() };
    match rota_client::Client::new(options)?.list_tasks(request).await {
        Err(error) if error.reason.as_deref() != Some("NAMESPACE_FORBIDDEN") => Err(error.into()),
        _ => Ok(()),
    }
}

/// Waits until a browser of this machine comes back from the issuer.
async fn by_browser(client: &Client, reporter: &Reporter) -> anyhow::Result<Tokens> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("failed to listen for the browser")?;
    let redirect = format!("http://{}/callback", listener.local_addr()?);
    let to = client.authorize(&redirect)?;
    let (answers, mut answered) = mpsc::channel(1);
    let answer = async move |Query(answer): Query<HashMap<String, String>>| {
        // A further one than the first that waits is none of this sign-in.
        let _ = answers.try_send(answer);
        Html(PAGE)
    };
    let served = axum::serve(listener, Router::new().route("/callback", get(answer)));
    reporter.line(&format!("open {}", to.url));
    let code = tokio::select! {
        code = timeout(BROWSER_TIMEOUT, code_of(&mut answered, &to.state)) => {
            code.map_err(|_| Failure::new(Exit::Timeout, "no person has signed in for ten minutes"))??
        }
        served = served.into_future() => return Err(served.err().map_or_else(
            || anyhow::anyhow!("the listener for the browser has ended"),
            anyhow::Error::from,
        )),
    };
    let tokens = client.redeem(&redirect, &code, &to.verifier).await?;
    let nonce = tokens.claims().and_then(|claims| claims.nonce);
    match nonce == Some(to.nonce) {
        true => Ok(tokens),
        false => Err(Failure::new(Exit::Failed, "the token belongs to another sign-in").into()),
    }
}

/// Returns the code that a browser brings with the state of this sign-in.
async fn code_of(
    answered: &mut mpsc::Receiver<HashMap<String, String>>,
    state: &String,
) -> anyhow::Result<String> {
    loop {
        let answer = answered.recv().await.context("the browser has not come back")?;
        // Any page can send a browser here.
        if answer.get("state") != Some(state) {
            continue;
        }
        if let Some(error) = answer.get("error") {
            return Err(Failure::new(Exit::Failed, format!("the issuer refuses: {}", plain(error))).into());
        }
        return answer.get("code").cloned().context("the browser has brought no code");
    }
}

impl Logout {
    pub fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let path = discover::contexts_file();
        let name = context(self.name, globals, &Contexts::read(&path)?)?;
        let was = Contexts::change(&path, |contexts| {
            contexts.get(&name, &path)?;
            anyhow::Ok(contexts.named.get_mut(&name).and_then(|context| context.login.take()).is_some())
        })?;
        let text = if was { "has no login any more" } else { "had no login" };
        Reporter::new(globals.color).line(&format!("the context {name} {text}"));
        Ok(Exit::Ok)
    }
}
