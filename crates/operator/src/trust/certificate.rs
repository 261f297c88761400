//! Generates the certificate authority and the control plane's certificate. Pure except for key generation. Knows no
//! cluster.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use secrecy::{ExposeSecret, SecretString};

/// Backdating of certificates, which tolerates clock skew.
const BACKDATING: Duration = Duration::from_hours(24);
/// Ten years: only worker pods trust it, and none lives as long.
const AUTHORITY_LIFETIME: Duration = Duration::from_hours(3650 * 24);
const LEAF_LIFETIME: Duration = Duration::from_hours(90 * 24);

/// Certificate and key, in PEM, with the time of renewal.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub certificate: String,
    pub key: SecretString,
    pub renew_after: SystemTime,
}

/// Generates a self-signed certificate authority, with this key if it is one.
pub(crate) fn authority(now: SystemTime, key: Option<&SecretString>) -> Result<Pair, rcgen::Error> {
    let key = match key.map(|key| KeyPair::from_pem(key.expose_secret())) {
        Some(Ok(key)) => key,
        Some(Err(_)) | None => KeyPair::generate()?,
    };
    let mut params = authority_params()?;
    params.not_before = (now - BACKDATING).into();
    params.not_after = (now + AUTHORITY_LIFETIME).into();
    let certificate = params.self_signed(&key)?.pem();
    let renew_after = now + AUTHORITY_LIFETIME - 2 * LEAF_LIFETIME;
    Ok(Pair { certificate, key: key.serialize_pem().into(), renew_after })
}

/// Returns the identity of the authority apart from its key, which is all that signing needs.
fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = name("Rota's own authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Generates a certificate for `names`, signed by the authority.
pub(crate) fn leaf(
    authority_key: &SecretString,
    names: &[String],
    now: SystemTime,
) -> Result<Pair, rcgen::Error> {
    let issuer = Issuer::new(authority_params()?, KeyPair::from_pem(authority_key.expose_secret())?);
    let key = KeyPair::generate()?;
    let mut params = leaf_params(names)?;
    params.not_before = (now - BACKDATING).into();
    params.not_after = (now + LEAF_LIFETIME).into();
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Pair { certificate, key: key.serialize_pem().into(), renew_after: now + LEAF_LIFETIME * 2 / 3 })
}

fn leaf_params(names: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = name("rota control plane");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

#[cfg(test)]
mod tests {
    use rcgen::SanType;

    use super::*;

    #[test]
    fn addresses_are_no_names() {
        let names = ["*.example.com", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
        let covered = leaf_params(&names).unwrap().subject_alt_names;
        assert_eq!(covered[0], SanType::DnsName("*.example.com".try_into().unwrap()));
        assert_eq!(
            covered[1..],
            [
                SanType::IpAddress("192.0.2.1".parse().unwrap()),
                SanType::IpAddress("2001:db8::1".parse().unwrap()),
            ]
        );
    }
}
