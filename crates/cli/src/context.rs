//! What commands that talk to a server share: the client, the namespace, and how names are meant.

use anyhow::Context as _;
use rota_client::Client;
use rota_client::discover::{self, Origin};
use rota_proto::names;
use rota_telemetry::env;

use crate::args::Globals;
use crate::exit::{Exit, Failure};
use crate::output::{Out, Talk};

/// What commands share.
#[derive(Debug)]
pub struct Context {
    pub client: Client,
    pub namespace: String,
    pub out: Out,
    pub talk: Talk,
}

impl Context {
    pub fn new(globals: &Globals) -> anyhow::Result<Self> {
        let found =
            discover::find(&globals.flags()).context("which server to talk to could not be found out")?;
        let talk = Talk::new(globals.color);
        if found.options.exposes_token() {
            talk.warn(&format!("the token goes to {} in the clear; use https", found.options.endpoint));
        }
        tracing::debug!(endpoint = found.options.endpoint, origin = ?found.origin, "server");
        let client = Client::new(found.options).map_err(|mut error| {
            if found.origin == Origin::Dev {
                error.hint = Some("start `rota dev` again".to_owned());
            }
            error
        })?;
        // Whoever runs this program as a part of something finds its tasks there.
        let client = client.in_trace(env::var("TRACEPARENT").as_deref(), env::var("TRACESTATE").as_deref());
        Ok(Self { client, namespace: found.namespace, out: Out::new(globals.output, globals.color), talk })
    }

    /// `namespaces/{namespace}`, or all of them.
    pub fn parent(&self, all: bool) -> String {
        names::namespace(if all { "-" } else { &self.namespace })
    }

    /// The task that a person means: an id, an alias, `task/x`, or a full name.
    pub fn task(&self, given: &str) -> anyhow::Result<String> {
        self.resource(given, "tasks", "task")
    }

    /// The agent that a person means.
    pub fn agent(&self, given: &str) -> anyhow::Result<String> {
        self.resource(given, "agents", "agent")
    }

    fn resource(&self, given: &str, collection: &str, kind: &str) -> anyhow::Result<String> {
        if names::parse(given, collection).is_some() {
            return Ok(given.to_owned());
        }
        let id = given.strip_prefix(&format!("{kind}/")).unwrap_or(given);
        if id.is_empty() || id.contains('/') {
            return Err(Failure::new(Exit::Usage, format!("{given:?} names no {kind}")).into());
        }
        Ok(format!("{}/{collection}/{id}", names::namespace(&self.namespace)))
    }
}
