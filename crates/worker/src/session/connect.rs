//! Opens a session: one call, Hello out, Welcome back. Knows nothing of attempts.

use std::path::PathBuf;
use std::time::Duration;

use futures::stream::{PollNext, select_with_strategy};
use rota_client::{RenewableChannel, reason};
use rota_proto::reasons;
use rota_proto::worker::v1::worker_service_client::WorkerServiceClient;
use rota_proto::worker::v1::{
    Hello, SessionRequest, SessionResponse, Welcome, session_request, session_response,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status, Streaming};

/// Limit for the response headers, and again for the Welcome.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Messages buffered for the network. Few: messages that wait outside are batched into larger ones.
const SEND_BUFFER: usize = 32;
/// Maximum size of a received message.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 << 20;

pub(super) struct Connection {
    pub(super) out: mpsc::Sender<SessionRequest>,
    /// Sent before anything in `out`.
    pub(super) heartbeats: mpsc::Sender<SessionRequest>,
    pub(super) inbound: Streaming<SessionResponse>,
    pub(super) welcome: Welcome,
}

/// Reason why no session was opened.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// Rejected by the control plane, or by a proxy in between.
    Refused(Refusal),
    /// The control plane does not support the worker's version of the protocol.
    OtherVersion(Refusal),
    /// Another process holds this worker's name; reconnecting would take it away again.
    Replaced,
    /// The token of the session, which is the current one of the token file, was revoked.
    Revoked,
    Unreachable(String),
}

/// Rejection of a session by the control plane, or by a proxy in between.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
    /// Whether the control plane itself rejects the worker, and trying again is useless without another configuration.
    pub(super) permanent: bool,
}

/// Reason by which control planes of version 1 refuse others.
const PROTOCOL_VERSION_OF_1: &str = "PROTOCOL_VERSION";

impl From<Status> for ConnectError {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            _ if is_replaced(&status) => Self::Replaced,
            _ if reason(&status).as_deref() == Some(reasons::TOKEN_REVOKED) => Self::Revoked,
            code @ (Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::Unauthenticated
            | Code::PermissionDenied) => {
                // The component that started the worker announces it soon.
                let reason = reason(&status);
                let permanent = reason.as_ref().is_some_and(|reason| reason != reasons::WORKER_NOT_ANNOUNCED);
                let refusal = Refusal { code, message, permanent };
                let other = [reasons::PROTOCOL_VERSION_UNSUPPORTED, PROTOCOL_VERSION_OF_1];
                if reason.is_some_and(|reason| other.contains(&&*reason)) {
                    return Self::OtherVersion(refusal);
                }
                Self::Refused(refusal)
            }
            code => Self::Unreachable(format!("{message} ({code:?})")),
        }
    }
}

/// Whether the session was closed because another process has taken this worker's name.
pub(super) fn is_replaced(status: &Status) -> bool {
    reason(status).as_deref() == Some(reasons::WORKER_REPLACED)
}

/// Source of the bearer token; the file is read for every session, since such tokens are rotated.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) token: Option<SecretString>,
    pub(super) file: Option<PathBuf>,
}

impl Credentials {
    pub(super) async fn header(&self) -> Result<Option<MetadataValue<Ascii>>, ConnectError> {
        let from_file;
        let token = match (&self.file, &self.token) {
            (Some(path), _) => {
                let unreadable =
                    |error| ConnectError::Unreachable(format!("failed to read {}: {error}", path.display()));
                from_file = SecretString::from(tokio::fs::read_to_string(path).await.map_err(unreadable)?);
                &from_file
            }
            (None, Some(token)) => token,
            (None, None) => return Ok(None),
        };
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {}", token.expose_secret().trim()).parse().map_err(|_| {
                ConnectError::Refused(Refusal {
                    code: Code::Unauthenticated,
                    message: "the token has characters that are not allowed in a header".to_owned(),
                    permanent: true,
                })
            })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Opens a session, with a limit for each step.
pub(super) async fn connect(
    channel: &RenewableChannel,
    credentials: Credentials,
    hello: Hello,
) -> Result<Connection, ConnectError> {
    let (out, queue) = mpsc::channel(SEND_BUFFER);
    let (heartbeats, beats) = mpsc::channel(1);
    // Queued before the call: the server may wait for it before it sends headers.
    let first = SessionRequest { kind: Some(session_request::Kind::Hello(Box::new(hello))) };
    out.try_send(first).map_err(|_| ConnectError::Unreachable("send queue closed".to_owned()))?;
    let stream =
        select_with_strategy(ReceiverStream::new(beats), ReceiverStream::new(queue), |(): &mut ()| {
            PollNext::Left
        });
    let mut request = Request::new(stream);
    if let Some(header) = credentials.header().await? {
        request.metadata_mut().insert("authorization", header);
    }
    let mut client = WorkerServiceClient::new(channel.get()).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let late = |_| {
        channel.renew();
        ConnectError::Unreachable("timed out waiting for the control plane".to_owned())
    };
    let mut inbound = timeout(HANDSHAKE_TIMEOUT, client.session(request)).await.map_err(late)??.into_inner();
    let answer = timeout(HANDSHAKE_TIMEOUT, inbound.message()).await.map_err(late)??;
    match answer.and_then(|answer| answer.kind) {
        Some(session_response::Kind::Welcome(welcome)) => {
            Ok(Connection { out, heartbeats, inbound, welcome: *welcome })
        }
        Some(_) => Err(ConnectError::Unreachable("the first message is not a Welcome".to_owned())),
        None => Err(ConnectError::Unreachable("the call ended before a Welcome".to_owned())),
    }
}
