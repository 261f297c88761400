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
use rota_client::discover::{self, Contexts, Login as Kept, Registration, ServerContext};
use rota_client::{Options, Token};
use rota_oidc::{Client, Error, Tokens};
use rota_proto::v1::{GetSignInOptionsRequest, ListTasksRequest, SignInOptions};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::contexts::is_same_server;
use crate::cluster::Access;
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
    /// Context that keeps the login [default: that of --context, ROTA_CONTEXT_NAME, or the current one]
    #[arg(value_name = "CONTEXT")]
    name: Option<String>,
    /// Sign in with a browser on this machine, also if the issuer offers codes for other devices
    #[arg(long)]
    browser: bool,
    /// PEM file with the CA certificates trusted for the issuer [default: the system's]
    #[arg(long, value_name = "FILE")]
    issuer_ca: Option<PathBuf>,
    /// Sign in as a client of the issuer that a context of another control plane has, too
    #[arg(long)]
    allow_shared_client: bool,
}

/// Remove the login of a context
#[derive(Debug, Args)]
#[command(after_long_help = LOGOUT_EXAMPLES)]
pub struct Logout {
    /// Context whose login is removed [default: that of --context, ROTA_CONTEXT_NAME, or the current one]
    #[arg(value_name = "CONTEXT")]
    name: Option<String>,
}

/// Refuses a client of an issuer that is not the one of earlier logins, or that another control plane has: a control plane could
/// otherwise ask for a login at a company's issuer as the client of another one, and use the token there.
fn check_registration(
    contexts: &Contexts,
    name: &str,
    server: &ServerContext,
    offered: &Registration,
    allow_shared_client: bool,
) -> Result<(), Failure> {
    let shown =
        |one: &Registration| format!("{} as the client {}", plain(&one.issuer), plain(&one.client_id));
    if let Some(pinned) = server.registration.as_ref().filter(|pinned| *pinned != offered) {
        let message = format!(
            "{} wants a login at {}; the logins of the context {name} were at {}",
            server.endpoint,
            shown(offered),
            shown(pinned)
        );
        let hint = format!(
            "if the control plane has really changed it, make the context again: rota context remove {name}"
        );
        return Err(Failure::new(Exit::Failed, message).hint(hint));
    }
    let is_other = |other: &ServerContext| {
        other.registration.as_ref() == Some(offered) && !is_same_server(&other.endpoint, &server.endpoint)
    };
    match contexts.named.iter().find(|(_, other)| is_other(other)).filter(|_| !allow_shared_client) {
        Some((other, found)) => {
            let message = format!(
                "{} wants a login at {}, which is that of {} (context {other})",
                server.endpoint,
                shown(offered),
                found.endpoint
            );
            let hint = "each control plane needs a client of its own; where both are trusted with the same tokens: --allow-shared-client";
            Err(Failure::new(Exit::Failed, message).hint(hint))
        }
        None => Ok(()),
    }
}

/// Refuses flags that select a server: a login belongs to a context.
fn check_server(globals: &Globals, command: &str) -> Result<(), Failure> {
    let Some(endpoint) = globals.selected_endpoint() else { return Ok(()) };
    let hint = match Access::parse(&endpoint)? {
        Some(_) => {
            "commands with --kube use the token of the cluster; for a login, make a context with the address of the Ingress: \
             rota context set NAME --endpoint URL"
                .to_owned()
        }
        None => format!("make a context: rota context set NAME --endpoint {endpoint}, then rota {command} NAME"),
    };
    let message = format!("rota {command} is for a context, and takes neither --endpoint nor --kube");
    Err(Failure::usage(message).hint(hint))
}

