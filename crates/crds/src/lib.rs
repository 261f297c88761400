//! Manifests of `rota.dev/v1alpha1`: the YAML of `rota apply -f` and `kubectl apply -f`, and the custom resources that a
//! cluster stores.
//!
//! Owns their types, their validation, parsing with error positions, and the conversion to API messages. Must not know
//! controllers, clusters, files or connections.
//!
//! # Main types
//!
//! - [`Agent`] and [`Task`]: manifests. Their specs ([`AgentSpec`], [`TaskSpec`]) are shared with the custom resources.
//! - [`Workflow`] and [`WorkflowTemplate`]: graphs of steps, which have the fields of the API.
//! - [`Schedule`]: a task or a workflow, and the times at which it runs.
//! - [`resource::Agent`], [`resource::Task`], [`resource::Workflow`], [`resource::WorkflowTemplate`] and [`resource::Schedule`]:
//!   custom resources, with Kubernetes metadata and a status.
//! - [`resource::definitions`]: CustomResourceDefinitions with schema, CEL rules and printer columns.
//! - [`Object`] and [`Document`]: a manifest of any kind, with its position in the text.
//! - [`Violation`]: one validation error, with the path of its field.
//! - [`HumanDuration`], [`Usd`], [`Priority`], [`Time`], [`Json`]: scalars with their own notation.
//!
//! # Data flow
//!
//! Text → [`parse()`] → [`Object`] → `validate` → `to_request` → API message. A custom resource takes the same path: it is
//! converted to a manifest first, so that there is one validation and one conversion for `kubectl` and `rota apply`.
//!
//! # Extending
//!
//! For a new field: add it to the spec (`agent.rs`, `task.rs`, `runtime.rs` or `pod.rs`) with a doc comment, which becomes
//! the text of `kubectl explain`; check it in `validate/`; convert it in `convert/`; list it in `resource/rules.rs` as
//! mutable or immutable; regenerate the definitions with `cargo run -p xtask -- crds`. Tests enforce the schema conventions
//! (`tests/schema.rs`) and that each CEL rule has a manifest that satisfies it and one that violates it (`tests/cel/`).
//! For an enum use `string_enum!` in `enums.rs`. Read `task.rs` first, then `validate/task.rs` and `convert/task.rs`.

#[expect(clippy::duplicated_attributes, reason = "printer columns of the same type are not duplicates")]
mod agent;
mod claude;
mod convert;
mod enums;
mod meta;
mod network;
mod object;
mod parse;
mod pod;
pub mod resource;
mod runtime;
mod scalar;
#[expect(clippy::duplicated_attributes, reason = "printer columns of the same type are not duplicates")]
mod schedule;
mod schema;
mod status;
#[expect(clippy::duplicated_attributes, reason = "printer columns of the same type are not duplicates")]
mod task;
mod validate;
#[expect(clippy::duplicated_attributes, reason = "printer columns of the same type are not duplicates")]
mod workflow;

pub use agent::{Agent, AgentSecret, AgentSpec, Budget, SetupCache};
pub use claude::{ClaudeRuntime, Effort, SettingSource};
pub use enums::{
    DesiredState, FailureClass, ForgeProvider, Isolation, Management, OnDependencyFailure, OnDisconnect,
    Overrides, PermissionMode, PermissionPolicy, ScheduleCatchUp, ScheduleConcurrency, WhenExhausted,
    WorkflowFiles, WorkspaceCleanup, WorkspaceMode,
};
pub use meta::{Ignored, ObjectMeta};
pub use network::{Egress, PodNetwork};
pub use object::{Document, Object};
pub use parse::{Error, Position, parse};
pub use pod::{ImagePullPolicy, PodOverrides, PodTemplate, SecretReference};
pub use rota_settings::HumanDuration;
pub use runtime::{
    CommandRuntime, DoneWhen, ExternalRuntime, GitSource, Limits, PullRequest, Push, RetryPolicy, Runtime,
    ScriptFailure, ScriptFile, ScriptStep, ScriptUsage, ScriptedRuntime, Workspace, WorkspaceCommand,
};
pub use scalar::{Json, MAX_USD, Priority, Time, Usd};
pub use schedule::{Schedule, ScheduleHistory, ScheduleSpec};
pub use task::{Dependency, Task, TaskSpec};
pub use validate::{RESERVED_PREFIX, Violation, pod_template};
pub use workflow::{Concurrency, Workflow, WorkflowSpec, WorkflowTemplate, WorkflowTemplateSpec};

/// The `apiVersion` of every manifest.
pub const API_VERSION: &str = "rota.dev/v1alpha1";
