//! gRPC calls whose messages are plain bytes, as a client and as a server. Fields that this version does not know or no
//! longer has pass unchanged, which no generated client or service can do. Knows no message.

use std::net::SocketAddr;
use std::pin::Pin;

use anyhow::Result;
use axum::extract::Request as HttpRequest;
use bytes::{Buf, BufMut, Bytes};
use futures::Stream;
use http::uri::PathAndQuery;
use rota_client::{Options, lazy_channel};
use rota_telemetry::{OnExit, spawn};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::server::StreamingService;
use tonic::{Request, Response, Status, Streaming};

/// Codec that passes messages as they are.
#[derive(Debug, Default, Clone, Copy)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Opens a stream in both directions. Requests end when their sender is dropped.
pub async fn open(
    server: SocketAddr,
    path: PathAndQuery,
    authorization: Option<MetadataValue<Ascii>>,
    requests: mpsc::UnboundedReceiver<Bytes>,
) -> Result<Streaming<Bytes>, Status> {
    let channel = lazy_channel(&Options::new(format!("http://{server}")));
    let mut grpc =
        tonic::client::Grpc::new(channel.map_err(|error| Status::invalid_argument(error.to_string()))?);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(UnboundedReceiverStream::new(requests));
    if let Some(authorization) = authorization {
        request.metadata_mut().insert("authorization", authorization);
    }
    Ok(grpc.streaming(request, path, BytesCodec).await?.into_inner())
}

/// Call of a client of [`serve`].
#[derive(Debug)]
pub struct Call {
    pub path: PathAndQuery,
    pub authorization: Option<MetadataValue<Ascii>>,
    pub requests: Streaming<Bytes>,
    /// Responses, the last of which may be an error. Without one, the call succeeds when this is dropped.
    pub responses: mpsc::UnboundedSender<Result<Bytes, Status>>,
}

/// Serves every method on a free port of loopback. Returns the address, and the calls as they arrive.
pub async fn serve() -> Result<(SocketAddr, mpsc::UnboundedReceiver<Call>)> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let addr = listener.local_addr()?;
    let (calls, received) = mpsc::unbounded_channel();
    let router = axum::Router::new().fallback(async move |request: HttpRequest| {
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let response = tonic::server::Grpc::new(BytesCodec).streaming(Method { path, calls }, request).await;
        response.map(axum::body::Body::new)
    });
    let server = tonic::transport::Server::builder().add_routes(router.into());
    spawn("bytes", OnExit::Done, async move {
        drop(server.serve_with_incoming(TcpListenerStream::new(listener)).await);
    });
    Ok((addr, received))
}

/// Method that hands its call to the receiver of [`serve`].
struct Method {
    path: PathAndQuery,
    calls: mpsc::UnboundedSender<Call>,
}

type Responses = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl StreamingService<Bytes> for Method {
    type Response = Bytes;
    type ResponseStream = Responses;
    type Future = std::future::Ready<Result<Response<Responses>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (responses, queue) = mpsc::unbounded_channel();
        let authorization = request.metadata().get("authorization").cloned();
        let call = Call { path: self.path.clone(), authorization, requests: request.into_inner(), responses };
        std::future::ready(match self.calls.send(call) {
            Ok(()) => Ok(Response::new(Box::pin(UnboundedReceiverStream::new(queue).fuse()))),
            Err(_) => Err(Status::unavailable("nothing accepts calls any more")),
        })
    }
}
