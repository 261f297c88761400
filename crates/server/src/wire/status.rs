//! Errors of the API: a gRPC code, a message, and details (`google.rpc`) with a stable reason. `docs/errors.md` explains each
//! reason.

use std::collections::HashMap;

use rota_core::spending::Period;
use rota_core::task::Rejected;
use rota_core::workflow;
use rota_proto::reasons::{self, UPLOAD_BYTES};
use rota_store::{DocumentKind, Error, Refused};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

const DOMAIN: &str = "rota.dev";
/// Longest message; a longer one would not fit into headers.
const MAX_MESSAGE: usize = 2000;

/// Every reason with its code and meaning: the table of `docs/errors.md`.
pub const REASONS: &[(&str, Code, &str)] = &[
    ("INVALID_FIELD", Code::InvalidArgument, "A field of the request is invalid; the details name it."),
    ("TASK_NOT_FOUND", Code::NotFound, "The task does not exist."),
    ("WORKFLOW_NOT_FOUND", Code::NotFound, "The workflow does not exist."),
    ("WORKFLOW_ENDED", Code::FailedPrecondition, "The workflow has ended."),
    (
        "WORKFLOW_IS_STEP",
        Code::FailedPrecondition,
        "The workflow is a step of another one, with which it is removed.",
    ),
    ("WORKFLOW_NOT_ENDED", Code::FailedPrecondition, "The workflow has not ended yet."),
    (
        "WORKFLOW_STATE_CONFLICT",
        Code::FailedPrecondition,
        "The call is not possible in the present state of the step.",
    ),
    ("AGENT_NOT_FOUND", Code::NotFound, "The agent does not exist."),
    ("AGENT_EXISTS", Code::AlreadyExists, "An agent of that name already exists."),
    ("SCHEDULE_NOT_FOUND", Code::NotFound, "The schedule does not exist."),
    ("SCHEDULE_EXISTS", Code::AlreadyExists, "A schedule of that name already exists."),
    ("TEMPLATE_NOT_FOUND", Code::NotFound, "The template, or its version, does not exist."),
    ("TEMPLATE_EXISTS", Code::AlreadyExists, "A template of that name already exists."),
    ("TASK_KIND_NOT_FOUND", Code::NotFound, "The namespace has no kind of tasks of that name of its own."),
    (
        "SCHEDULE_ACTIVE",
        Code::FailedPrecondition,
        "A run of the schedule has not ended, and its concurrency policy lets none begin.",
    ),
    (
        "CONCURRENT_CHANGE",
        Code::Aborted,
        "The object has changed since the caller read it; read it again, then repeat the change.",
    ),
    (
        "ETAG_MISMATCH",
        Code::Aborted,
        "The record does not have the etag of the request; read it again, then repeat the change.",
    ),
    ("WORKER_NOT_FOUND", Code::NotFound, "The worker does not exist."),
    (
        "WORKER_TOKEN_NOT_FOUND",
        Code::NotFound,
        "No worker token has that id; it may have expired, or was revoked before.",
    ),
    ("COOL_DOWN_NOT_FOUND", Code::NotFound, "The credential does not cool down."),
    (
        "NO_NEXT_KEY",
        Code::FailedPrecondition,
        "The control plane has no key that secrets could be sealed under from now on.",
    ),
    ("TASK_ENDED", Code::FailedPrecondition, "The task has ended; a terminal state is final."),
    (
        "MORE_TASKS_MATCH",
        Code::FailedPrecondition,
        "More tasks match the filter than were counted before the change.",
    ),
    ("TASK_NOT_ENDED", Code::FailedPrecondition, "The task has not ended yet."),
    (
        reasons::NO_CHECKPOINT,
        Code::FailedPrecondition,
        "The task has left nothing from which another one could continue.",
    ),
    ("TASK_CANCELLING", Code::FailedPrecondition, "The task is being cancelled, which cannot be undone."),
    (
        "TASK_STATE_CONFLICT",
        Code::FailedPrecondition,
        "The call is not possible in the task's current state.",
    ),
    ("INPUT_REQUEST_NOT_FOUND", Code::FailedPrecondition, "No pending input request has that id."),
    ("LIMIT_REACHED", Code::ResourceExhausted, "A limit of the system was reached."),
    (
        "BUDGET_EXHAUSTED",
        Code::ResourceExhausted,
        "The budget of the agent or the namespace is spent, and refuses new tasks.",
    ),
    (
        "STORE_NEARLY_FULL",
        Code::Unavailable,
        "The volume of the store is nearly full: nothing new is accepted, or no tasks of low priority.",
    ),
    (
        "TOO_MANY_TASKS",
        Code::Unavailable,
        "So many tasks wait that no new ones are accepted, none of low priority, or only those of high priority.",
    ),
    (
        "MEMORY_NEARLY_FULL",
        Code::Unavailable,
        "The memory of the control plane is nearly used up: no new tasks are accepted, none of low priority, or only those of high priority.",
    ),
    (
        "IDEMPOTENCY_KEY_CONFLICT",
        Code::AlreadyExists,
        "The idempotency key or id belongs to a different task; the details name the fields that differ.",
    ),
    (
        "IDEMPOTENCY_KEY_EXPIRED",
        Code::FailedPrecondition,
        "The idempotency key belongs to a task whose record was removed.",
    ),
    (
        "REFERENCE_NOT_FOUND",
        Code::FailedPrecondition,
        "A strict task refers to an agent or a dependency that does not exist.",
    ),
    (
        reasons::OVERRIDE_FORBIDDEN,
        Code::FailedPrecondition,
        "The task sets a field that its agent does not let tasks set.",
    ),
    (
        "MANAGED_BY_CLUSTER",
        Code::FailedPrecondition,
        "A resource of a Kubernetes cluster determines the object; change the resource.",
    ),
    (
        "MANAGED_BY_API",
        Code::FailedPrecondition,
        "The object was created over the API; no resource of a cluster takes it over.",
    ),
    (
        "ARTIFACTS_FULL",
        Code::ResourceExhausted,
        "The artifacts of the namespace have reached their quota, or the volume is nearly full.",
    ),
    ("ARTIFACT_NOT_FOUND", Code::NotFound, "The attempt of the task has no artifact of that name."),
    ("ARTIFACTS_UNAVAILABLE", Code::Unavailable, "The storage of artifacts is unavailable."),
    (
        reasons::ARTIFACT_NOT_STORED,
        Code::FailedPrecondition,
        "A part of an artifact is not stored: it was not uploaded, or too long ago.",
    ),
    ("CALLER_STALLED", Code::DeadlineExceeded, "The caller has not read the response for too long."),
    ("WORKER_SUPERSEDED", Code::Aborted, "The worker has a newer session."),
    (
        reasons::WORKER_REPLACED,
        Code::FailedPrecondition,
        "Another process has registered under this worker's name.",
    ),
    (
        reasons::PROTOCOL_VERSION_UNSUPPORTED,
        Code::FailedPrecondition,
        "The server does not support the worker's protocol version.",
    ),
    ("PROTOCOL_VIOLATION", Code::InvalidArgument, "A worker violated the session protocol."),
    ("MESSAGE_TOO_LARGE", Code::ResourceExhausted, "A message has more bytes or elements than are accepted."),
    ("TOKEN_REQUIRED", Code::Unauthenticated, "The call requires a token and carries none."),
    ("TOKEN_INVALID", Code::Unauthenticated, "The token was rejected; the message gives the reason."),
    (
        reasons::TOKEN_REVOKED,
        Code::Unauthenticated,
        "The worker's token was revoked, or is unknown to the store; the worker ends.",
    ),
    (
        "SIGN_IN_CODE_INVALID",
        Code::Unauthenticated,
        "The code of a sign-in link was used before, or has expired; print another link with `rota ui`.",
    ),
    (
        "SESSION_ENDED",
        Code::Unauthenticated,
        "The browser's session was ended, has expired, or its token was replaced; sign in again.",
    ),
    (
        "SESSION_NOT_FOUND",
        Code::NotFound,
        "No browser session has that id, or the call was made without one.",
    ),
    (
        "CROSS_SITE_REFUSED",
        Code::PermissionDenied,
        "A call with the cookie of a browser session does not come from the control plane's own pages.",
    ),
    (
        "ISSUER_KEYS_UNAVAILABLE",
        Code::Unavailable,
        "The token cannot be verified because the keys of its issuer cannot be fetched; retry the call.",
    ),
    (
        "ROLE_FORBIDDEN",
        Code::PermissionDenied,
        "The caller is authenticated but lacks the role that the call requires.",
    ),
    (
        "NAMESPACE_FORBIDDEN",
        Code::PermissionDenied,
        "The person may make the call in some namespaces only, and the request is for another one, for all, or for none.",
    ),
    (
        "PERSON_NOT_ALLOWED",
        Code::PermissionDenied,
        "The issuer knows the person, but the list of people who may sign in does not.",
    ),
    (
        "HOST_REFUSED",
        Code::PermissionDenied,
        "No token is required, and the call is for a name that is not this machine's, or comes from a web page elsewhere.",
    ),
    (
        "WORKER_NAME_MISMATCH",
        Code::PermissionDenied,
        "The worker's name or agent differs from what its token was issued for, or a worker of another agent that still exists has had the name within a day: choose another, or create a token with `--worker`.",
    ),
    (
        reasons::WORKER_NOT_ANNOUNCED,
        Code::PermissionDenied,
        "The worker has not been announced for its agent yet; workers retry by themselves.",
    ),
    (
        "WORKER_CONNECTED",
        Code::Unavailable,
        "Another process with the worker's name is connected, or may come back to its attempts; workers retry by themselves.",
    ),
    (
        "STORE_UNAVAILABLE",
        Code::Unavailable,
        "The store is unavailable, for example because the disk is full.",
    ),
    ("STORE_CORRUPT", Code::DataLoss, "The store holds data that cannot be read."),
    (
        "LOG_FILTER_UNAVAILABLE",
        Code::FailedPrecondition,
        "The control plane is embedded in a program that manages its own logging.",
    ),
    ("STOPPING", Code::Unavailable, "The server is stopping; retry the call."),
];

