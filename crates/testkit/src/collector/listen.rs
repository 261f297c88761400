//! The collector's listener: gRPC, and HTTP with protobuf or JSON, on one port.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::post;
use futures::StreamExt;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::Received;

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.spans(request.into_inner(), "grpc");
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics(request.into_inner(), "grpc");
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// Serves on a thread that lives as long as the process.
pub(super) fn on_thread(address: IpAddr, received: Received, tls: Option<TlsAcceptor>) -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((address, 0))?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let http = axum::Router::new()
        .route("/v1/traces", post(traces))
        .route("/v1/metrics", post(metrics))
        .with_state(received.clone());
    let routes = Routes::from(http)
        .add_service(TraceServiceServer::new(received.clone()))
        .add_service(MetricsServiceServer::new(received));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = async move {
        let incoming = TcpListenerStream::new(TcpListener::from_std(listener)?);
        let server = Server::builder().accept_http1(true).add_routes(routes);
        match tls {
            None => server.serve_with_incoming(incoming).await?,
            Some(tls) => {
                let accept = move |stream: std::io::Result<TcpStream>| {
                    let tls = tls.clone();
                    async move { tls.accept(stream?).await }
                };
                // A client that does not trust the certificate closes its connection, which must not end the server.
                let trusted = incoming.then(accept).filter(|stream| std::future::ready(stream.is_ok()));
                server.serve_with_incoming(trusted).await?;
            }
        }
        anyhow::Ok(())
    };
    std::thread::Builder::new().name("collector".to_owned()).spawn(move || runtime.block_on(serve))?;
    Ok(addr)
}

pub(super) fn acceptor(certificate: &str, key: &str) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("invalid private key")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn traces(State(received): State<Received>, headers: HeaderMap, body: Bytes) -> HttpResponse {
    match read(&headers, &body) {
        Ok((request, via)) => {
            received.spans(request, via);
            respond(&ExportTraceServiceResponse::default(), via)
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error:#}")).into_response(),
    }
}

async fn metrics(State(received): State<Received>, headers: HeaderMap, body: Bytes) -> HttpResponse {
    match read(&headers, &body) {
        Ok((request, via)) => {
            received.metrics(request, via);
            respond(&ExportMetricsServiceResponse::default(), via)
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error:#}")).into_response(),
    }
}

fn read<T: Message + Default + DeserializeOwned>(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(T, &'static str)> {
    let kind = headers.get(header::CONTENT_TYPE).context("no content type")?.to_str()?;
    match kind.split(';').next().unwrap_or_default() {
        "application/x-protobuf" => Ok((T::decode(body)?, "http/protobuf")),
        "application/json" => Ok((serde_json::from_slice(body)?, "http/json")),
        other => anyhow::bail!("unknown content type {other:?}"),
    }
}

fn respond(response: &impl Message, via: &str) -> HttpResponse {
    match via {
        "http/json" => ([(header::CONTENT_TYPE, "application/json")], "{}").into_response(),
        _ => ([(header::CONTENT_TYPE, "application/x-protobuf")], response.encode_to_vec()).into_response(),
    }
}
