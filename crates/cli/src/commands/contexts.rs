//! `rota context`: control planes by name, of which one is current.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use rota_client::discover::{self, Contexts, ServerContext};
use rota_client::{Client, Options};
use rota_core::Namespace;
use secrecy::SecretString;
use serde::Serialize;

use crate::cluster::{self, Access};
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::{Out, Paint, Reporter, Table};

const EXAMPLES: &str = "\
Examples:
  rota context set prod --endpoint https://rota.example --ca ca.pem --token-file token --use
  rota context set cluster --kube --kube-context prod --kube-namespace rota
  rota context set test --endpoint https://rota.test --namespace team --token-stdin < token
  rota context list
  rota context use prod
  rota get tasks --context test
  rota context use --none
  rota context remove test

All contexts are in contexts.toml, next to the config file (~/.config/rota). --endpoint, --context, ROTA_ENDPOINT and
ROTA_CONTEXT_NAME select another server than the current context's; --token-file, --ca, --namespace and their variables replace
single values of it. The variables do not change a context that --context names, but for a namespace that it lacks.";

/// Bytes of a token on standard input.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// Name control planes, with address, token and namespace, and choose the one that commands use
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ContextCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List contexts, and which one is current
    List,
    /// Show a context; tokens are not printed
    Show {
        /// Name of a context [default: that of --context, ROTA_CONTEXT_NAME, or the current one]
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Make a context the current one
    Use {
        /// Name of the context, as it is listed
        #[arg(value_name = "NAME", required_unless_present = "none")]
        name: Option<String>,
        /// No current context: the server is that of the config file, or a `rota dev` on this machine
        #[arg(long, conflicts_with = "name")]
        none: bool,
    },
    /// Create a context of --endpoint or --kube, --ca, --token-file and --namespace, or change these values of it
    Set(Set),
    /// Remove contexts with their tokens
    Remove {
        /// Names of contexts, as they are listed
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Set {
    /// Name of the context: letters, digits, '-', '_' and '.'
    #[arg(value_name = "NAME")]
    name: String,
    /// Read the token from standard input, and keep it in the file of contexts
    #[arg(long, conflicts_with = "token_file")]
    token_stdin: bool,
    /// Make it the current context
    #[arg(long = "use")]
    makes_current: bool,
}

/// A context as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    name: &'a str,
    current: bool,
    endpoint: &'a str,
    namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<&'a Path>,
    /// Where the token is kept, never the token.
    token: String,
}

impl ContextCommand {
    pub fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let path = &discover::contexts_file();
        let (out, reporter) = (Out::new(globals.output, globals.color), Reporter::new(globals.color));
        match self.what {
            What::List => list(&Contexts::read(path)?, path, &out, &reporter)?,
            What::Show { name } => {
                let contexts = Contexts::read(path)?;
                let name = globals.selected_context(name, &contexts)?;
                show(&shown(&contexts, &name, contexts.get(&name, path)?), &out)?;
            }
            What::Use { name, .. } => {
                let text = match &name {
                    Some(name) => format!("context {name} is current"),
                    None => "no context is current".to_owned(),
                };
                Contexts::change(path, |contexts| {
                    if let Some(name) = &name {
                        contexts.get(name, path)?;
                    }
                    contexts.current = name;
                    anyhow::Ok(())
                })?;
                reporter.line(&text);
            }
            What::Set(set) => set.run(globals, path, &reporter)?,
            What::Remove { names } => {
                Contexts::change(path, |contexts| {
                    for name in &names {
                        contexts.get(name, path)?;
                        contexts.named.remove(name);
                    }
                    contexts.current.take_if(|current| names.contains(current));
                    anyhow::Ok(())
                })?;
                reporter.line(&format!("removed {}", names.join(", ")));
            }
        }
        Ok(Exit::Ok)
    }
}

impl Set {
    fn run(self, globals: &Globals, path: &Path, reporter: &Reporter) -> anyhow::Result<()> {
        let Self { name, token_stdin, makes_current } = self;
        if !Contexts::is_name(&name) {
            let message = format!("{name:?} cannot be the name of a context");
            return Err(Failure::usage(message).hint("use letters, digits, '-', '_' and '.'").into());
        }
        if let Some(namespace) = &globals.namespace {
            Namespace::new(namespace).map_err(|error| Failure::usage(error.to_string()))?;
        }
        let token = token_stdin.then(token_of_stdin).transpose()?;
        let (ca, token_file) = (absolute(globals.ca.as_deref())?, absolute(globals.token_file.as_deref())?);
        let (exposed, forgotten) = Contexts::change(path, |contexts| {
            let context = contexts.named.entry(name.clone()).or_default();
            let mut forgotten = Vec::new();
            if let Some(endpoint) = &globals.selected_endpoint() {
                // Also the error of an address that is none.
                if Access::parse(endpoint)?.is_none() {
                    Client::new(Options::new(endpoint))?;
                }
                if !context.endpoint.is_empty() && !is_same_server(&context.endpoint, endpoint) {
                    forgotten = forget_server(context);
                }
                context.endpoint.clone_from(endpoint);
            }
            if context.endpoint.is_empty() {
                let message = format!("the new context {name} has no address");
                return Err(Failure::usage(message).hint("set --endpoint or --kube").into());
            }
            context.ca = ca.or(context.ca.take());
            context.namespace = globals.namespace.clone().or(context.namespace.take());
            if token.is_some() || token_file.is_some() {
                (context.token, context.token_file, context.login) = (token, token_file, None);
            }
            if context.token.is_some() || context.token_file.is_some() {
                bind(context)?;
            }
            let exposed = Options {
                token: context.token_file.clone().map(rota_client::Token::File).unwrap_or_default(),
                ..Options::new(&context.endpoint)
            };
            if makes_current {
                contexts.current = Some(name.clone());
            }
            anyhow::Ok((exposed, forgotten))
        })?;
        if !forgotten.is_empty() {
            let what = forgotten.join(", ");
            reporter.warn(&format!("removed what was for the earlier address of the context {name}: {what}"));
        }
        if exposed.exposes_token() {
            reporter.warn(&format!("the token is sent to {} unencrypted; use https", exposed.endpoint));
        }
        reporter.line(&format!("context {name} set{}", if makes_current { ", and current" } else { "" }));
        Ok(())
    }
}

