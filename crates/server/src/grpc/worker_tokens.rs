//! Worker tokens: issuing, listing and revoking them. Their records are documents of the store, and the tokens themselves are not
//! stored.

use std::time::Duration;

use prost::Message;
use rota_core::{Namespace, Timestamp};
use rota_proto::{names as n, v1};
use rota_store::{Command, Expected, PutDocument, Refused};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;
use tonic::{Request, Status};
use uuid::Uuid;

use super::answers::page;
use crate::barrier::Barriers;
use crate::clock::now;
use crate::store_client::{StoreClient, no_reply};
use crate::trust::auth::bearer_token;
use crate::trust::token_registry::{StoredToken, TokenRecord, document_key};
use crate::trust::worker_token::{MAX_LIFETIME, WorkerGrant, WorkerTokens};
use crate::wire::status::{error, hinted, invalid, refused, store};
use crate::wire::{check, names, time};

const DEFAULT_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
const MAX_CAPABILITIES: usize = 64;
/// Tokens of a namespace that have neither expired nor been revoked.
pub(crate) const MAX_TOKENS: usize = 1000;
/// Entries of a page: with all capabilities of each, less than 1 MiB.
const MAX_PAGE: i32 = 200;

pub(crate) struct TokenAdmin {
    pub(crate) store: StoreClient,
    pub(crate) tokens: WorkerTokens,
    pub(crate) barriers: Barriers,
    /// Held by a call that counts tokens before it adds one.
    pub(crate) changes: Mutex<()>,
}

impl TokenAdmin {
    pub(super) async fn issue(
        &self,
        request: Request<v1::IssueWorkerTokenRequest>,
    ) -> Result<v1::IssueWorkerTokenResponse, Status> {
        let creator = if bearer_token(request.metadata().as_ref()).is_some() { "admin" } else { "anyone" };
        let request = request.into_inner();
        let (grant, lifetime) = checked(&request)?;
        let (id, namespace, expires) = (Uuid::now_v7(), grant.namespace.clone(), now() + lifetime);
        let stored = StoredToken {
            agent: grant.agent.to_string(),
            worker: request.worker,
            max_slots: request.max_slots,
            capabilities: request.capabilities,
            creator: creator.to_owned(),
            expires: expires.0,
            last_use: 0,
        };
        let token = self.tokens.issue_recorded(grant, expires, id);
        let token = token.map_err(|error| Status::internal(error.to_string()))?;
        let _exclusive = self.changes.lock().await;
        let mut batch = self.remove_expired(&namespace)?;
        batch.push(Command::PutDocument(PutDocument {
            key: document_key(namespace.clone(), id),
            payload: stored.encode_to_vec().into(),
            expected: Expected::Absent,
        }));
        let replies = self.store.apply(batch).await.map_err(store)?;
        replies.into_iter().next_back().ok_or_else(no_reply)?.map_err(refused)?;
        self.barriers.flush().await;
        tracing::info!(token = %id, %namespace, agent = stored.agent, creator, "a worker token was issued");
        Ok(v1::IssueWorkerTokenResponse {
            token: token.expose_secret().to_owned(),
            expire_time: Some(time::timestamp(expires)),
            name: n::worker_token(namespace.as_str(), id),
        })
    }

    /// Returns the commands that make room for another token of a namespace.
    fn remove_expired(&self, namespace: &Namespace) -> Result<Vec<Command>, Status> {
        let records = self.tokens.registry().list(Some(namespace));
        let expired = records.iter().filter(|record| record.has_expired());
        let commands: Vec<_> = expired
            .map(|record| Command::DeleteDocument(record.document.key.clone(), Expected::Any))
            .collect();
        if records.len() - commands.len() >= MAX_TOKENS {
            return Err(hinted(
                "LIMIT_REACHED",
                format!("namespace {namespace} has {MAX_TOKENS} worker tokens, the most that are allowed"),
                "revoke those that are not used: `rota admin worker-tokens`, `rota admin revoke-worker-token ID`",
            ));
        }
        Ok(commands)
    }

    pub(super) fn list(
        &self,
        request: &v1::ListWorkerTokensRequest,
    ) -> Result<v1::ListWorkerTokensResponse, Status> {
        let namespace = names::parent_or_all("parent", &request.parent)?;
        let records = self.tokens.registry().list(namespace.as_ref());
        let valid = records.iter().filter(|record| !record.has_expired());
        let mut named: Vec<_> = valid.map(|record| (name(record), record)).collect();
        named.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let (records, next_page_token) = page(named, request.page_size.min(MAX_PAGE), &request.page_token)?;
        let worker_tokens = records.into_iter().map(|record| to_wire(record)).collect();
        Ok(v1::ListWorkerTokensResponse { worker_tokens, next_page_token })
    }

    pub(super) async fn revoke(
        &self,
        request: &v1::RevokeWorkerTokenRequest,
    ) -> Result<v1::WorkerToken, Status> {
        let (namespace, id) = names::worker_token("name", &request.name)?;
        let key = document_key(namespace, id);
        let known = self.tokens.registry().get(id).filter(|record| record.document.key == key);
        let missing =
            || error("WORKER_TOKEN_NOT_FOUND", format!("there is no worker token {id} in the namespace"));
        let record = known.ok_or_else(missing)?;
        let revoked = to_wire(&record);
        let delete = Command::DeleteDocument(key, Expected::Any);
        let replies = self.store.apply(vec![delete]).await.map_err(store)?;
        match replies.into_iter().next().ok_or_else(no_reply)? {
            Err(Refused::NoDocument(_)) => return Err(missing()),
            reply => reply.map_err(refused)?,
        };
        self.barriers.flush().await;
        tracing::warn!(token = %id, agent = revoked.agent, sessions = revoked.sessions, "a worker token was revoked");
        Ok(revoked)
    }
}

fn checked(request: &v1::IssueWorkerTokenRequest) -> Result<(WorkerGrant, Duration), Status> {
    let (namespace, agent) = names::agent("agent", &request.agent)?;
    let worker = match request.worker.as_str() {
        "" => None,
        worker => Some(names::worker_id("worker", worker)?),
    };
    check::words("capabilities", &request.capabilities, MAX_CAPABILITIES)?;
    let lifetime = match request.lifetime {
        None => Some(DEFAULT_LIFETIME),
        Some(lifetime) => Duration::try_from(lifetime).ok(),
    };
    let Some(lifetime) = lifetime.filter(|time| !time.is_zero() && *time <= MAX_LIFETIME) else {
        return Err(invalid("lifetime", "must be positive and at most 366 days"));
    };
    let slots = match request.max_slots {
        0 => None,
        1.. => Some(request.max_slots),
        _ => return Err(invalid("max_slots", "must not be negative")),
    };
    let capabilities = request.capabilities.clone();
    Ok((WorkerGrant { namespace, agent, worker, instance: None, slots, capabilities }, lifetime))
}

fn name(record: &TokenRecord) -> String {
    n::worker_token(record.document.key.namespace.as_str(), record.id)
}

fn to_wire(record: &TokenRecord) -> v1::WorkerToken {
    let StoredToken { agent, worker, max_slots, capabilities, creator, expires, .. } = record.stored.clone();
    v1::WorkerToken {
        name: name(record),
        agent,
        worker,
        max_slots,
        capabilities,
        creator,
        create_time: Some(time::timestamp(record.document.created_at)),
        expire_time: Some(time::timestamp(Timestamp(expires))),
        last_use_time: record.last_use().map(time::timestamp),
        sessions: record.sessions(),
    }
}
