//! Requests to an issuer.

use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};
use reqwest::{Certificate, redirect};

use crate::Error;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_RESPONSE_SIZE: usize = 1 << 20;

/// Sends requests to an issuer.
#[derive(Debug, Clone)]
pub struct Http(reqwest::Client);

/// Rejects URLs from which nothing must be fetched: on a plain connection an attacker could replace the keys and sign tokens.
pub fn check_url(url: &str) -> Result<(), &'static str> {
    let uri: ::http::Uri = url.parse().map_err(|_| "is not a URL")?;
    let host = uri.host().ok_or("is not a URL")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if local => Ok(()),
        _ => Err("must begin with https://"),
    }
}

impl Http {
    /// Returns a client that trusts the certificates of a PEM file instead of the system's, if there is one.
    pub fn new(ca: Option<&[u8]>) -> Result<Self, Error> {
        // No redirects: a token is sent to its audience only, not to whatever that one refers to.
        let mut builder =
            reqwest::Client::builder().timeout(REQUEST_TIMEOUT).redirect(redirect::Policy::none());
        if let Some(ca) = ca {
            let trusted = Certificate::from_pem_bundle(ca)
                .map_err(|error| Error::Unavailable(format!("the CA is no certificates in PEM: {error}")))?;
            builder = builder.tls_certs_only(trusted);
        }
        builder.build().map(Self).map_err(|error| Error::Unavailable(error.to_string()))
    }

    /// Fetches a document of the issuer.
    pub async fn get(&self, url: &str, bearer: Option<&str>) -> Result<Vec<u8>, Error> {
        let mut request = self.0.get(url);
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        let answer = request.send().await.map_err(|error| failed(url, &error))?;
        if !answer.status().is_success() {
            return Err(Error::Unavailable(format!("{url} answers {}", answer.status())));
        }
        body(url, answer).await
    }

    /// Sends a request of a flow.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        let url = request.uri().to_string();
        let request = reqwest::Request::try_from(request).map_err(|error| failed(&url, &error))?;
        let answer = self.0.execute(request).await.map_err(|error| failed(&url, &error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut response = ::http::Response::new(body(&url, answer).await?);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Error>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

async fn body(url: &str, mut answer: reqwest::Response) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| failed(url, &error))? {
        if bytes.len() + chunk.len() > MAX_RESPONSE_SIZE {
            return Err(Error::Unavailable(format!("{url} answers with more than 1 MiB")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Returns an error with the innermost cause, which names what failed.
fn failed(url: &str, error: &reqwest::Error) -> Error {
    let mut innermost: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    Error::Unavailable(format!("request to {url} failed: {innermost}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_connections_stay_on_this_machine() {
        for url in ["https://id.example", "http://localhost:8080/x", "http://127.0.0.1:1", "http://[::1]:1"] {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
        for url in ["http://id.example", "ftp://id.example", "http://localhost.example", "id", ""] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }
}