/// Removes what is for the server of the earlier address only, which would otherwise get its secrets elsewhere. Returns its names.
fn forget_server(context: &mut ServerContext) -> Vec<&'static str> {
    context.registration = None;
    let forgotten = [
        ("token", context.token.take().is_some() | context.token_file.take().is_some()),
        ("login", context.login.take().is_some()),
        ("CA certificates", context.ca.take().is_some()),
    ];
    forgotten.into_iter().filter_map(|(name, was)| was.then_some(name)).collect()
}

/// Names the context of the kubeconfig in an address that leaves it open: a token must not go to the cluster that is current later.
fn bind(context: &mut ServerContext) -> Result<(), Failure> {
    if let Some(access) = Access::parse(&context.endpoint)?
        && access.context.is_none()
    {
        context.endpoint = Access { context: Some(cluster::current_context()?), ..access }.endpoint();
    }
    Ok(())
}

/// Whether two addresses are those of one control plane.
pub fn is_same_server(one: &str, other: &str) -> bool {
    Options::new(one).endpoint == Options::new(other).endpoint
}

/// Returns a path that means the same in every directory.
fn absolute(path: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    let made = |path: &Path| {
        let failed = || format!("failed to read {}", path.display());
        std::fs::metadata(path).with_context(failed)?;
        std::path::absolute(path).with_context(failed)
    };
    path.map(made).transpose()
}

fn token_of_stdin() -> anyhow::Result<SecretString> {
    let mut text = String::new();
    let read = std::io::stdin().take(MAX_TOKEN_BYTES + 1).read_to_string(&mut text);
    read.context("failed to read the token from standard input")?;
    match text.trim() {
        "" => Err(Failure::usage("there is no token on standard input").into()),
        _ if text.len() as u64 > MAX_TOKEN_BYTES => {
            Err(Failure::usage("the token on standard input is too long").into())
        }
        token => Ok(token.to_owned().into()),
    }
}

fn shown<'a>(contexts: &Contexts, name: &'a str, context: &'a ServerContext) -> Shown<'a> {
    Shown {
        name,
        current: contexts.current.as_deref() == Some(name),
        endpoint: &context.endpoint,
        namespace: context.namespace.as_deref().unwrap_or("default"),
        ca: context.ca.as_deref(),
        token: match (&context.token, &context.token_file, &context.login) {
            (Some(_), ..) => "kept".to_owned(),
            (None, Some(path), _) => path.display().to_string(),
            (None, None, Some(login)) => format!("login at {}", login.issuer),
            (None, None, None) if context.endpoint.starts_with(discover::CLUSTER_SCHEME) => {
                "of its cluster".to_owned()
            }
            (None, None, None) => "none".to_owned(),
        },
    }
}

fn list(contexts: &Contexts, path: &Path, out: &Out, reporter: &Reporter) -> anyhow::Result<()> {
    let all: Vec<_> = contexts.named.iter().map(|(name, context)| shown(contexts, name, context)).collect();
    if !out.is_human() {
        return out.list("contexts", &all);
    }
    let mut table = Table::new(&["CURRENT", "NAME", "ENDPOINT", "NAMESPACE", "TOKEN"]);
    for context in &all {
        let mark = if context.current { "*" } else { "" };
        let cells = [mark, context.name, context.endpoint, context.namespace, &context.token];
        table.row(cells.map(|cell| (cell.to_owned(), Paint::Plain)));
    }
    if table.is_empty() {
        reporter.line(&format!(
            "no contexts in {}; create one with: rota context set NAME --endpoint URL",
            path.display()
        ));
    }
    Ok(out.table(&table)?)
}

fn show(context: &Shown<'_>, out: &Out) -> anyhow::Result<()> {
    if !out.is_human() {
        return out.value(context);
    }
    let current = if context.current { " (current)" } else { "" };
    let in_cluster = context.endpoint.starts_with(discover::CLUSTER_SCHEME);
    let authority = if in_cluster { "of its cluster" } else { "of the system" };
    let lines = [
        ("name", format!("{}{current}", context.name)),
        ("endpoint", context.endpoint.to_owned()),
        ("namespace", context.namespace.to_owned()),
        ("ca", context.ca.map_or(authority.to_owned(), |ca| ca.display().to_string())),
        ("token", context.token.clone()),
    ];
    let text = lines.map(|(name, value)| format!("{name:<10} {value}"));
    Ok(out.text(&text.join("\n"))?)
}
