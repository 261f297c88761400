//! Errors as callers see them: a gRPC code, a sentence, and details (`google.rpc`) with a stable reason.
//! `docs/errors.md` has a paragraph for each reason.

use std::collections::HashMap;

use rota_core::task::Rejected;
use rota_store::{Error, Refused};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

const DOMAIN: &str = "rota.dev";
/// Longest sentence; what is longer does not fit into headers.
const MAX_MESSAGE: usize = 2000;

/// Every reason, its code and what it means: the table of `docs/errors.md`.
pub const REASONS: &[(&str, Code, &str)] = &[
    ("INVALID_FIELD", Code::InvalidArgument, "A field of the request cannot be used; the details name it."),
    ("TASK_NOT_FOUND", Code::NotFound, "There is no such task."),
    ("AGENT_NOT_FOUND", Code::NotFound, "There is no such agent."),
    ("AGENT_EXISTS", Code::AlreadyExists, "There is an agent of that name already."),
    ("WORKER_NOT_FOUND", Code::NotFound, "There is no such worker."),
    ("TASK_ENDED", Code::FailedPrecondition, "The task has ended; a terminal state is final."),
    ("TASK_NOT_ENDED", Code::FailedPrecondition, "The task has not ended yet."),
    ("TASK_CANCELLING", Code::FailedPrecondition, "The task's end has been asked for; there is no way back."),
    ("TASK_STATE", Code::FailedPrecondition, "Not possible in the state that the task is in."),
    ("NO_SUCH_QUESTION", Code::FailedPrecondition, "No question of that id waits for an answer."),
    ("LIMIT_REACHED", Code::ResourceExhausted, "A bound of the system was reached."),
    (
        "KEY_REUSED",
        Code::AlreadyExists,
        "The idempotency key or id belongs to a task that differs; the details say in which fields.",
    ),
    ("KEY_OUTLIVED", Code::FailedPrecondition, "The idempotency key belongs to a task whose record is gone."),
    (
        "STRICT_MISSING",
        Code::FailedPrecondition,
        "A strict task names an agent or a dependency that does not exist.",
    ),
    ("WORKER_SUPERSEDED", Code::Aborted, "The worker has a newer session."),
    ("WORKER_REPLACED", Code::FailedPrecondition, "Another process has joined under this worker's name."),
    (
        "PROTOCOL_VERSION",
        Code::FailedPrecondition,
        "The worker speaks a version of the protocol that this server does not.",
    ),
    ("PROTOCOL", Code::InvalidArgument, "A worker broke the session's protocol."),
    ("TOKEN_REQUIRED", Code::Unauthenticated, "The call shows no token, and one is required."),
    ("TOKEN_INVALID", Code::Unauthenticated, "The token is not accepted; the message says why."),
    (
        "KEYS_UNAVAILABLE",
        Code::Unavailable,
        "The token cannot be checked now, because its issuer's keys cannot be fetched; call again.",
    ),
    ("ROLE_FORBIDDEN", Code::PermissionDenied, "The caller is known, and may not make this call."),
    (
        "WORKER_NAME_MISMATCH",
        Code::PermissionDenied,
        "A worker calls itself by another name than its token's pod has.",
    ),
    (
        "WORKER_NOT_ANNOUNCED",
        Code::PermissionDenied,
        "Nobody has announced this worker for its agent yet; workers try again by themselves.",
    ),
    (
        "STORE_UNAVAILABLE",
        Code::Unavailable,
        "The store cannot do its work now, for example because the disk is full.",
    ),
    ("STORE_CORRUPT", Code::DataLoss, "The store holds something that cannot be read."),
    (
        "LOG_NOT_OURS",
        Code::FailedPrecondition,
        "The control plane is a part of a program that sees to the log by itself.",
    ),
    ("STOPPING", Code::Unavailable, "The server is stopping; call again."),
];

/// An error with a reason of [`REASONS`].
pub(crate) fn error(reason: &'static str, message: impl Into<String>) -> Status {
    with(reason, message, ErrorDetails::new())
}

/// The same, with what can be done.
pub(crate) fn hinted(reason: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Status {
    let mut details = ErrorDetails::new();
    details.add_help_link(hint, "");
    with(reason, message, details)
}

fn with(reason: &'static str, message: impl Into<String>, mut details: ErrorDetails) -> Status {
    let code =
        REASONS.iter().find(|(known, ..)| *known == reason).map_or(Code::Internal, |(_, code, _)| *code);
    details.set_error_info(reason, DOMAIN, HashMap::new());
    let mut message: String = message.into();
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
    }
    Status::with_error_details(code, message, details)
}

/// A field that cannot be used.
pub(crate) fn invalid(field: impl Into<String>, why: impl Into<String>) -> Status {
    let (field, why) = (field.into(), why.into());
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation(field.clone(), why.clone());
    with("INVALID_FIELD", format!("{field}: {why}"), details)
}

/// A key or id that belongs to a task that differs in these fields.
pub(crate) fn reused(task: impl std::fmt::Display, fields: &[String]) -> Status {
    let mut details = ErrorDetails::new();
    for field in fields {
        details.add_bad_request_violation(field.clone(), "differs");
    }
    let message =
        format!("the task {task} exists under this key or id and differs in: {}", fields.join(", "));
    with("KEY_REUSED", message, details)
}

/// What the store refused.
pub(crate) fn refused(refused: Refused) -> Status {
    let reason = match &refused {
        Refused::NoTask(_) => "TASK_NOT_FOUND",
        Refused::NoAgent(_) => "AGENT_NOT_FOUND",
        Refused::AgentExists(_) => "AGENT_EXISTS",
        Refused::Rejected(rejected) => match rejected {
            Rejected::Final(_) => "TASK_ENDED",
            Rejected::State(_) => "TASK_STATE",
            Rejected::Cancelling => "TASK_CANCELLING",
            Rejected::NoSuchQuestion(_) => "NO_SUCH_QUESTION",
            Rejected::TooMany(_) => "LIMIT_REACHED",
            Rejected::UnknownFence(_) | Rejected::Gap { .. } => "PROTOCOL",
        },
        Refused::Strict { what, index, .. } => {
            let mut details = ErrorDetails::new();
            let field = match *what {
                "agent" => "task.spec.target.agent".to_owned(),
                _ => format!("task.spec.depends_on[{index}].task"),
            };
            details.add_bad_request_violation(field, refused.to_string());
            return with("STRICT_MISSING", refused.to_string(), details);
        }
        Refused::KeyOutlived(_) => "KEY_OUTLIVED",
        Refused::Superseded => "WORKER_SUPERSEDED",
        Refused::Replaced => "WORKER_REPLACED",
    };
    error(reason, refused.to_string())
}

/// What went wrong in the store itself.
pub(crate) fn store(failed: Error) -> Status {
    match failed {
        Error::Unavailable { hint, .. } => hinted("STORE_UNAVAILABLE", failed.to_string(), hint),
        Error::Corrupt(_) => error("STORE_CORRUPT", failed.to_string()),
        Error::Closed => error("STOPPING", "the server is stopping"),
    }
}
