//! Context of commands that call a server: client, namespace, output, and the resolution of names.

use rota_client::discover::Origin;
use rota_client::{Client, Options};
use rota_proto::names;
use rota_telemetry::env;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::login;
use crate::output::{Out, Reporter};

/// Context of a command that calls a server.
#[derive(Debug)]
pub struct Context {
    pub client: Client,
    pub namespace: String,
    pub out: Out,
    pub reporter: Reporter,
}

impl Context {
    pub async fn new(globals: &Globals) -> anyhow::Result<Self> {
        let found = login::find(globals).await?;
        let reporter = Reporter::new(globals.color);
        if found.options.exposes_token() {
            reporter.warn(&format!("the token is sent to {} unencrypted; use https", found.options.endpoint));
        }
        tracing::debug!(endpoint = found.options.endpoint, origin = ?found.origin, "server");
        let token = login::renewed_token(&found);
        let client = Client::new(Options { token, ..found.options }).map_err(|mut error| {
            if found.origin == Origin::Dev {
                error.hint = Some("restart `rota dev`".to_owned());
            }
            error
        })?;
        // A traced caller of this program finds its tasks in its own trace.
        let client = client.in_trace(env::var("TRACEPARENT").as_deref(), env::var("TRACESTATE").as_deref());
        Ok(Self {
            client,
            namespace: found.namespace,
            out: Out::new(globals.output, globals.color),
            reporter,
        })
    }

    /// Returns `namespaces/{namespace}`, or the wildcard for all namespaces.
    pub fn parent(&self, all: bool) -> String {
        names::namespace(if all { "-" } else { &self.namespace })
    }

    /// Resolves a task given as an id, an alias, `task/x`, or a full name.
    pub fn task(&self, given: &str) -> anyhow::Result<String> {
        self.resource(given, "tasks", "task")
    }

    /// Resolves an agent given as a name, `agent/x`, or a full name.
    pub fn agent(&self, given: &str) -> anyhow::Result<String> {
        self.resource(given, "agents", "agent")
    }

    /// Resolves the record of a worker token given as an id or a full name.
    pub fn worker_token(&self, given: &str) -> anyhow::Result<String> {
        self.resource(given, "workerTokens", "worker-token")
    }

    fn resource(&self, given: &str, collection: &str, kind: &str) -> anyhow::Result<String> {
        if names::parse(given, collection).is_some() {
            return Ok(given.to_owned());
        }
        let id = given.strip_prefix(&format!("{kind}/")).unwrap_or(given);
        if id.is_empty() || id.contains('/') {
            return Err(Failure::new(Exit::Usage, format!("{given:?} is not the name of a {kind}")).into());
        }
        Ok(format!("{}/{collection}/{id}", names::namespace(&self.namespace)))
    }
}
