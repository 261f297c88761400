//! Desired content of the control plane's Secrets, given their current content. Pure except for key generation.

use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use secrecy::{ExposeSecret, SecretString};

use super::certificate::{self, Pair};

/// Annotation: time at which the certificate is renewed.
const RENEW_AFTER: &str = "rota.dev/renew-after";
/// Annotation: names that the certificate covers.
const NAMES: &str = "rota.dev/names";
/// Random bytes of an admin token.
const TOKEN_BYTES: usize = 32;

/// Type, annotations and data of one Secret.
#[derive(Debug)]
pub(crate) struct Content {
    pub type_: &'static str,
    pub annotations: BTreeMap<String, String>,
    pub data: BTreeMap<String, ByteString>,
}

/// Returns the existing authority, or a new one with the content to write. One that is renewed keeps its key, so that pods with
/// the certificate of before trust the control plane until theirs is replaced, and the other way round. To replace the key
/// too, delete the Secret.
pub(crate) fn authority(
    now: SystemTime,
    existing: Option<&Secret>,
) -> Result<(Pair, Option<Content>), rcgen::Error> {
    if let Some(pair) = existing.and_then(|secret| read(secret, "ca.crt", "ca.key", now)) {
        return Ok((pair, None));
    }
    let key = existing.and_then(|secret| text(secret, "ca.key")).map(SecretString::from);
    let pair = certificate::authority(now, key.as_ref())?;
    let data = [("ca.crt", pair.certificate.clone()), ("ca.key", pair.key.expose_secret().to_owned())];
    let content = Content { type_: "Opaque", annotations: annotations(&pair, &[]), data: bytes(data) };
    Ok((pair, Some(content)))
}

/// Returns the authority of a certificate that another controller, or an admin, keeps in a Secret; or what it lacks.
pub(crate) fn foreign_authority(existing: Option<&Secret>) -> Result<String, &'static str> {
    let secret = existing.ok_or("it does not exist")?;
    for key in ["tls.crt", "tls.key"] {
        text(secret, key).filter(|text| !text.is_empty()).ok_or("it has no tls.crt and tls.key")?;
    }
    let authority = text(secret, "ca.crt").filter(|text| text.contains("-----BEGIN CERTIFICATE-----"));
    authority.ok_or("it has no ca.crt with the certificate authority, which workers trust")
}

/// Returns a new server certificate if one is due: the old one expires, covers other names, or was signed by another
/// authority.
pub(crate) fn server(
    now: SystemTime,
    authority: &Pair,
    names: &[String],
    existing: Option<&Secret>,
) -> Result<Option<Content>, rcgen::Error> {
    let valid = existing.is_some_and(|secret| {
        read(secret, "tls.crt", "tls.key", now).is_some()
            && annotation(secret, NAMES) == Some(names.join(",").as_str())
            && text(secret, "ca.crt").as_deref() == Some(authority.certificate.as_str())
    });
    if valid {
        return Ok(None);
    }
    let pair = certificate::leaf(&authority.key, names, now)?;
    let data = [
        ("tls.crt", pair.certificate.clone()),
        ("tls.key", pair.key.expose_secret().to_owned()),
        ("ca.crt", authority.certificate.clone()),
    ];
    let annotations = annotations(&pair, names);
    Ok(Some(Content { type_: "kubernetes.io/tls", annotations, data: bytes(data) }))
}

/// Returns a new admin token if there is none.
pub(crate) fn token(existing: Option<&Secret>, random: [u8; TOKEN_BYTES]) -> Option<Content> {
    let exists = existing.and_then(|secret| text(secret, "token")).is_some_and(|token| token.len() >= 32);
    let data = [("token", hex::encode(random))];
    (!exists).then(|| Content { type_: "Opaque", annotations: BTreeMap::new(), data: bytes(data) })
}