/// Returns an error with a reason of [`REASONS`].
pub(crate) fn error(reason: &'static str, message: impl Into<String>) -> Status {
    with(reason, message, ErrorDetails::new())
}

/// Returns an error with a hint for the user.
pub(crate) fn hinted(reason: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Status {
    let mut details = ErrorDetails::new();
    details.add_help_link(hint, "");
    with(reason, message, details)
}

/// Returns the hint of an error for users; empty if it has none.
pub(crate) fn hint_of(status: &Status) -> String {
    let details = status.get_error_details();
    let hint = details.help().and_then(|help| help.links.first()).map(|link| link.description.clone());
    hint.unwrap_or_default()
}

/// Returns the error of an upload of so many bytes for which there is no room.
pub(crate) fn no_room(message: String, hint: &'static str, bytes: u64) -> Status {
    let reason = "ARTIFACTS_FULL";
    let upload = HashMap::from([(UPLOAD_BYTES.to_owned(), bytes.to_string())]);
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, upload);
    details.add_help_link(hint, "");
    with(reason, message, details)
}

fn with(reason: &'static str, message: impl Into<String>, mut details: ErrorDetails) -> Status {
    let code =
        REASONS.iter().find(|(known, ..)| *known == reason).map_or(Code::Internal, |(_, code, _)| *code);
    if details.error_info().is_none() {
        details.set_error_info(reason, DOMAIN, HashMap::new());
    }
    let mut message: String = message.into();
    message.truncate(rota_core::text::prefix(&message, MAX_MESSAGE).len());
    Status::with_error_details(code, message, details)
}

