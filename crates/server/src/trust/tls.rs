//! The server's certificate: loaded at the start, and again when its files change. Open connections keep the one that
//! they were accepted with.

use std::sync::Arc;

use parking_lot::RwLock;
use rota_telemetry::BackgroundTasks;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::files;
use crate::options::Tls;

/// Certificate for new connections.
#[derive(Debug)]
struct CurrentCertificate(RwLock<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

/// Returns an acceptor that uses the current certificate of these files.
pub(crate) async fn acceptor(
    tls: &Tls,
    background_tasks: &BackgroundTasks,
    stop: CancellationToken,
) -> Result<TlsAcceptor, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let current = Arc::new(CurrentCertificate(RwLock::new(None)));
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&current) as _);
    // gRPC needs the former; proxies and scripts may offer the latter alone.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let paths = vec![tls.certificate.clone(), tls.key.clone()];
    let load = move |files: &[Vec<u8>]| {
        let [certificate, key] = files else { return Err("a certificate and a key are needed".to_owned()) };
        *current.0.write() = Some(Arc::new(pair(certificate, key, &provider)?));
        Ok(())
    };
    let monitor =
        background_tasks.register("certificate", "Reloads the server certificate when its files change");
    files::follow(paths, tls.reload, monitor, stop, load).await?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Fails unless the files hold a certificate and its key.
#[cfg(feature = "clap")]
pub(crate) async fn check(tls: &Tls) -> Result<(), String> {
    let (certificate, key) = (files::read(&tls.certificate).await?, files::read(&tls.key).await?);
    pair(&certificate, &key, &aws_lc_rs::default_provider()).map(drop)
}

/// Returns a certificate chain with its key. Rejects a key that does not belong to the certificate.
fn pair(certificate: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let bad = |error| format!("the certificate is not PEM: {error}");
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(bad)?;
    if chain.is_empty() {
        return Err("the certificate file holds no certificate".to_owned());
    }
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_| "the key file holds no private key".to_owned())?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| format!("certificate and key cannot be used together: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mismatched_certificate_and_key_are_rejected() {
        let provider = aws_lc_rs::default_provider();
        let make = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (one, other) = (make(), make());
        let pem = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
            (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
        };
        let ((certificate, key), (_, other_key)) = (pem(&one), pem(&other));
        assert!(pair(&certificate, &key, &provider).is_ok());
        for (certificate, key, why) in [
            (&certificate, &other_key, "together"),
            (&key, &key, "no certificate"),
            (&certificate, &certificate, "no private key"),
            (&certificate, &Vec::new(), "no private key"),
            (&Vec::new(), &key, "no certificate"),
        ] {
            let refused = pair(certificate, key, &provider).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
