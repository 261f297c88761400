//! `rota worker`: one process that serves an agent.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rota_client::{Token, discover};
use rota_crds::Span;
use rota_telemetry::{OnExit, spawn};
use rota_worker::Options;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::signals;
use crate::args::Globals;
use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::Talk;

const EXAMPLES: &str = "\
Examples:
  rota worker --agent coder
  rota worker --agent coder --worker coder-gpu --slots 4 --capability gpu
  ROTA_ENDPOINT=https://rota.example ROTA_TOKEN_FILE=token rota worker --agent coder

Ctrl-C or SIGTERM lets it finish what it runs and take nothing new; a second one, or the end of
--drain-timeout, ends that too.
Each key of the file has a flag, and a variable of the environment: `state_dir` is --state-dir
and ROTA_WORKER_STATE_DIR.";

/// Run a worker of an agent
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Worker {
    #[command(flatten)]
    pub source: config::Source,
    /// Names this process; made up unless whoever starts it wants to know
    #[arg(long, hide = true)]
    pub instance: Option<String>,
    /// End when standard input does, which is when whoever started it is gone
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
    #[command(flatten)]
    pub flags: Flags,
}

/// What flags say.
#[derive(Debug, Default, Args, Serialize)]
pub struct Flags {
    /// The agent to serve
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Its own name, unique in the namespace; made up when not given
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Tasks at a time
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<usize>,
    /// Something it can do beyond its agent
    #[arg(long = "capability", value_name = "WORD")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Where attempts work
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// The agent's secrets: a file each, named like its variable
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets_dir: Option<PathBuf>,
    /// Take only this task, which asked for a worker of its own
    #[arg(long, value_name = "ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolated_task: Option<String>,
    /// How long it goes on without a control plane
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphan_timeout: Option<Span>,
    /// How long it may finish what it runs once it was told to end; then that goes back to the queue
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<Span>,
    #[command(flatten)]
    #[serde(flatten)]
    programs: config::Programs,
}

/// The configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    agent: String,
    worker: String,
    slots: usize,
    capabilities: Vec<String>,
    state_dir: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secrets_dir: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    isolated_task: String,
    orphan_timeout: Span,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drain_timeout: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claude_program: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            agent: String::new(),
            worker: String::new(),
            slots: 1,
            capabilities: Vec::new(),
            state_dir: discover::home().join("worker"),
            secrets_dir: None,
            isolated_task: String::new(),
            orphan_timeout: Span(Duration::from_secs(15 * 60)),
            drain_timeout: None,
            claude_program: None,
        }
    }
}

impl Worker {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let Some(mut config) = self.source.load::<Config>("ROTA_WORKER_", &self.flags, globals)? else {
            return Ok(Exit::Ok);
        };
        if config.agent.is_empty() {
            return Err(Failure::usage("a worker serves an agent, and none is named")
                .hint("name one with --agent or ROTA_WORKER_AGENT")
                .into());
        }
        if config.worker.is_empty() {
            let suffix = uuid::Uuid::new_v4().simple().to_string();
            config.worker = format!("{}-{}", config.agent, &suffix[..6]);
        }
        let told = signals::Told::listen()?;
        if self.exit_with_parent {
            end_with_stdin(told.clone());
        }
        if let Some(limit) = config.drain_timeout {
            end_after(limit.0, told.clone());
        }
        let options = self.options(globals, &config, &told)?;
        tracing::info!(worker = config.worker, agent = config.agent, "a worker is up");
        options.run(told.to_end).await?;
        Ok(Exit::Ok)
    }

    fn options(&self, globals: &Globals, config: &Config, told: &signals::Told) -> anyhow::Result<Options> {
        let found = discover::find(&globals.flags())?;
        if found.options.exposes_token() {
            let endpoint = &found.options.endpoint;
            Talk::new(globals.color).warn(&format!("the token goes to {endpoint} in the clear; use https"));
        }
        let channel = rota_client::lazy_channel(&found.options)?;
        let mut options =
            Options::new(channel, &found.namespace, &config.agent, &config.worker, config.state_dir.clone());
        match found.options.token {
            Token::None => {}
            Token::Fixed(token) => options.token = Some(token),
            Token::File(path) => options.token_file = Some(path),
        }
        if let Some(instance) = &self.instance {
            options.instance.clone_from(instance);
        }
        options.slots = config.slots;
        options.capabilities.clone_from(&config.capabilities);
        options.orphan_timeout = config.orphan_timeout.0;
        options.claude_program.clone_from(&config.claude_program);
        options.secrets_dir.clone_from(&config.secrets_dir);
        options.isolated_task.clone_from(&config.isolated_task);
        options.stop_now = told.at_once.clone();
        Ok(options)
    }
}

/// Whoever told it to end may kill it later: what still runs then must be told to end before.
fn end_after(limit: Duration, told: signals::Told) {
    spawn("drain-timeout", OnExit::Done, async move {
        told.to_end.cancelled().await;
        tokio::time::sleep(limit).await;
        tracing::warn!(
            "what runs has not ended within the drain timeout; it is ended and goes back to the queue"
        );
        told.at_once.cancel();
    });
}

/// Whoever started us holds the other end of standard input and never writes. When it ends they
/// are gone, or want us to be.
fn end_with_stdin(told: signals::Told) {
    spawn("lifeline", OnExit::Done, async move {
        let mut stdin = tokio::io::stdin();
        let mut nothing = [0; 64];
        while matches!(stdin.read(&mut nothing).await, Ok(read) if read > 0) {}
        told.to_end.cancel();
        told.at_once.cancel();
    });
}