/// Returns an error about an invalid field.
pub(crate) fn invalid(field: impl Into<String>, why: impl Into<String>) -> Status {
    let (field, why) = (field.into(), why.into());
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation(field.clone(), why.clone());
    with("INVALID_FIELD", format!("{field}: {why}"), details)
}

/// Returns an error about a key or id that belongs to a task that differs in these fields.
pub(crate) fn reused(task: impl std::fmt::Display, fields: &[String]) -> Status {
    let mut details = ErrorDetails::new();
    for field in fields {
        details.add_bad_request_violation(field.clone(), "differs");
    }
    details.add_help_link(
        "a task keeps its specification: use another name or key, or `generateName` in a manifest",
        "",
    );
    let message = format!("task {task} exists under this key or id and differs in: {}", fields.join(", "));
    with("IDEMPOTENCY_KEY_CONFLICT", message, details)
}

/// Returns the refusal of a change by a caller who has read an older record.
pub(crate) fn etag_mismatch(message: String) -> Status {
    hinted("ETAG_MISMATCH", message, "read it, then repeat the change")
}

/// Converts a refusal of the store.
pub(crate) fn refused(refused: Refused) -> Status {
    let reason = match &refused {
        Refused::NoTask(_) => "TASK_NOT_FOUND",
        Refused::NoAgent(_) => "AGENT_NOT_FOUND",
        Refused::AgentExists(_) => "AGENT_EXISTS",
        Refused::Rejected(rejected) => match rejected {
            Rejected::Final(_) => "TASK_ENDED",
            Rejected::State(_) => "TASK_STATE_CONFLICT",
            Rejected::Cancelling => "TASK_CANCELLING",
            Rejected::Changed => return etag_mismatch(refused.to_string()),
            Rejected::NoSuchQuestion(_) => "INPUT_REQUEST_NOT_FOUND",
            Rejected::TooMany(_) => "LIMIT_REACHED",
            Rejected::UnknownFence(_) | Rejected::Gap { .. } => "PROTOCOL_VIOLATION",
        },
        Refused::Strict { what, index, .. } => {
            let mut details = ErrorDetails::new();
            let field = match *what {
                "agent" => "task.spec.target.agent".to_owned(),
                _ => format!("task.spec.depends_on[{index}].task"),
            };
            details.add_bad_request_violation(field, refused.to_string());
            return with("REFERENCE_NOT_FOUND", refused.to_string(), details);
        }
        Refused::BudgetSpent(wait) => {
            let next = if wait.period == Period::Day { "day" } else { "month" };
            let hint = format!("wait until the next {next} of UTC begins, or raise the budget");
            return hinted("BUDGET_EXHAUSTED", refused.to_string(), hint);
        }
        Refused::NoDocument(key) => match key.kind {
            DocumentKind::Schedule | DocumentKind::ScheduleStatus => "SCHEDULE_NOT_FOUND",
            DocumentKind::Template | DocumentKind::TemplateVersion => "TEMPLATE_NOT_FOUND",
            DocumentKind::SecretKey
            | DocumentKind::NotificationPosition
            | DocumentKind::Runs
            | DocumentKind::MetricsHistory => "CONCURRENT_CHANGE",
            DocumentKind::TaskKind => "TASK_KIND_NOT_FOUND",
            DocumentKind::WorkerToken => "WORKER_TOKEN_NOT_FOUND",
            DocumentKind::BrowserSession => "SESSION_NOT_FOUND",
        },
        Refused::DocumentExists(key) => match key.kind {
            DocumentKind::Schedule | DocumentKind::ScheduleStatus => "SCHEDULE_EXISTS",
            DocumentKind::Template | DocumentKind::TemplateVersion => "TEMPLATE_EXISTS",
            DocumentKind::SecretKey
            | DocumentKind::NotificationPosition
            | DocumentKind::Runs
            | DocumentKind::MetricsHistory => "CONCURRENT_CHANGE",
            // A kind is replaced, whatever is there; a token and a session have an id of their own.
            DocumentKind::TaskKind | DocumentKind::WorkerToken | DocumentKind::BrowserSession => {
                "CONCURRENT_CHANGE"
            }
        },
        Refused::DocumentChanged(_) => "CONCURRENT_CHANGE",
        Refused::BudgetChanged => return etag_mismatch(refused.to_string()),
        Refused::Corrupt { .. } => "STORE_CORRUPT",
        Refused::KeyOutlived(_) => "IDEMPOTENCY_KEY_EXPIRED",
        Refused::NoWorkflow(_) => "WORKFLOW_NOT_FOUND",
        Refused::Workflow(rejected) => match rejected {
            workflow::Rejected::Final(_) => "WORKFLOW_ENDED",
            workflow::Rejected::Unended => "WORKFLOW_NOT_ENDED",
            _ => "WORKFLOW_STATE_CONFLICT",
        },
        Refused::Superseded => "WORKER_SUPERSEDED",
        Refused::Replaced => reasons::WORKER_REPLACED,
        Refused::NameTaken(_) => {
            let hint = "choose another name for the worker, or create its token with --worker and this name";
            return hinted("WORKER_NAME_MISMATCH", refused.to_string(), hint);
        }
    };
    error(reason, refused.to_string())
}

/// Converts a failure of the store.
pub(crate) fn store(failed: Error) -> Status {
    match failed {
        Error::Unavailable { hint, .. } => hinted("STORE_UNAVAILABLE", failed.to_string(), hint),
        Error::LostSync(_) | Error::Deposed | Error::LeaseLost => {
            let (message, hint) = crate::write_health::problem(&failed);
            hinted("STORE_UNAVAILABLE", message, hint)
        }
        Error::Corrupt(_) => error("STORE_CORRUPT", failed.to_string()),
        Error::Closed => error("STOPPING", "the server is stopping"),
    }
}
