//! TLS with certificates that a caller names. They are read for each new connection, so that a cluster may replace its
//! certificate authority while the process runs. Existing connections are kept.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Port of an endpoint without one.
const DEFAULT_PORT: u16 = 443;

/// PEM certificates that a connection trusts.
#[derive(Debug, Clone)]
pub(crate) enum Authority {
    File(PathBuf),
    Pem(watch::Receiver<String>),
}

/// Connector that trusts only the certificates of an authority.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub(crate) ca: Authority,
    /// Name that the server's certificate must have, if it is not the host of the URI.
    pub(crate) name: Option<String>,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { ca, name } = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let name = ServerName::try_from(name.unwrap_or_else(|| host.to_owned()))
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            let tls = TlsConnector::from(Arc::new(config(&ca).await?));
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(DEFAULT_PORT))).await?;
            stream.set_nodelay(true)?;
            let stream = tls.connect(name, stream).await?;
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err(io::Error::other("the server did not negotiate HTTP/2"));
            }
            Ok(TokioIo::new(stream))
        })
    }
}

async fn config(ca: &Authority) -> io::Result<ClientConfig> {
    let place = match ca {
        Authority::File(path) => format!(" in {}", path.display()),
        Authority::Pem(_) => String::new(),
    };
    let invalid = |reason: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("invalid certificates{place}: {reason}"))
    };
    let pem = match ca {
        Authority::File(path) => tokio::fs::read(path).await.map_err(|error| invalid(error.to_string()))?,
        Authority::Pem(text) => text.borrow().clone().into_bytes(),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| invalid(format!("not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(invalid("no certificate found".to_owned()));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
