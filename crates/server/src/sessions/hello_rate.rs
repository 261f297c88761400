//! How often a worker may open a session, and how often the workers of a token that names none of them: each session is a
//! commit and reads records.

use std::num::NonZeroU32;

use governor::clock::MonotonicClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use tonic::Status;
use uuid::Uuid;

use crate::keys::{AgentKey, WorkerKey};
use crate::trust::identity::{Holder, Identity};
use crate::wire::status;

/// Sessions per minute of one worker, any of which may follow each other immediately. A worker that loses each of its
/// sessions immediately opens about 25.
pub(crate) const MAX_HELLOS: u32 = 120;
/// Sessions per minute of all workers that share a token, any of which may follow each other immediately: twice as many as may be
/// open with it. The token names no worker, so that its holder could open each session under a name of its own.
pub(crate) const MAX_HELLOS_OF_TOKEN: u32 = 2000;
/// Number of workers at which those that were idle are forgotten.
const MAX_KNOWN: usize = 20_000;

type Limiter<K> = RateLimiter<K, HashMapStateStore<K>, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// What the workers of a token share: its record, or the agent of a token that has none.
type TokenKey = (AgentKey, Option<Uuid>);

/// Limits how often workers open sessions.
pub(crate) struct HelloRate {
    workers: Limiter<WorkerKey>,
    tokens: Limiter<TokenKey>,
}

impl Default for HelloRate {
    fn default() -> Self {
        Self { workers: limiter(MAX_HELLOS), tokens: limiter(MAX_HELLOS_OF_TOKEN) }
    }
}

fn limiter<K: std::hash::Hash + Eq + Clone>(per_minute: u32) -> Limiter<K> {
    let quota = Quota::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN));
    RateLimiter::new(quota, HashMapStateStore::default(), MonotonicClock)
}

fn check<K: std::hash::Hash + Eq + Clone>(
    limiter: &Limiter<K>,
    key: &K,
    refused: impl FnOnce() -> String,
) -> Result<(), Status> {
    if limiter.len() > MAX_KNOWN {
        limiter.retain_recent();
    }
    limiter.check_key(key).map_err(|_| status::error("LIMIT_REACHED", refused()))
}

impl HelloRate {
    /// Refuses a worker that has opened too many sessions, or whose token has.
    pub(super) fn check(&self, worker: &WorkerKey, identity: Option<&Identity>) -> Result<(), Status> {
        if let Some(Identity { holder: Holder::Grant(grant), token, .. }) = identity
            && grant.worker.is_none()
        {
            let key = ((grant.namespace.clone(), grant.agent.clone()), *token);
            check(&self.tokens, &key, || {
                format!("more than {MAX_HELLOS_OF_TOKEN} sessions were opened with the token in a minute")
            })?;
        }
        check(&self.workers, worker, || {
            format!("worker {} has opened more than {MAX_HELLOS} sessions in a minute", worker.1)
        })
    }
}

#[cfg(test)]
mod tests {
    use rota_core::{AgentName, Namespace, Timestamp, WorkerName};

    use super::*;
    use crate::trust::worker_token::WorkerGrant;

    #[test]
    fn workers_are_limited_each_by_itself() {
        let key = |name: &str| (Namespace::new("n").unwrap(), WorkerName::new(name).unwrap());
        let rate = HelloRate::default();
        for _ in 0..MAX_HELLOS {
            rate.check(&key("one"), None).unwrap();
        }
        let refused = rate.check(&key("one"), None).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        rate.check(&key("two"), None).unwrap();
    }

    #[test]
    fn workers_of_one_token_are_limited_together() {
        let namespace = Namespace::new("n").unwrap();
        let of = |token: u128, worker: Option<&str>| Identity {
            holder: Holder::Grant(WorkerGrant {
                namespace: namespace.clone(),
                agent: AgentName::new("a").unwrap(),
                worker: worker.map(|name| WorkerName::new(name).unwrap()),
                instance: None,
                slots: None,
                capabilities: Vec::new(),
            }),
            expires: Timestamp(i64::MAX),
            token: Some(Uuid::from_u128(token)),
        };
        let named = |index: u32| (namespace.clone(), WorkerName::new(&format!("w{index}")).unwrap());
        let rate = HelloRate::default();
        for index in 0..MAX_HELLOS_OF_TOKEN {
            rate.check(&named(index), Some(&of(1, None))).unwrap();
        }
        let refused = rate.check(&named(MAX_HELLOS_OF_TOKEN), Some(&of(1, None))).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        rate.check(&named(0), Some(&of(2, None))).unwrap();
        rate.check(&named(0), Some(&of(1, Some("w0")))).unwrap();
    }
}
