//! Cache of the issuer's keys: refreshed regularly, and immediately when a token names an unknown key. Cached keys stay
//! valid while the issuer is unavailable.

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use rota_telemetry::{OnExit, spawn};
use serde::Deserialize;
use tokio::time::Instant;

use super::fetch;
use crate::options::Oidc;

/// More keys than any issuer has.
const MAX_KEYS: usize = 256;

/// A public key, and how tokens are signed with it.
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// Failure to find a key.
pub(super) enum NoKey {
    /// The issuer does not list it.
    Unknown,
    /// The issuer's keys cannot be fetched.
    Unavailable(String),
}

#[derive(Default)]
struct Cached {
    keys: HashMap<String, Arc<Key>>,
    /// When the keys were last fetched.
    at: Option<Instant>,
}

/// The last attempt to fetch the keys.
struct Fetch {
    at: Instant,
    outcome: Result<(), String>,
}

/// Keys of one issuer. Clones share the cache.
#[derive(Clone)]
pub(super) struct Keys {
    options: Arc<Oidc>,
    cache: Arc<Mutex<Cached>>,
    /// Held while the keys are fetched: other callers wait, and use the outcome.
    last_fetch: Arc<tokio::sync::Mutex<Option<Fetch>>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("issuer", &self.options.issuer).finish_non_exhaustive()
    }
}

impl Keys {
    pub(super) fn new(options: Oidc) -> Self {
        Self { options: Arc::new(options), cache: Arc::default(), last_fetch: Arc::default() }
    }

    /// Returns a key by its id.
    pub(super) async fn find(&self, kid: &str) -> Result<Arc<Key>, NoKey> {
        let (known, stale) = self.cached(kid);
        if let Some(key) = known {
            // Refreshed in the background, so that a key that the issuer withdrew is removed.
            if stale && self.last_fetch.try_lock().is_ok() {
                let keys = self.clone();
                spawn("oidc-keys", OnExit::Done, async move { drop(keys.fetch().await) });
            }
            return Ok(key);
        }
        let fetched = self.fetch().await;
        match (self.cached(kid).0, fetched) {
            (Some(key), _) => Ok(key),
            (None, Ok(())) => Err(NoKey::Unknown),
            (None, Err(why)) => Err(NoKey::Unavailable(why)),
        }
    }

    /// Returns a cached key, and whether the cache is due for a refresh.
    fn cached(&self, kid: &str) -> (Option<Arc<Key>>, bool) {
        let cache = self.cache.lock();
        (cache.keys.get(kid).cloned(), cache.at.is_none_or(|at| at.elapsed() >= self.options.refresh))
    }

    /// Fetches the keys, at most once per `refetch` interval: forged tokens must not cause a request each.
    async fn fetch(&self) -> Result<(), String> {
        let mut last_fetch = self.last_fetch.lock().await;
        if let Some(last) = last_fetch.as_ref().filter(|last| last.at.elapsed() < self.options.refetch) {
            return last.outcome.clone();
        }
        let outcome = fetch::key_set(&self.options).await.and_then(|text| parse(&text));
        let outcome = match outcome {
            Ok(keys) => {
                tracing::debug!(keys = keys.len(), "fetched the issuer's keys");
                *self.cache.lock() = Cached { keys, at: Some(Instant::now()) };
                Ok(())
            }
            Err(why) => {
                tracing::warn!(
                    issuer = self.options.issuer,
                    error = why,
                    "failed to fetch the issuer's keys"
                );
                Err(why)
            }
        };
        *last_fetch = Some(Fetch { at: Instant::now(), outcome: outcome.clone() });
        outcome
    }
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

/// Returns the usable keys of a set. Keys of unknown kinds are skipped.
fn parse(text: &[u8]) -> Result<HashMap<String, Arc<Key>>, String> {
    let set: KeySet = serde_json::from_slice(text).map_err(|error| format!("invalid key set: {error}"))?;
    let usable =
        set.keys.into_iter().take(MAX_KEYS).filter_map(|key| usable(&serde_json::from_value(key).ok()?));
    Ok(usable.collect())
}

fn usable(key: &Jwk) -> Option<(String, Arc<Key>)> {
    let algorithm = match &key.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
        _ => return None,
    };
    let common = &key.common;
    let other = common.key_algorithm.is_some_and(|named| named.to_string() != format!("{algorithm:?}"));
    if other || !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let kid = common.key_id.clone().filter(|kid| !kid.is_empty())?;
    Some((kid, Arc::new(Key { algorithm, key: DecodingKey::from_jwk(key).ok()? })))
}
