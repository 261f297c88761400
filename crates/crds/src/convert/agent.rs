//! Converts `Agent` manifests.

use rota_proto::{names, v1};

use super::duration;
use crate::{Agent, AgentSpec, Budget, SetupCache};

impl Agent {
    /// Converts the agent. `namespace` applies if the manifest has none.
    pub fn to_api(&self, namespace: &str) -> v1::Agent {
        let namespace = self.metadata.namespace.as_deref().unwrap_or(namespace);
        v1::Agent {
            name: names::agent(namespace, self.metadata.name.as_deref().unwrap_or_default()),
            spec: Some(self.spec.to_api()),
            labels: self.metadata.labels.clone(),
            ..Default::default()
        }
    }
}

impl Budget {
    pub fn to_api(&self) -> v1::Budget {
        v1::Budget {
            daily_micro_usd: self.daily_usd.map_or(0, |usd| usd.micro),
            monthly_micro_usd: self.monthly_usd.map_or(0, |usd| usd.micro),
            when_exhausted: self.when_exhausted.map_or(0, |value| value.to_api().into()),
        }
    }
}

impl AgentSpec {
    pub fn to_api(&self) -> v1::AgentSpec {
        v1::AgentSpec {
            // No part of manifests: people allow them.
            permission_rules: Vec::new(),
            runtime: Some(self.runtime.to_api()),
            capabilities: self.capabilities.clone(),
            description: self.description.clone().unwrap_or_default(),
            slots: self.slots.unwrap_or_default(),
            replicas: self.replicas,
            max_replicas: self.max_replicas,
            spare_workers: self.spare_workers.unwrap_or_default(),
            idle_timeout: duration(self.idle_timeout),
            reconnect_grace: duration(self.reconnect_grace),
            release_waiting_after: duration(self.release_waiting_after),
            environment: self.environment.clone(),
            default_limits: self.default_limits.as_ref().map(crate::Limits::to_api),
            budget: self.budget.as_ref().map(Budget::to_api),
            workspace: self.workspace.as_ref().map(crate::Workspace::to_api),
            setup: self.setup.iter().map(crate::WorkspaceCommand::to_api).collect(),
            setup_cache: self.setup_cache.as_ref().map(SetupCache::to_api),
            done_when: self.done_when.as_ref().map(crate::DoneWhen::to_api),
            on_disconnect: self.on_disconnect.map_or(0, |value| value.to_api().into()),
            management: self.management.map_or(0, |value| value.to_api().into()),
            overrides: self.overrides.map_or(0, |value| value.to_api().into()),
        }
    }
}

impl SetupCache {
    pub fn to_api(&self) -> v1::SetupCache {
        v1::SetupCache {
            key_files: self.key_files.clone(),
            commands: self.commands.iter().map(crate::WorkspaceCommand::to_api).collect(),
        }
    }
}
