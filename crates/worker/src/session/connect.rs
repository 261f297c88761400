//! Opens a session: one call, Hello first, Welcome back. Knows nothing of attempts.

use std::path::PathBuf;
use std::time::Duration;

use futures::stream::{PollNext, select_with_strategy};
use rota_client::reason;
use rota_proto::worker::v1::worker_service_client::WorkerServiceClient;
use rota_proto::worker::v1::{
    Hello, SessionRequest, SessionResponse, Welcome, session_request, session_response,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt;

/// For each of: the call's headers, the Welcome.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Messages that may wait for the network. Few: what waits outside is gathered into larger ones.
const QUEUE: usize = 32;
/// An assignment brings the results of the tasks before it.
const MAX_MESSAGE: usize = 64 << 20;

/// An open session.
pub(super) struct Connection {
    pub(super) out: mpsc::Sender<SessionRequest>,
    /// Goes before everything in `out`.
    pub(super) heartbeats: mpsc::Sender<SessionRequest>,
    pub(super) inbound: Streaming<SessionResponse>,
    pub(super) welcome: Welcome,
}

/// Why there is no session.
#[derive(Debug)]
pub(super) enum Failed {
    /// Trying again is useless until somebody changes something.
    Refused { code: Code, message: String },
    /// It is not expected yet: whoever started it must say so first.
    NotAnnounced(String),
    /// Another process has this worker's name: coming back would take it from that one.
    Replaced,
    /// It may work later.
    Unreachable(String),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            _ if is_replaced(&status) => Self::Replaced,
            Code::PermissionDenied if reason(&status).as_deref() == Some("WORKER_NOT_ANNOUNCED") => {
                Self::NotAnnounced(message)
            }
            code @ (Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::Unauthenticated
            | Code::PermissionDenied) => Self::Refused { code, message },
            code => Self::Unreachable(format!("{message} ({code:?})")),
        }
    }
}

/// Whether another process has taken this worker's name.
pub(super) fn is_replaced(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == "WORKER_REPLACED")
}

/// Where a token comes from.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) token: Option<SecretString>,
    pub(super) file: Option<PathBuf>,
}

impl Credentials {
    async fn header(&self) -> Result<Option<MetadataValue<Ascii>>, Failed> {
        let from_file;
        let token = match (&self.file, &self.token) {
            (Some(path), _) => {
                let unreadable =
                    |error| Failed::Unreachable(format!("{} cannot be read: {error}", path.display()));
                from_file = SecretString::from(tokio::fs::read_to_string(path).await.map_err(unreadable)?);
                &from_file
            }
            (None, Some(token)) => token,
            (None, None) => return Ok(None),
        };
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {}", token.expose_secret().trim()).parse().map_err(|_| Failed::Refused {
                code: Code::Unauthenticated,
                message: "the token has characters that no token has".to_owned(),
            })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Opens a session.
pub(super) async fn connect(
    channel: Channel,
    credentials: Credentials,
    hello: Hello,
) -> Result<Connection, Failed> {
    let (out, queue) = mpsc::channel(QUEUE);
    let (heartbeats, beats) = mpsc::channel(1);
    // In the stream before the call is made: the server may wait for it before it answers with headers.
    let first = SessionRequest { kind: Some(session_request::Kind::Hello(hello)) };
    out.try_send(first).map_err(|_| Failed::Unreachable("the queue is closed".to_owned()))?;
    let stream =
        select_with_strategy(ReceiverStream::new(beats), ReceiverStream::new(queue), |(): &mut ()| {
            PollNext::Left
        });
    let mut request = Request::new(stream);
    if let Some(header) = credentials.header().await? {
        request.metadata_mut().insert("authorization", header);
    }
    let mut client = WorkerServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let late = |_| Failed::Unreachable("no answer in time".to_owned());
    let mut inbound = timeout(TIMEOUT, client.session(request)).await.map_err(late)??.into_inner();
    let answer = timeout(TIMEOUT, inbound.message()).await.map_err(late)??;
    match answer.and_then(|answer| answer.kind) {
        Some(session_response::Kind::Welcome(welcome)) => {
            Ok(Connection { out, heartbeats, inbound, welcome })
        }
        Some(_) => Err(Failed::Unreachable("the first answer is no Welcome".to_owned())),
        None => Err(Failed::Unreachable("the call ended without an answer".to_owned())),
    }
}
