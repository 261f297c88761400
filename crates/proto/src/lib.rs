//! The API as Rust types: generated from `proto/`, with the canonical JSON mapping, and the
//! descriptor set for reflection and docs. Holds no behaviour beyond names and conversions
//! that every user of the API needs.

// Generated code is documented in the protos and follows its generator's style.
#![allow(missing_docs, clippy::all, clippy::uninlined_format_args, unreachable_pub)]

pub mod names;
pub mod texts;

/// Tasks, agents, events.
pub mod v1 {
    tonic::include_proto!("rota.v1");
    include!(concat!(env!("OUT_DIR"), "/rota.v1.serde.rs"));
}

/// The worker session.
pub mod worker {
    /// Version 1 of the session.
    pub mod v1 {
        tonic::include_proto!("rota.worker.v1");
        include!(concat!(env!("OUT_DIR"), "/rota.worker.v1.serde.rs"));
    }
}

/// Serialized `FileDescriptorSet` of all protos, with comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
