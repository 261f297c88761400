//! Rota's API as Rust types, generated from the files in `proto/`. For every component and for clients of the API; holds
//! no behavior beyond what all of them need alike.
//!
//! # What is here
//!
//! - [`v1`]: messages and gRPC services for users: tasks, agents, events, administration.
//! - [`worker::v1`]: the session between control plane and workers.
//! - [`names`]: resource names such as `namespaces/default/tasks/build`.
//! - [`artifact_names`]: folders of artifacts.
//! - [`continuation()`]: what a task that continues another one takes over from it.
//! - [`claude`]: what agents and tasks may set of the Claude Code CLI.
//! - [`causes`]: stable codes of the causes that ExplainTask and the system status report.
//! - [`reasons`]: reasons of errors by which workers decide.
//! - [`result_schema`]: failures of results that do not fit the schema of their task.
//! - [`credential`]: which model credential an environment holds, and its id.
//! - [`framing`]: the prefix of each message in a body of gRPC.
//! - [`labels`]: labels that have a meaning for the control plane.
//! - [`limits`]: limits of control planes within which workers stay.
//! - [`times`]: times of control planes by which workers choose their own.
//! - [`visit_strings`]: visitors over the strings of events and results, for redaction and bounds.
//! - [`DESCRIPTORS`]: the descriptor set with comments, for gRPC reflection and the generated reference.
//!
//! The comments of messages and fields are those of the `.proto` files, which are the reference of the API
//! (`docs/reference/api.md`). Every message implements serde's traits with the canonical JSON mapping of protobuf, which
//! is what `rota -o json` prints. Maps are ordered, so that equal messages have equal encodings.
//!
//! # How to change the API
//!
//! Edit the `.proto` file; `build.rs` compiles it with `protox`, without a `protoc` on the machine. A new file is added to
//! `FILES` there. A new string in an event or a result that a worker may fill belongs into [`visit_strings`], or secrets
//! reach the log through it.
//!
//! Read `proto/rota/v1/task.proto` first, then `event.proto`.

// Generated code is documented in the protos and follows its generator's style.
#![allow(missing_docs, clippy::all, clippy::uninlined_format_args, unreachable_pub)]

pub mod artifact_names;
mod bounds;
mod boxed;
pub mod causes;
pub mod claude;
mod codec;
mod continuation;
pub mod credential;
pub mod expressions;
pub mod framing;
pub mod labels;
pub mod limits;
pub mod names;
pub mod notices;
pub mod num;
pub mod permission_rules;
pub mod reasons;
pub mod result_schema;
mod runtime;
mod state;
pub mod times;
pub mod visit_strings;

pub use self::continuation::{Continuation, continuation};

/// Content of any type, `google.api.HttpBody`: a part of the response of a call that is not JSON over HTTP.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpBody {
    #[prost(string, tag = "1")]
    pub content_type: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub data: bytes::Bytes,
}

/// Size of the parts of an artifact's content, in bytes: of all except the last.
pub const PART_BYTES: usize = 1 << 20;

/// Bytes of an encoded list of artifacts that a control plane keeps: it refuses longer ones.
pub const ARTIFACT_LIST_BYTES: usize = 512 << 10;

/// Bytes of the name of an artifact.
pub const ARTIFACT_NAME_BYTES: usize = 1024;

/// Messages and services for users: tasks, agents, events, administration.
pub mod v1 {
    tonic::include_proto!("rota.v1");
    include!(concat!(env!("OUT_DIR"), "/rota.v1.serde.rs"));
}

/// Sessions between the control plane and workers.
pub mod worker {
    /// Protocol version 1 of the session.
    pub mod v1 {
        tonic::include_proto!("rota.worker.v1");
        include!(concat!(env!("OUT_DIR"), "/rota.worker.v1.serde.rs"));
    }
}

/// Serialized `FileDescriptorSet` of all `.proto` files, with comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
/// Fields, by their paths with those of their `oneof`, whose messages are on the heap: others are in the message that has them.
pub const BOXED_FIELDS: &[&str] = boxed::FIELDS;
