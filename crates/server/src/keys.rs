//! Keys of what belongs to a namespace: agents and workers. They sort by namespace first.

use rota_core::{AgentName, Namespace, WorkerName};

pub(crate) type AgentKey = (Namespace, AgentName);

pub(crate) type WorkerKey = (Namespace, WorkerName);
