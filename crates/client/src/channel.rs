//! One channel, and the generated service clients over it. Connects at the first call, and again
//! whenever it must.

use std::sync::Arc;
use std::time::Duration;

use rota_proto::v1::admin_service_client::AdminServiceClient;
use rota_proto::v1::agent_service_client::AgentServiceClient;
use rota_proto::v1::task_service_client::TaskServiceClient;
use rota_proto::worker::v1::worker_service_client::WorkerServiceClient;
use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::error::root;
use crate::tls::Connector;
use crate::trace::Place;
use crate::{Auth, Error, Options};

/// What carries the calls.
pub type Transport = InterceptedService<Channel, Auth>;

/// Largest message either way: a result's text and data with room to spare.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// The client. Cheap to clone; all clones share one connection.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Transport,
    pub(crate) options: Arc<Options>,
    /// Why the server is not there, while a watch waits for it.
    pub(crate) lost: Arc<watch::Sender<Option<String>>>,
    pub(crate) place: Place,
}

impl Client {
    /// A client that will connect when it is first used. Must be called inside a tokio runtime.
    pub fn new(options: Options) -> Result<Self, Error> {
        let auth = Auth::new(&options.token).map_err(|status| Error::new(status, &options.endpoint))?;
        let transport = InterceptedService::new(lazy_channel(&options)?, auth);
        Ok(Self { transport, options: Arc::new(options), place: Place::default(), lost: Arc::default() })
    }

    /// Whom it talks to.
    pub fn endpoint(&self) -> &str {
        &self.options.endpoint
    }

    /// Why the server is not there, while a watch waits for it to come back; nothing while it is.
    pub fn link(&self) -> watch::Receiver<Option<String>> {
        self.lost.subscribe()
    }

    /// The generated client of tasks, without retries.
    pub fn tasks(&self) -> TaskServiceClient<Transport> {
        TaskServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// The generated client of agents, without retries.
    pub fn agents(&self) -> AgentServiceClient<Transport> {
        AgentServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// The generated client of the control plane itself, without retries.
    pub fn admin(&self) -> AdminServiceClient<Transport> {
        AdminServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// The generated client of worker sessions.
    pub fn workers(&self) -> WorkerServiceClient<Transport> {
        WorkerServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }
}

/// The channel alone, for whoever puts the token on its calls by itself. Connects when it is first
/// used. Must be called inside a tokio runtime.
pub fn lazy_channel(options: &Options) -> Result<Channel, Error> {
    let given = &options.endpoint;
    if let Some((scheme, _)) =
        given.split_once("://").filter(|(scheme, _)| !["http", "https"].contains(scheme))
    {
        return Err(Error::endpoint(given, format!("{scheme} is neither http nor https")));
    }
    channel(options).map_err(|error| Error::endpoint(given, root(&error)))
}

fn channel(options: &Options) -> Result<Channel, tonic::transport::Error> {
    let authority = options.endpoint.strip_prefix("https://");
    if let (Some(ca), Some(authority)) = (&options.ca, authority) {
        // Told that it is plain, since the connector sees to TLS; the calls say what it is.
        let origin = Endpoint::from_shared(options.endpoint.clone())?.uri().clone();
        let endpoint = usual(Endpoint::from_shared(format!("http://{authority}"))?, options)?.origin(origin);
        let connector = Connector { ca: ca.clone(), name: options.tls_name.clone() };
        return Ok(endpoint.connect_with_connector_lazy(connector));
    }
    let mut endpoint = usual(Endpoint::from_shared(options.endpoint.clone())?, options)?;
    if authority.is_some() {
        let mut tls = ClientTlsConfig::new().with_native_roots();
        if let Some(name) = &options.tls_name {
            tls = tls.domain_name(name);
        }
        endpoint = endpoint.tls_config(tls)?;
    }
    Ok(endpoint.connect_lazy())
}

fn usual(endpoint: Endpoint, options: &Options) -> Result<Endpoint, tonic::transport::Error> {
    Ok(endpoint
        .user_agent(options.user_agent.clone())?
        .connect_timeout(options.connect_timeout)
        .timeout(options.timeout)
        .tcp_nodelay(true)
        // Off by default everywhere; without them a peer that vanished is noticed after minutes.
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true))
}
