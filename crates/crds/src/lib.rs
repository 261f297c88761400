//! Manifests of `rota.dev/v1alpha1`: the YAML that `rota apply -f` and `kubectl apply -f` both take, and the
//! custom resources that a cluster keeps them as.
//!
//! Owns their types, the one validation for both ways in, reading them from YAML or JSON with
//! positions, and turning them into API messages. Must not know controllers, clusters, files or
//! connections.

#[expect(clippy::duplicated_attributes, reason = "columns of the same type are no repetition")]
mod agent;
mod convert;
mod meta;
mod object;
mod parse;
mod pod;
pub mod resource;
mod runtime;
mod scalar;
mod schema;
#[expect(clippy::duplicated_attributes, reason = "columns of the same type are no repetition")]
mod task;
mod validate;
mod words;

pub use agent::{Agent, AgentSecret, AgentSpec};
pub use meta::{ObjectMeta, Unread};
pub use object::{Document, Object};
pub use parse::{Error, Position, parse};
pub use pod::{ImagePullPolicy, PodOverrides, PodTemplate, SecretReference};
pub use runtime::{
    ClaudeRuntime, CommandRuntime, ExternalRuntime, GitSource, Limits, RetryPolicy, Runtime, ScriptFailure,
    ScriptStep, ScriptUsage, ScriptedRuntime, Workspace,
};
pub use scalar::{Json, MAX_USD, Priority, Span, Time, Usd};
pub use task::{Dependency, Task, TaskSpec};
pub use validate::Violation;
pub use words::{
    DesiredState, FailureClass, Isolation, Management, OnDependencyFailure, OnDisconnect, PermissionMode,
    PermissionPolicy, WorkspaceCleanup, WorkspaceMode,
};

/// The `apiVersion` of every manifest.
pub const API_VERSION: &str = "rota.dev/v1alpha1";
