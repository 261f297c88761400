//! The issuer's keys: kept, looked at again now and then, and at once when a token names one that is not known. What
//! is kept goes on while the issuer is away.

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
const MOST: usize = 256;

/// A public key, and how tokens are signed with it.
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// Why there is no key.
pub(super) enum NoKey {
    /// The issuer does not list it.
    Unknown,
    /// The issuer cannot be asked.
    Away(String),
}

#[derive(Default)]
struct Known {
    keys: HashMap<String, Arc<Key>>,
    /// When the issuer last answered.
    at: Option<Instant>,
}

/// The last time that the issuer was asked.
struct Asked {
    at: Instant,
    outcome: Result<(), String>,
}

/// The issuer's keys.
#[derive(Clone)]
pub(super) struct Keys {
    options: Arc<Oidc>,
    known: Arc<Mutex<Known>>,
    /// Held by whoever asks: the others wait, and use what it brings.
    asked: Arc<tokio::sync::Mutex<Option<Asked>>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("issuer", &self.options.issuer).finish_non_exhaustive()
    }
}

impl Keys {
    pub(super) fn new(options: Oidc) -> Self {
        Self { options: Arc::new(options), known: Arc::default(), asked: Arc::default() }
    }

    /// The key of this id.
    pub(super) async fn find(&self, kid: &str) -> Result<Arc<Key>, NoKey> {
        let (known, old) = self.look(kid);
        if let Some(key) = known {
            // One that the issuer has withdrawn goes, though no token asks for a new one. Nobody waits for that.
            if old && self.asked.try_lock().is_ok() {
                let keys = self.clone();
                spawn("oidc-keys", OnExit::Done, async move { drop(keys.ask().await) });
            }
            return Ok(key);
        }
        let asked = self.ask().await;
        match (self.look(kid).0, asked) {
            (Some(key), _) => Ok(key),
            (None, Ok(())) => Err(NoKey::Unknown),
            (None, Err(why)) => Err(NoKey::Away(why)),
        }
    }

    /// A key, and whether it is time to ask again.
    fn look(&self, kid: &str) -> (Option<Arc<Key>>, bool) {
        let known = self.known.lock();
        (known.keys.get(kid).cloned(), known.at.is_none_or(|at| at.elapsed() >= self.options.refresh))
    }

    /// Asks the issuer, unless that was done a moment ago: whoever makes up tokens must not make us ask for each.
    async fn ask(&self) -> Result<(), String> {
        let mut asked = self.asked.lock().await;
        if let Some(last) = asked.as_ref().filter(|last| last.at.elapsed() < self.options.refetch) {
            return last.outcome.clone();
        }
        let outcome = fetch::key_set(&self.options).await.and_then(|text| parse(&text));
        let outcome = match outcome {
            Ok(keys) => {
                tracing::debug!(keys = keys.len(), "the issuer's keys are known");
                *self.known.lock() = Known { keys, at: Some(Instant::now()) };
                Ok(())
            }
            Err(why) => {
                tracing::warn!(issuer = self.options.issuer, why, "the issuer's keys cannot be fetched");
                Err(why)
            }
        };
        *asked = Some(Asked { at: Instant::now(), outcome: outcome.clone() });
        outcome
    }
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

/// The keys of a set that can be used here. Others are passed over: an issuer may have more than we understand.
fn parse(text: &[u8]) -> Result<HashMap<String, Arc<Key>>, String> {
    let set: KeySet = serde_json::from_slice(text).map_err(|error| format!("it is no key set: {error}"))?;
    let usable = set.keys.into_iter().take(MOST).filter_map(|key| usable(&serde_json::from_value(key).ok()?));
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
