//! HTTP to a collector. The SDK calls from threads of its own without a reactor, so each request runs on the runtime
//! that is kept for exports.

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;

use super::{Error, Protocol, Target};
use crate::root_cause;

#[derive(Debug, Clone)]
pub(crate) struct HttpTransport {
    client: reqwest::Client,
    runtime: Handle,
}

impl HttpTransport {
    pub(crate) fn new(target: &Target, runtime: &Handle) -> Result<Self, Error> {
        // A redirect would take the headers, which have credentials, to another host.
        let redirects = reqwest::redirect::Policy::none();
        let mut builder = reqwest::Client::builder().timeout(target.timeout).redirect(redirects);
        // Without a CA of its own, the system's certificates are trusted.
        if let Some(pem) = &target.ca {
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
        }
        Ok(Self { client: builder.build()?, runtime: runtime.clone() })
    }

    /// Posts an encoded export request. Must be called on the export runtime.
    pub(crate) async fn post(&self, target: &Target, body: Vec<u8>) -> Result<(), String> {
        let content_type = match target.protocol {
            Protocol::HttpJson => "application/json",
            _ => "application/x-protobuf",
        };
        let headers = target.headers.iter().cloned().collect();
        let request =
            self.client.post(&target.endpoint).headers(headers).header("content-type", content_type);
        let response = request.body(body).send().await.map_err(|error| root_cause(&error))?;
        if response.status().is_success() { Ok(()) } else { Err(response.status().to_string()) }
    }
}

#[async_trait::async_trait]
impl HttpClient for HttpTransport {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let exchange = self.runtime.spawn(async move {
            let mut received = client.execute(request.try_into()?).await?;
            let (status, headers) = (received.status(), std::mem::take(received.headers_mut()));
            let mut response = Response::new(received.bytes().await?);
            (*response.status_mut(), *response.headers_mut()) = (status, headers);
            Ok::<_, HttpError>(response)
        });
        exchange.await?
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn redirects_are_not_followed() {
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            endpoint: format!("http://{}/v1/traces", collector.local_addr().unwrap()),
            protocol: Protocol::HttpBinary,
            ca: None,
            headers: vec![("x-api-key".parse().unwrap(), "secret".parse().unwrap())],
            timeout: Duration::from_secs(30),
            child_environment: Vec::new(),
        };
        let location = format!("http://{}/", elsewhere.local_addr().unwrap());
        let answer = async {
            let (mut stream, _) = collector.accept().await.unwrap();
            // The head has the key; the body is empty.
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer = format!(
                "HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream
        };
        let transport = HttpTransport::new(&target, &Handle::current()).unwrap();
        let (posted, _stream) = tokio::select! {
            done = async { tokio::join!(transport.post(&target, Vec::new()), answer) } => done,
            _ = elsewhere.accept() => panic!("the redirect was followed"),
        };
        assert_eq!(posted, Err("307 Temporary Redirect".to_owned()));
    }
}
