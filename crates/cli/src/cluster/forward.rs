//! A port of this machine that is forwarded to a pod of a control plane, as `kubectl port-forward` does. Each connection ends at a pod
//! that is ready when it is opened, so that a client can connect again after a pod was replaced.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Portforwarder;
use kube::{Client, ResourceExt};
use rota_telemetry::{OnExit, spawn};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::control_plane::ControlPlane;
use super::failed;
use crate::exit::Failure;

/// Forwarded port of one pod.
struct Forwarded {
    pod: String,
    port: u16,
    forwarder: Portforwarder,
}

/// Forwards a port for as long as the program runs, and returns its address. The first connection is opened here, to this pod, so
/// that its errors are returned.
pub(super) async fn start(
    client: Client,
    control_plane: ControlPlane,
    pod: &Pod,
) -> anyhow::Result<SocketAddr> {
    let mut first = Some(open(&client, &control_plane, pod).await?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.context("failed to listen for connections to forward")?;
    let address = listener.local_addr()?;
    let target = Arc::new((client, control_plane));
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

async fn open(client: &Client, control_plane: &ControlPlane, pod: &Pod) -> Result<Forwarded, Failure> {
    let (name, port) = (pod.name_any(), control_plane.port(pod)?);
    let opened = control_plane.pods(client).portforward(&name, &[port]).await;
    let forwarder = opened.map_err(|error| {
        let namespace = pod.namespace().unwrap_or_default();
        let right = format!("get pods/{name} --subresource=portforward -n {namespace}");
        failed(&error, &format!("forward a port to the pod {namespace}/{name}"), &right)
    })?;
    Ok(Forwarded { pod: name, port, forwarder })
}

/// Copies in both directions until one side has closed its connection.
async fn forward(
    mut stream: TcpStream,
    first: Option<Forwarded>,
    (client, control_plane): &(Client, ControlPlane),
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let Forwarded { pod, port, mut forwarder } = match first {
        Some(first) => first,
        None => open(client, control_plane, &control_plane.ready_pod(client).await?).await?,
    };
    let taken = forwarder.take_stream(port).zip(forwarder.take_error(port));
    let (mut inner, refused) = taken.context("the port is not forwarded")?;
    let ended = tokio::select! {
        copied = copy_bidirectional(&mut stream, &mut inner) => copied.map(drop).map_err(Into::into),
        Some(error) = refused => Err(anyhow::anyhow!("pod {pod}: {error}")),
    };
    forwarder.abort();
    ended
}
