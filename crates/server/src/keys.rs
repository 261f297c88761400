//! Keys of what belongs to a namespace: agents, workers and back ends of models. They sort by namespace first.

use std::sync::Arc;

use rota_core::{AgentName, Namespace, WorkerName};

pub(crate) type AgentKey = (Namespace, AgentName);

pub(crate) type WorkerKey = (Namespace, WorkerName);

/// A host or provider of a model API. Namespaces share nothing of what is known about it.
pub(crate) type BackendKey = (Namespace, Arc<str>);
