//! A certificate authority of our own, and the control plane's certificate. Pure but for the keys,
//! which are made here. Knows no cluster.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use secrecy::{ExposeSecret, SecretString};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Ten years: whoever trusts it is a pod of ours, and those do not live as long.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// The certificate's life.
const LEAF_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// A certificate and its key, in PEM, and when the next one is to be made.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub certificate: String,
    pub key: SecretString,
    pub renew_after: SystemTime,
}

/// A new authority.
pub(crate) fn authority(now: SystemTime) -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = authority_params()?;
    params.not_before = (now - DAY).into();
    params.not_after = (now + AUTHORITY_LIFE).into();
    let certificate = params.self_signed(&key)?.pem();
    let renew_after = now + AUTHORITY_LIFE - 2 * LEAF_LIFE;
    Ok(Pair { certificate, key: key.serialize_pem().into(), renew_after })
}

/// What identifies the authority, apart from its key: signing needs no more of it.
fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = name("Rota's own authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A certificate for `names`, signed by the authority whose key is given.
pub(crate) fn leaf(
    authority_key: &SecretString,
    names: &[String],
    now: SystemTime,
) -> Result<Pair, rcgen::Error> {
    let issuer = Issuer::new(authority_params()?, KeyPair::from_pem(authority_key.expose_secret())?);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = name("rota control plane");
    params.not_before = (now - DAY).into();
    params.not_after = (now + LEAF_LIFE).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Pair { certificate, key: key.serialize_pem().into(), renew_after: now + LEAF_LIFE * 2 / 3 })
}

fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}
