//! The channel to the control plane and the generated service clients over it. Connects on the first call, and again
//! after each lost connection.

use std::sync::Arc;
use std::time::Duration;

use rota_proto::v1::admin_service_client::AdminServiceClient;
use rota_proto::v1::agent_service_client::AgentServiceClient;
use rota_proto::v1::artifact_service_client::ArtifactServiceClient;
use rota_proto::v1::schedule_service_client::ScheduleServiceClient;
use rota_proto::v1::task_kind_service_client::TaskKindServiceClient;
use rota_proto::v1::task_service_client::TaskServiceClient;
use rota_proto::v1::template_service_client::TemplateServiceClient;
use rota_proto::v1::workflow_service_client::WorkflowServiceClient;
use rota_proto::worker::v1::worker_service_client::WorkerServiceClient;
use rota_telemetry::root_cause;
use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::tls::{Authority, Connector};
use crate::trace::CallerTrace;
use crate::{Auth, Error, Options};

/// Channel of the generated clients, with the token on each call.
pub type Transport = InterceptedService<Channel, Auth>;

/// Size limit of messages in both directions. The largest ones carry the text and data of a result.
const MAX_MESSAGE_SIZE: usize = 16 * 1024 * 1024;

/// Client of the control plane. Cheap to clone; clones share one connection.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Transport,
    pub(crate) options: Arc<Options>,
    /// Why the server is unreachable, while a watch waits for it.
    pub(crate) connection_error: Arc<watch::Sender<Option<String>>>,
    pub(crate) trace: CallerTrace,
}

impl Client {
    /// Creates a client that connects on first use. Must be called within a tokio runtime. Fails if the endpoint is
    /// invalid or the token file unreadable.
    pub fn new(options: Options) -> Result<Self, Error> {
        let auth = Auth::new(&options.token).map_err(|status| Error::new(status, &options.endpoint))?;
        let transport = InterceptedService::new(lazy_channel(&options)?, auth);
        Ok(Self {
            transport,
            options: Arc::new(options),
            trace: CallerTrace::default(),
            connection_error: Arc::default(),
        })
    }

    /// Returns the URL of the control plane.
    pub fn endpoint(&self) -> &str {
        &self.options.endpoint
    }

    /// Returns a receiver of the connection's state: the error while a watch waits for the server to come back, or `None`.
    pub fn connection_error(&self) -> watch::Receiver<Option<String>> {
        self.connection_error.subscribe()
    }

    /// Returns the generated client of the task service, without retries.
    pub fn tasks(&self) -> TaskServiceClient<Transport> {
        TaskServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE)
    }

    /// Returns the generated client of the agent service, without retries.
    pub fn agents(&self) -> AgentServiceClient<Transport> {
        AgentServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE)
    }

    /// Returns the generated client of the admin service, without retries.
    pub fn admin(&self) -> AdminServiceClient<Transport> {
        AdminServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE)
    }

    /// Returns the generated client of the schedule service, without retries.
    pub fn schedules(&self) -> ScheduleServiceClient<Transport> {
        ScheduleServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE)
    }

    /// Returns the generated client of the workflow service, without retries.
    pub fn workflows(&self) -> WorkflowServiceClient<Transport> {
        WorkflowServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE)
    }

    /// Returns the generated client of the template service, without retries.
    pub fn templates(&self) -> TemplateServiceClient<Transport> {
        TemplateServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE)
    }

    /// Returns the generated client of the service for kinds of tasks, without retries.
    pub fn kinds(&self) -> TaskKindServiceClient<Transport> {
        TaskKindServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE)
    }

    /// Returns the generated client of the artifact service, without retries.
    pub fn artifact_service(&self) -> ArtifactServiceClient<Transport> {
        artifact_service(self.transport.clone())
    }

    /// Returns the generated client of the worker service: sessions.
    pub fn workers(&self) -> WorkerServiceClient<Transport> {
        WorkerServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE)
    }
}

pub(crate) fn artifact_service(transport: Transport) -> ArtifactServiceClient<Transport> {
    ArtifactServiceClient::new(transport)
        .max_decoding_message_size(MAX_MESSAGE_SIZE)
        .max_encoding_message_size(MAX_MESSAGE_SIZE)
}

/// Creates a channel without a token, for callers that authenticate by themselves. Connects on first use. Must be
/// called within a tokio runtime.
pub fn lazy_channel(options: &Options) -> Result<Channel, Error> {
    let given = &options.endpoint;
    if let Some((scheme, _)) =
        given.split_once("://").filter(|(scheme, _)| !["http", "https"].contains(scheme))
    {
        return Err(Error::endpoint(given, format!("{scheme} is neither http nor https")));
    }
    channel(options).map_err(|error| Error::endpoint(given, root_cause(&error)))
}

/// A channel that its holders replace when nothing comes back over its connection: a peer that has vanished without a word, such
/// as a load balancer or a standby, would otherwise be used until keepalive gives it up. Clones share the channel.
#[derive(Debug, Clone)]
pub struct RenewableChannel {
    options: Arc<Options>,
    current: Arc<watch::Sender<Channel>>,
}

impl RenewableChannel {
    /// Creates a channel without a token, as [`lazy_channel`] does.
    pub fn new(options: Options) -> Result<Self, Error> {
        let channel = lazy_channel(&options)?;
        Ok(Self { options: Arc::new(options), current: Arc::new(watch::Sender::new(channel)) })
    }

    /// Returns the channel that new calls use.
    pub fn get(&self) -> Channel {
        self.current.borrow().clone()
    }

    /// Lets new calls use a connection of their own. Those in flight keep theirs.
    pub fn renew(&self) {
        // Valid options stay valid.
        if let Ok(channel) = lazy_channel(&self.options) {
            self.current.send_replace(channel);
        }
    }
}

fn channel(options: &Options) -> Result<Channel, tonic::transport::Error> {
    let authority = options.endpoint.strip_prefix("https://");
    let file = || options.ca.clone().map(Authority::File);
    let trusted = options.ca_pem.clone().map(Authority::Pem).or_else(file);
    if let (Some(ca), Some(authority)) = (trusted, authority) {
        // Plain HTTP for tonic, since the connector does TLS. The origin keeps `https` in the calls.
        let origin = Endpoint::from_shared(options.endpoint.clone())?.uri().clone();
        let endpoint =
            configure(Endpoint::from_shared(format!("http://{authority}"))?, options)?.origin(origin);
        let connector = Connector { ca, name: options.tls_name.clone() };
        return Ok(endpoint.connect_with_connector_lazy(connector));
    }
    let mut endpoint = configure(Endpoint::from_shared(options.endpoint.clone())?, options)?;
    if authority.is_some() {
        let mut tls = ClientTlsConfig::new().with_native_roots();
        if let Some(name) = &options.tls_name {
            tls = tls.domain_name(name);
        }
        endpoint = endpoint.tls_config(tls)?;
    }
    Ok(endpoint.connect_lazy())
}

fn configure(endpoint: Endpoint, options: &Options) -> Result<Endpoint, tonic::transport::Error> {
    Ok(endpoint
        .user_agent(options.user_agent.clone())?
        .connect_timeout(options.connect_timeout)
        .timeout(options.timeout)
        .tcp_nodelay(true)
        // Off by default; without them, a peer that vanished is noticed only after minutes.
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true))
}
