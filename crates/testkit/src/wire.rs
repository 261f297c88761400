//! Messages as bytes, for what no typed client would send.

use anyhow::Result;
use bytes::Bytes;
use http::uri::PathAndQuery;
use rota_client::{Options, lazy_channel};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// Message with one field of bytes, which is a message for the server: its number differs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Field1 {
    #[prost(bytes = "bytes", tag = "1")]
    pub value: Bytes,
}

/// As [`Field1`], with the field number 4.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Field4 {
    #[prost(bytes = "bytes", tag = "4")]
    pub value: Bytes,
}

/// As [`Field1`], with values of the field number 2.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Fields2 {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub values: Vec<Bytes>,
}

/// Returns a field of bytes in its encoded form, such as a message within another one.
pub fn field(number: u32, content: Vec<u8>) -> Vec<u8> {
    let mut encoded = Vec::new();
    prost::encoding::bytes::encode(number, &content, &mut encoded);
    encoded
}

/// Makes a unary call with a message. Returns the answer of the server, whose content is ignored.
pub async fn call<M: prost::Message + 'static>(
    endpoint: &str,
    path: &'static str,
    token: Option<&str>,
    message: M,
) -> Result<Result<(), Status>> {
    send(endpoint, path, token, tokio_stream::once(message)).await
}

/// Makes a unary call without a token whose message arrives, and whose end does not.
pub async fn begin<M: prost::Message + 'static>(
    endpoint: &str,
    path: &'static str,
    message: M,
) -> Result<Result<(), Status>> {
    send(endpoint, path, None, tokio_stream::once(message).chain(tokio_stream::pending())).await
}

async fn send<M: prost::Message + 'static>(
    endpoint: &str,
    path: &'static str,
    token: Option<&str>,
    messages: impl Stream<Item = M> + Send + 'static,
) -> Result<Result<(), Status>> {
    let channel = lazy_channel(&Options::new(endpoint.to_owned()))?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await?;
    let mut request = Request::new(messages);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    }
    let codec = ProstCodec::<M, Field1>::default();
    let answered = grpc.client_streaming(request, PathAndQuery::from_static(path), codec).await;
    Ok(answered.map(drop))
}
