//! Reasons of errors by which workers decide what to do. `docs/errors.md` lists all reasons.

/// Another process has registered under the worker's name: it ends.
pub const WORKER_REPLACED: &str = "WORKER_REPLACED";
/// The worker's token was revoked: it ends.
pub const TOKEN_REVOKED: &str = "TOKEN_REVOKED";
/// The component that started the worker has not announced it yet: the worker tries again.
pub const WORKER_NOT_ANNOUNCED: &str = "WORKER_NOT_ANNOUNCED";
/// The control plane speaks other versions of the protocol: the worker tries an earlier one.
pub const PROTOCOL_VERSION_UNSUPPORTED: &str = "PROTOCOL_VERSION_UNSUPPORTED";

/// Another agent may not continue the work of the task, in this attempt or another: it ends.
pub const OVERRIDE_FORBIDDEN: &str = "OVERRIDE_FORBIDDEN";
/// The task that is continued has left nothing: the task ends.
pub const NO_CHECKPOINT: &str = "NO_CHECKPOINT";
/// A part of a file is not stored: a task that needs it ends.
pub const ARTIFACT_NOT_STORED: &str = "ARTIFACT_NOT_STORED";

/// Metadata of `ARTIFACTS_FULL`: bytes of the upload for which there is no room. The worker reports them with the failure.
pub const UPLOAD_BYTES: &str = "uploadBytes";