impl Login {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        check_server(globals, "login")?;
        let (path, reporter) = (discover::contexts_file(), Reporter::new(globals.color));
        let contexts = Contexts::read(&path)?;
        let name = globals.selected_context(self.name, &contexts)?;
        let server = contexts.get(&name, &path)?.clone();
        if Access::parse(&server.endpoint)?.is_some() {
            let message = format!("the context {name} uses the token of its cluster, and has no login");
            let hint = "make a context with the address of the Ingress: rota context set NAME --endpoint URL";
            return Err(Failure::usage(message).hint(hint).into());
        }
        let options = Options { ca: server.ca.clone(), ..Options::new(&server.endpoint) };
        let offered = rota_client::Client::new(options.clone())?;
        let SignInOptions { issuer, client_id, scopes, .. } =
            offered.get_sign_in_options(GetSignInOptionsRequest {}).await?;
        if issuer.is_empty() {
            let message = format!("{} accepts no tokens of people", options.endpoint);
            let hint = "use a token with `rota context set`, or start the control plane with --sign-in";
            return Err(Failure::new(Exit::Failed, message).hint(hint).into());
        }
        let registration = Registration { issuer: issuer.clone(), client_id: client_id.clone() };
        check_registration(&contexts, &name, &server, &registration, self.allow_shared_client)?;
        let issuer_ca = self.issuer_ca.map(std::path::absolute).transpose()?;
        reporter.line(&format!("signing in at {} as the client {}", plain(&issuer), plain(&client_id)));
        let client = login::client(&issuer, issuer_ca.as_deref(), &client_id, &scopes).await?;
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
        check(Options { token, ..options.clone() }, server.namespace.as_deref().unwrap_or("default")).await?;
        let kept = Kept {
            issuer,
            client_id,
            scopes,
            issuer_ca,
            id_token: tokens.id_token.clone(),
            refresh_token: tokens.refresh_token.clone(),
            expires: 0,
            received: 0,
        };
        login::store(&path, (&name, &options.endpoint), kept, &tokens)?;
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
    let state = to.state;
    let answer = async move |Query(answer): Query<HashMap<String, String>>| {
        // Any page can send a browser here: only an answer of this sign-in may take the one place.
        if answer.get("state") == Some(&state) {
            let _ = answers.try_send(answer);
        }
        Html(PAGE)
    };
    let served = axum::serve(listener, Router::new().route("/callback", get(answer)));
    reporter.line(&format!("open {}", to.url));
    let code = tokio::select! {
        code = timeout(BROWSER_TIMEOUT, code_of(&mut answered)) => {
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

/// Returns the code that a browser brings.
async fn code_of(answered: &mut mpsc::Receiver<HashMap<String, String>>) -> anyhow::Result<String> {
    let answer = answered.recv().await.context("the browser has not come back")?;
    if let Some(error) = answer.get("error") {
        return Err(Failure::new(Exit::Failed, format!("the issuer refuses: {}", plain(error))).into());
    }
    answer.get("code").cloned().context("the browser has brought no code")
}

impl Logout {
    pub fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        check_server(globals, "logout")?;
        let path = discover::contexts_file();
        let name = globals.selected_context(self.name, &Contexts::read(&path)?)?;
        let was = Contexts::change(&path, |contexts| {
            contexts.get(&name, &path)?;
            anyhow::Ok(contexts.named.get_mut(&name).and_then(|context| context.login.take()).is_some())
        })?;
        let text = if was { "has no login any more" } else { "had no login" };
        Reporter::new(globals.color).line(&format!("the context {name} {text}"));
        Ok(Exit::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(endpoint: &str, client_id: Option<&str>) -> ServerContext {
        let registration = client_id.map(at_company);
        ServerContext { endpoint: endpoint.into(), registration, ..ServerContext::default() }
    }

    fn at_company(client_id: &str) -> Registration {
        Registration { issuer: "https://id.example".into(), client_id: client_id.into() }
    }

    #[test]
    fn client_of_another_control_plane_is_refused() {
        let mut contexts = Contexts::default();
        contexts.named.insert("prod".into(), server("https://rota.example", Some("rota")));
        let check = |server: &ServerContext, client_id: &str, allowed| {
            check_registration(&contexts, "here", server, &at_company(client_id), allowed)
        };
        let foreign = server("https://elsewhere.example", None);
        let refused = check(&foreign, "rota", false).unwrap_err();
        assert!(refused.message.contains("context prod"), "{refused:?}");
        check(&foreign, "rota", true).unwrap();
        check(&foreign, "own", false).unwrap();
        check(&server("rota.example", None), "rota", false).unwrap();
        // Also if the client is free: the context has another one since its first login.
        let pinned = server("https://elsewhere.example", Some("own"));
        check(&pinned, "own", false).unwrap();
        let changed = check(&pinned, "new", true).unwrap_err();
        assert!(changed.hint.as_deref().is_some_and(|hint| hint.contains("remove here")), "{changed:?}");
    }
}
