//! `rota worker`: runs one process that serves an agent.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use rota_client::{Token, discover};
use rota_settings::Layers;
use rota_telemetry::{OnExit, env, spawn};
use rota_worker::{Options, Settings};
use secrecy::SecretString;
use tokio::io::AsyncReadExt;

use super::signals;
use crate::config;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::Reporter;

const MAX_TOKEN_BYTES: usize = 16 << 10;
const EXAMPLES: &str = "\
Examples:
  rota admin create-worker-token coder > ~/.rota/coder.token
  rota worker --agent coder --token-file ~/.rota/coder.token
  rota worker --agent coder --token-file ~/.rota/coder.token --worker coder-gpu --slots 4
  ROTA_ENDPOINT=https://rota.example ROTA_TOKEN_FILE=~/.rota/coder.token rota worker --agent coder

A control plane with authentication accepts tokens of workers, not the admin's. \
Ctrl-C or SIGTERM drains the worker: running attempts finish, and no new one starts. A second signal, \
or the end of --drain-timeout, ends running attempts too, and their tasks return to the queue.

Every setting is a flag, an environment variable and a key of the file: --state-dir, \
ROTA_WORKER_STATE_DIR and `state_dir`. Flags override variables, which override the file. In a variable, \
lists are separated by commas.";

/// Run a worker of an agent
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Worker {
    /// Unique name of this process [default: random]
    #[arg(long, hide = true)]
    instance: Option<String>,
    /// End when standard input does, that is when the parent process has exited
    #[arg(long, hide = true)]
    exit_with_parent: bool,
    /// Read the token from the first line of standard input
    #[arg(long, hide = true)]
    token_from_stdin: bool,
    /// Take no tasks, and end once what earlier processes of this name have left is stored
    #[arg(long, hide = true)]
    only_store: bool,
    #[command(flatten)]
    settings: Layers<Settings>,
}

impl Worker {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        crate::process::protect();
        let Some(settings) = config::load(&self.settings, globals)? else {
            return Ok(Exit::Ok);
        };
        let Some(agent) = settings.agent.clone().filter(|agent| !agent.is_empty()) else {
            return Err(Failure::usage("no agent is set")
                .hint("set the agent to serve with --agent or ROTA_WORKER_AGENT")
                .into());
        };
        let shutdown = signals::Shutdown::listen()?;
        let token = if self.token_from_stdin { Some(token_line().await?) } else { None };
        if self.exit_with_parent {
            end_with_stdin(shutdown.clone());
        }
        if let Some(limit) = settings.drain_timeout {
            end_after(limit.0, shutdown.clone());
        }
        if let Err(reason) = rota_worker::supervise::delegate() {
            tracing::debug!(reason, "programs of attempts get no control groups of their own");
        }
        let mut options = connect(globals, settings, &agent)?;
        options.only_store = self.only_store;
        if let Some(token) = token {
            (options.token, options.token_file) = (Some(token), None);
        }
        options.stop_now = shutdown.forced.clone();
        if let Some(instance) = self.instance {
            // No other pod gets the name of one that the operator has made.
            options.temporary_state |= env::var("POD_UID").is_some_and(|pod| pod == instance);
            options.instance = instance;
        }
        tracing::info!(worker = options.worker, agent, "worker started");
        options.run(shutdown.graceful).await?;
        Ok(Exit::Ok)
    }
}

/// Reads the token from standard input, byte by byte: what follows is the parent's.
async fn token_line() -> anyhow::Result<SecretString> {
    let (mut stdin, mut line) = (tokio::io::stdin(), Vec::new());
    loop {
        match stdin.read_u8().await.context("failed to read the token from standard input")? {
            b'\n' => break,
            _ if line.len() >= MAX_TOKEN_BYTES => bail!("the token on standard input is too long"),
            byte => line.push(byte),
        }
    }
    let line = std::str::from_utf8(&line).context("the token on standard input is not text")?;
    Ok(SecretString::from(line))
}

/// Returns the options of a worker that connects to the server of the global options.
fn connect(globals: &Globals, settings: Settings, agent: &str) -> anyhow::Result<Options> {
    let found = discover::find(&globals.component_flags()?)?;
    if found.options.exposes_token() {
        let endpoint = &found.options.endpoint;
        Reporter::new(globals.color).warn(&format!("the token is sent to {endpoint} unencrypted; use https"));
    }
    let channel = rota_client::RenewableChannel::new(found.options.clone())?;
    let mut options = settings.options(channel, &found.namespace, agent);
    match found.options.token {
        // Logins are those of people.
        Token::None | Token::Renewed(_) => {}
        Token::Fixed(token) => options.token = Some(token),
        Token::File(path) => options.token_file = Some(path),
    }
    Ok(options)
}

/// Forces the shutdown when the drain timeout ends: the process may be killed later, and running attempts must
/// be ended before.
fn end_after(limit: Duration, shutdown: signals::Shutdown) {
    spawn("drain-timeout", OnExit::Done, async move {
        shutdown.graceful.cancelled().await;
        tokio::time::sleep(limit).await;
        tracing::warn!("drain timeout exceeded, ending running attempts; their tasks return to the queue");
        shutdown.forced.cancel();
    });
}

/// Forces the shutdown when standard input ends. The parent process holds its other end and never writes: it
/// closes when the parent exits or wants this process to.
fn end_with_stdin(shutdown: signals::Shutdown) {
    spawn("lifeline", OnExit::Done, async move {
        let mut stdin = tokio::io::stdin();
        let mut buffer = [0; 64];
        while matches!(stdin.read(&mut buffer).await, Ok(read) if read > 0) {}
        shutdown.graceful.cancel();
        shutdown.forced.cancel();
    });
}
