//! A port of this machine that is forwarded to a pod of a control plane, as `kubectl port-forward` does. Each connection ends at a pod
//! that is ready when it is opened, so that a client can connect again after a pod was replaced. A pod that the API server cannot
//! reach is left out as long as there are others.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Portforwarder;
use kube::{Client, ResourceExt};
use rota_telemetry::{OnExit, spawn};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::control_plane::ControlPlane;
use super::failed;
use super::renewal::Renewal;
use crate::exit::Failure;

/// Forwarded port of one pod.
struct Forwarded {
    pod: String,
    port: u16,
    forwarder: Portforwarder,
}

/// Control plane at whose pods the forwarded connections end.
struct Target {
    client: Client,
    control_plane: ControlPlane,
    renewal: Arc<Renewal>,
    /// Pod at which the last connection failed.
    suspect: Mutex<Option<String>>,
}

/// Forwards a port for as long as the program runs, and returns its address. The first connection is opened here, to one of these
/// pods, so that its errors are returned.
pub(super) async fn start(
    client: Client,
    control_plane: ControlPlane,
    renewal: Arc<Renewal>,
    pods: Vec<Pod>,
) -> anyhow::Result<SocketAddr> {
    let target = Arc::new(Target { client, control_plane, renewal, suspect: Mutex::default() });
    let mut first = Some(target.open_any(pods).await?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.context("failed to listen for connections to forward")?;
    let address = listener.local_addr()?;
    spawn("kube-forward", OnExit::Done, async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "no connection is forwarded any more");
                    return;
                }
            };
            let (target, first) = (Arc::clone(&target), first.take());
            spawn("kube-forward-connection", OnExit::Done, async move {
                if let Err(error) = forward(stream, first, &target).await {
                    tracing::debug!(error = format!("{error:#}"), "a connection was not forwarded");
                }
            });
        }
    });
    Ok(address)
}

impl Target {
    /// Opens a connection to the first pod that can be reached, the last one that failed at the end. Returns the error of the first.
    async fn open_any(&self, mut pods: Vec<Pod>) -> anyhow::Result<Forwarded> {
        let suspect = self.suspect.lock().unwrap_or_else(PoisonError::into_inner).clone();
        pods.sort_by_key(|pod| suspect.as_ref() == Some(&pod.name_any()));
        let mut refused = None;
        for pod in &pods {
            match self.open(pod).await {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    tracing::debug!(pod = pod.name_any(), error = error.message, "no port is forwarded");
                    refused.get_or_insert(error);
                }
            }
        }
        Err(refused.map_or_else(|| anyhow::anyhow!("there is no pod to forward to"), anyhow::Error::from))
    }

    async fn open(&self, pod: &Pod) -> Result<Forwarded, Failure> {
        let (name, port) = (pod.name_any(), self.control_plane.port(pod)?);
        let opened = self.control_plane.pods(&self.client).portforward(&name, &[port]).await;
        let forwarder = opened.map_err(|error| {
            let namespace = pod.namespace().unwrap_or_default();
            let right = format!("get pods/{name} --subresource=portforward -n {namespace}");
            failed(&error, &format!("forward a port to the pod {namespace}/{name}"), &right)
        })?;
        Ok(Forwarded { pod: name, port, forwarder })
    }
}

/// Copies in both directions until one side has closed its connection.
async fn forward(mut stream: TcpStream, first: Option<Forwarded>, target: &Target) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let Forwarded { pod, port, mut forwarder } = match first {
        Some(first) => first,
        None => {
            // The last connection may have ended since its certificates or its token were replaced: the next call has the new ones.
            let renewed = target.renewal.renew();
            let ((), pods) = tokio::join!(renewed, target.control_plane.ready_pods(&target.client));
            target.open_any(pods?).await?
        }
    };
    let taken = forwarder.take_stream(port).zip(forwarder.take_error(port));
    let (mut inner, refused) = taken.context("the port is not forwarded")?;
    let ended = tokio::select! {
        copied = copy_bidirectional(&mut stream, &mut inner) => copied.map(drop).map_err(Into::into),
        Some(error) = refused => {
            let failed = anyhow::anyhow!("pod {pod}: {error}");
            *target.suspect.lock().unwrap_or_else(PoisonError::into_inner) = Some(pod);
            Err(failed)
        }
    };
    forwarder.abort();
    ended
}
