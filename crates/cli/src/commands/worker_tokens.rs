//! `rota admin create-worker-token`, `worker-tokens` and `revoke-worker-token`: tokens of workers outside of a cluster.

use clap::Args;
use rota_proto::names;
use rota_proto::v1::{IssueWorkerTokenRequest, RevokeWorkerTokenRequest, WorkerToken};
use rota_settings::HumanDuration;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Paint, Table, age, clean, time};

#[derive(Debug, Args)]
pub struct CreateWorkerToken {
    /// Agent that the workers serve
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Name of the only worker that may use the token [default: any worker of the agent]
    #[arg(long, value_name = "NAME")]
    worker: Option<String>,
    /// Concurrent attempts of a worker at most [default: no limit]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    max_slots: Option<i32>,
    /// Capability that a worker may have in addition to the agent's; repeatable
    #[arg(long = "capability", value_name = "WORD")]
    capabilities: Vec<String>,
    /// Time for which the token is valid, at most 366 days
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "90d")]
    lifetime: HumanDuration,
}

#[derive(Debug, Args)]
pub struct WorkerTokens {
    /// List the tokens of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

#[derive(Debug, Args)]
pub struct RevokeWorkerToken {
    /// Ids of tokens, as listed
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

impl CreateWorkerToken {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let request = IssueWorkerTokenRequest {
            agent: names::agent(&context.namespace, &self.agent),
            worker: self.worker.unwrap_or_default(),
            max_slots: self.max_slots.unwrap_or_default(),
            capabilities: self.capabilities,
            lifetime: Some(self.lifetime.0.into()),
        };
        let answer = context.client.issue_worker_token(request).await?;
        match context.out.is_human() {
            true => context.out.line(&answer.token)?,
            false => context.out.value(&answer)?,
        }
        let (id, expires) = (names::last(&answer.name), time(answer.expire_time.as_ref()));
        context.reporter.line(&format!("worker token {id} created, valid until {expires}"));
        Ok(Exit::Ok)
    }
}

impl WorkerTokens {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let tokens = context.client.all_worker_tokens(&context.parent(self.all_namespaces)).await?;
        if !context.out.is_human() {
            context.out.list("workerTokens", &tokens)?;
            return Ok(Exit::Ok);
        }
        let mut header = vec![
            "ID",
            "AGENT",
            "WORKER",
            "SLOTS",
            "CAPABILITIES",
            "SESSIONS",
            "LAST USE",
            "CREATED",
            "BY",
            "EXPIRES",
        ];
        if self.all_namespaces {
            header.insert(0, "NAMESPACE");
        }
        let mut table = Table::new(&header);
        for token in &tokens {
            let namespace = self.all_namespaces.then(|| namespace(token).to_owned());
            table.row(namespace.into_iter().chain(row(token)).map(|text| (text, Paint::Plain)));
        }
        if table.is_empty() {
            context
                .reporter
                .line("there are no worker tokens; create one with: rota admin create-worker-token AGENT");
        }
        context.out.table(&table)?;
        Ok(Exit::Ok)
    }
}

fn namespace(token: &WorkerToken) -> &str {
    names::parse(&token.name, "workerTokens").map_or("", |(namespace, _)| namespace)
}

fn row(token: &WorkerToken) -> [String; 10] {
    let ago = |at: &pbjson_types::Timestamp| age(Some(at)) + " ago";
    [
        names::last(&token.name).to_owned(),
        token.agent.clone(),
        if token.worker.is_empty() { "any".to_owned() } else { token.worker.clone() },
        if token.max_slots == 0 { "any".to_owned() } else { token.max_slots.to_string() },
        token.capabilities.join(","),
        token.sessions.to_string(),
        token.last_use_time.as_ref().map_or("never".to_owned(), ago),
        token.create_time.as_ref().map(ago).unwrap_or_default(),
        token.creator.clone(),
        time(token.expire_time.as_ref()),
    ]
}

impl RevokeWorkerToken {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        for id in &self.ids {
            let name = context.worker_token(id)?;
            let token = context.client.revoke_worker_token(RevokeWorkerTokenRequest { name }).await?;
            match context.out.is_human() {
                true => context.reporter.line(&format!(
                    "worker token {} of agent {} revoked; sessions that end: {}",
                    names::last(&token.name),
                    clean(&token.agent),
                    token.sessions
                )),
                false => context.out.value(&token)?,
            }
        }
        Ok(Exit::Ok)
    }
}
