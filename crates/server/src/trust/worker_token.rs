//! Tokens of workers that are not pods: each names what its holder may be, sealed with the control plane's key, so that none
//! is stored. Those that an admin has issued have a record, without which they are revoked. Knows nothing of sessions.

use std::sync::Arc;
use std::time::Duration;

use rota_core::{AgentName, Namespace, Timestamp, WorkerName};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use uuid::Uuid;

use super::identity::{Holder, Identity};
use super::token_registry::TokenRegistry;
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
    /// Id of the token's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    /// Whether the holder is a process that the control plane's own has started: such a token needs no record.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    own: bool,
}

/// Why a worker token is rejected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("not a worker token of this control plane")]
    Foreign,
    #[error("expired")]
    Expired,
    #[error("revoked")]
    Revoked,
    /// It could not be revoked.
    #[error("an earlier version created it, which kept no record of it")]
    Unrecorded,
}

/// Issues and verifies worker tokens.
#[derive(Clone)]
pub struct WorkerTokens {
    sealer: Arc<Sealer>,
    registry: Arc<TokenRegistry>,
}

impl std::fmt::Debug for WorkerTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerTokens").finish_non_exhaustive()
    }
}

impl WorkerTokens {
    pub(crate) fn new(sealer: Arc<Sealer>, registry: Arc<TokenRegistry>) -> Self {
        Self { sealer, registry }
    }

    /// Returns the records of the tokens that have one.
    pub(crate) fn registry(&self) -> &Arc<TokenRegistry> {
        &self.registry
    }

    /// Returns a token without a record, for a worker of this process: it is valid for this time.
    pub fn issue(&self, grant: WorkerGrant, lifetime: Duration) -> Result<SecretString, crate::seal::Error> {
        self.seal(&Content { grant, expires: now() + lifetime, id: None, own: true })
    }

    /// Returns a token that is valid as long as its record exists.
    pub(crate) fn issue_recorded(
        &self,
        grant: WorkerGrant,
        expires: Timestamp,
        id: Uuid,
    ) -> Result<SecretString, crate::seal::Error> {
        self.seal(&Content { grant, expires, id: Some(id), own: false })
    }

    fn seal(&self, content: &Content) -> Result<SecretString, crate::seal::Error> {
        let sealed = self.sealer.seal_worker_token(&serde_json::to_vec(content).unwrap_or_default())?;
        Ok(SecretString::from(format!("{PREFIX}{}", hex::encode(sealed))))
    }

    /// Returns the identity of a token's holder. `None` if it is not a worker token at all.
    pub(crate) fn verify(&self, token: &[u8]) -> Option<Result<Identity, Invalid>> {
        let digits = token.strip_prefix(PREFIX.as_bytes())?;
        let content = hex::decode(digits).ok().and_then(|sealed| self.sealer.open_worker_token(&sealed));
        let content = content.and_then(|plain| serde_json::from_slice::<Content>(&plain).ok());
        Some(match content {
            None => Err(Invalid::Foreign),
            Some(content) if content.expires <= now() => Err(Invalid::Expired),
            Some(Content { id: Some(id), .. }) if self.registry.get(id).is_none() => Err(Invalid::Revoked),
            Some(Content { id: None, own: false, .. }) => Err(Invalid::Unrecorded),
            Some(Content { grant, expires, id, .. }) => {
                Ok(Identity { holder: Holder::Grant(grant), expires, token: id })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn only_own_and_current_tokens_are_valid() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = |name| {
            let sealer = crate::seal::of_file(&folder.path().join(name));
            WorkerTokens::new(Arc::new(sealer), Arc::default())
        };
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
        let expired = own.issue(grant.clone(), Duration::ZERO).unwrap();
        assert_eq!(own.verify(expired.expose_secret().as_bytes()), Some(Err(Invalid::Expired)));
        let revoked = own.issue_recorded(grant, Timestamp(i64::MAX), Uuid::now_v7()).unwrap();
        assert_eq!(own.verify(revoked.expose_secret().as_bytes()), Some(Err(Invalid::Revoked)));
    }

    #[test]
    fn tokens_of_earlier_versions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let sealer = Arc::new(crate::seal::of_file(&folder.path().join("key")));
        let tokens = WorkerTokens::new(Arc::clone(&sealer), Arc::default());
        let grant = r#"{"namespace":"team","agent":"coder","worker":null,"instance":null,"slots":2,"capabilities":["gpu"]}"#;
        for (rest, expected) in [("", Err(Invalid::Unrecorded)), (r#","own":true"#, Ok(()))] {
            let content = format!(r#"{{"grant":{grant},"expires":{}{rest}}}"#, i64::MAX);
            let sealed = sealer.seal_worker_token(content.as_bytes()).unwrap();
            let token = format!("{PREFIX}{}", hex::encode(sealed));
            assert_eq!(tokens.verify(token.as_bytes()).unwrap().map(drop), expected);
        }
    }
}
