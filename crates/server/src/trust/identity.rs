//! Identity of a worker, as its token proves it. Knows nothing of what the worker claims about itself.

use std::fmt;

use rota_core::Timestamp;
use uuid::Uuid;

use super::oidc::Pod;
use super::worker_token::WorkerGrant;

/// Identity of a worker, and the end of its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) holder: Holder,
    pub(crate) expires: Timestamp,
    /// Id of the token's record, if the store has one.
    pub(crate) token: Option<Uuid>,
}

/// Subject of a worker's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A pod of the cluster whose issuer signed the token.
    Pod(Pod),
    /// A process with a token of this control plane.
    Grant(WorkerGrant),
}

impl Identity {
    /// Returns the namespace of the worker.
    pub(crate) fn namespace(&self) -> &str {
        match &self.holder {
            Holder::Pod(pod) => &pod.namespace,
            Holder::Grant(grant) => grant.namespace.as_str(),
        }
    }

    /// Returns whether the token names the worker, and not only its agent.
    pub(crate) fn names_worker(&self) -> bool {
        match &self.holder {
            Holder::Pod(_) => true,
            Holder::Grant(grant) => grant.worker.is_some(),
        }
    }

    /// Returns the UID of the worker's pod, if the token is of one.
    pub(crate) fn pod(&self) -> Option<&str> {
        match &self.holder {
            Holder::Pod(pod) => Some(&pod.uid),
            Holder::Grant(_) => None,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod) => write!(f, "the worker {}/{}", pod.namespace, pod.name),
            Self::Grant(grant) => write!(f, "a worker of agent {}/{}", grant.namespace, grant.agent),
        }
    }
}