/// Reads a certificate with its key from a Secret, if complete and not yet due for renewal.
fn read(secret: &Secret, certificate: &str, key: &str, now: SystemTime) -> Option<Pair> {
    let renew_after: Timestamp = annotation(secret, RENEW_AFTER)?.parse().ok()?;
    let renew_after = SystemTime::from(renew_after);
    let certificate = text(secret, certificate)?;
    let key: SecretString = text(secret, key)?.into();
    (now < renew_after).then_some(Pair { certificate, key, renew_after })
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

fn annotations(pair: &Pair, names: &[String]) -> BTreeMap<String, String> {
    let renew_after = Timestamp::try_from(pair.renew_after).unwrap_or(Timestamp::MAX);
    let mut annotations = BTreeMap::from([(RENEW_AFTER.to_owned(), renew_after.to_string())]);
    if !names.is_empty() {
        annotations.insert(NAMES.to_owned(), names.join(","));
    }
    annotations
}

fn bytes<const N: usize>(data: [(&str, String); N]) -> BTreeMap<String, ByteString> {
    data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + 20_000 * DAY
    }

    fn secret(content: Content) -> Secret {
        Secret {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                annotations: Some(content.annotations),
                ..Default::default()
            },
            data: Some(content.data),
            ..Default::default()
        }
    }

    fn names(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn valid_material_is_kept() {
        let (pair, content) = authority(now(), None).unwrap();
        let kept = secret(content.unwrap());
        let (again, unchanged) = authority(now() + DAY, Some(&kept)).unwrap();
        assert!(unchanged.is_none());
        assert_eq!(again.certificate, pair.certificate);

        let leaf = secret(server(now(), &pair, &names("rota.a.svc"), None).unwrap().unwrap());
        let later = |when, names: &[String]| server(when, &again, names, Some(&leaf)).unwrap();
        assert!(later(now() + 59 * DAY, &names("rota.a.svc")).is_none());
        assert!(later(now() + 61 * DAY, &names("rota.a.svc")).is_some(), "it is about to expire");
        assert!(later(now(), &names("rota.b.svc")).is_some(), "it covers other names");
    }

    #[test]
    fn renewed_authority_keeps_its_key() {
        let (old, content) = authority(now(), None).unwrap();
        let kept = secret(content.unwrap());
        let later = now() + 3600 * DAY;
        let (new, content) = authority(later, Some(&kept)).unwrap();
        assert!(content.is_some() && new.certificate != old.certificate);
        assert_eq!(new.key.expose_secret(), old.key.expose_secret());
        let mut damaged = kept;
        damaged.data.as_mut().unwrap().insert("ca.key".to_owned(), ByteString(b"no key".to_vec()));
        let (other, _) = authority(later, Some(&damaged)).unwrap();
        assert_ne!(other.key.expose_secret(), old.key.expose_secret());
    }

    #[test]
    fn foreign_certificate_needs_its_authority() {
        let (pair, _) = authority(now(), None).unwrap();
        let complete = secret(server(now(), &pair, &names("x"), None).unwrap().unwrap());
        assert_eq!(foreign_authority(Some(&complete)), Ok(pair.certificate));
        assert!(foreign_authority(None).is_err());
        for key in ["ca.crt", "tls.crt", "tls.key"] {
            let mut part = complete.clone();
            part.data.as_mut().unwrap().insert(key.to_owned(), ByteString(Vec::new()));
            assert!(foreign_authority(Some(&part)).is_err(), "{key}");
        }
    }

    #[test]
    fn new_authority_renews_the_certificate() {
        let (pair, _) = authority(now(), None).unwrap();
        let leaf = secret(server(now(), &pair, &names("x"), None).unwrap().unwrap());
        let (other, _) = authority(now(), None).unwrap();
        assert!(server(now(), &other, &names("x"), Some(&leaf)).unwrap().is_some());
    }

    #[test]
    fn damaged_secrets_are_regenerated() {
        let (_, content) = authority(now(), None).unwrap();
        let mut broken = secret(content.unwrap());
        broken.data.as_mut().unwrap().remove("ca.key");
        assert!(authority(now(), Some(&broken)).unwrap().1.is_some());
        assert!(token(Some(&broken), [7; 32]).is_some());
        let made = secret(token(None, [7; 32]).unwrap());
        assert!(token(Some(&made), [8; 32]).is_none());
    }

    #[test]
    fn debug_output_hides_keys() {
        let (pair, content) = authority(now(), None).unwrap();
        assert!(!format!("{pair:?}").contains("PRIVATE"));
        let _ = content;
    }
}
