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
        let mut builder = reqwest::Client::builder().timeout(target.timeout);
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
