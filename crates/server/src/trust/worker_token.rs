//! Tokens of workers that are not pods: each names what its holder may be, sealed with the control plane's key, so that none
//! is stored. Knows nothing of sessions.

use std::sync::Arc;
use std::time::Duration;

use rota_core::{AgentName, Namespace, Timestamp, WorkerName};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::identity::{Holder, Identity};
use crate::clock::now;
use crate::seal::Sealer;

/// Start of every such token, by which scanners of secrets recognize one.
const PREFIX: &str = "rota_worker_";
/// Longest lifetime that a caller may ask for.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(366 * 24 * 3600);

/// What the holder of a worker token may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerGrant {
    /// Namespace that the agent belongs to.
    pub namespace: Namespace,
    /// Agent that the worker serves.
    pub agent: AgentName,
    /// The one worker that may use the token; any worker of the agent if absent.
    pub worker: Option<WorkerName>,
    /// The one process that may use the token; any if absent.
    pub instance: Option<String>,
    /// Concurrent attempts at most; any number if absent.
    pub slots: Option<i32>,
    /// Capabilities in addition to the agent's that the worker may have.
    pub capabilities: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    grant: WorkerGrant,
    expires: Timestamp,
}

/// Why a worker token is rejected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("not a worker token of this control plane")]
    Foreign,
    #[error("expired")]
    Expired,
}

/// Issues and verifies worker tokens.
#[derive(Clone)]
pub struct WorkerTokens(Arc<Sealer>);

impl std::fmt::Debug for WorkerTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerTokens").finish_non_exhaustive()
    }
}

impl WorkerTokens {
    pub(crate) fn new(sealer: Arc<Sealer>) -> Self {
        Self(sealer)
    }

    /// Returns a token that is valid for this time.
    pub fn issue(&self, grant: WorkerGrant, lifetime: Duration) -> Result<SecretString, crate::seal::Error> {
        let content = Content { grant, expires: now() + lifetime };
        let sealed = self.0.seal_worker_token(&serde_json::to_vec(&content).unwrap_or_default())?;
        let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(SecretString::from(format!("{PREFIX}{hex}")))
    }

    /// Returns the identity of a token's holder. `None` if it is not a worker token at all.
    pub(crate) fn verify(&self, token: &[u8]) -> Option<Result<Identity, Invalid>> {
        let hex = token.strip_prefix(PREFIX.as_bytes())?;
        let content = from_hex(hex).and_then(|sealed| self.0.open_worker_token(&sealed));
        let content = content.and_then(|plain| serde_json::from_slice::<Content>(&plain).ok());
        Some(match content {
            None => Err(Invalid::Foreign),
            Some(content) if content.expires <= now() => Err(Invalid::Expired),
            Some(Content { grant, expires }) => Ok(Identity { holder: Holder::Grant(grant), expires }),
        })
    }
}

fn from_hex(hex: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = hex.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn only_own_and_current_tokens_are_valid() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = |name| WorkerTokens::new(Arc::new(crate::seal::of_file(&folder.path().join(name))));
        let (own, other) = (tokens("own"), tokens("other"));
        let grant = WorkerGrant {
            namespace: Namespace::new("team").unwrap(),
            agent: AgentName::new("coder").unwrap(),
            worker: None,
            instance: None,
            slots: Some(2),
            capabilities: vec!["gpu".to_owned()],
        };
        let token = own.issue(grant.clone(), Duration::from_secs(60)).unwrap();
        let token = token.expose_secret().as_bytes();
        let Some(Ok(identity)) = own.verify(token) else { panic!("rejected") };
        assert_eq!(identity.holder, Holder::Grant(grant.clone()));
        assert_eq!(other.verify(token), Some(Err(Invalid::Foreign)));
        assert_eq!(own.verify(&token[..token.len() - 2]), Some(Err(Invalid::Foreign)));
        assert_eq!(own.verify(b"rota_worker_xyz"), Some(Err(Invalid::Foreign)));
        assert_eq!(own.verify(b"open sesame"), None);
        let expired = own.issue(grant, Duration::ZERO).unwrap();
        assert_eq!(own.verify(expired.expose_secret().as_bytes()), Some(Err(Invalid::Expired)));
    }
}
