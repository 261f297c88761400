//! HTTP to a collector. What sends has threads of its own without a reactor, so that each request runs on the
//! runtime that is kept for this.

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;

use super::{Error, Protocol, Target};

/// Sends requests.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    runtime: Handle,
}

impl Http {
    pub(crate) fn new(target: &Target, runtime: &Handle) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder().timeout(target.timeout);
        // Without such a file it trusts whom the system trusts.
        if let Some(pem) = &target.authority {
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
        }
        Ok(Self { client: builder.build()?, runtime: runtime.clone() })
    }

    /// Posts what is encoded as the target wants it. To be called on the runtime.
    pub(crate) async fn post(&self, target: &Target, body: Vec<u8>) -> Result<(), String> {
        let kind =
            if target.protocol == Protocol::HttpJson { "application/json" } else { "application/x-protobuf" };
        let headers = target.headers.iter().cloned().collect();
        let request = self.client.post(&target.endpoint).headers(headers).header("content-type", kind);
        let answer = request.body(body).send().await.map_err(|error| root(&error))?;
        if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
    }
}

#[async_trait::async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let mut answer = client.execute(request.try_into()?).await?;
            let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
            let mut told = Response::new(answer.bytes().await?);
            (*told.status_mut(), *told.headers_mut()) = (status, headers);
            Ok::<_, HttpError>(told)
        });
        sent.await?
    }
}

/// An HTTP client's own sentence says only that it failed.
fn root(mut error: &dyn std::error::Error) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
