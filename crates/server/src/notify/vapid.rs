//! The key by which push services recognize a control plane, and its signatures (VAPID, RFC 8292). It follows from the key of the
//! store's secrets, so that it is nowhere stored, and that all replicas have it.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rota_core::Timestamp;
use serde::Serialize;
use url::Url;
use web_push_native::p256::SecretKey;
use web_push_native::p256::elliptic_curve::sec1::ToEncodedPoint;
use web_push_native::p256::pkcs8::EncodePrivateKey;

use crate::seal::Sealer;

/// Validity of a signature; push services accept a day at most.
const VALIDITY: Duration = Duration::from_secs(12 * 3600);

pub(super) struct Vapid {
    key: EncodingKey,
    public: Vec<u8>,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: String,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
}

impl Vapid {
    pub(super) fn new(sealer: &Sealer) -> Option<Self> {
        // Not all numbers are keys, but nearly all.
        let secret =
            (0..=u8::MAX).find_map(|at| SecretKey::from_slice(&sealer.web_push_seed(at)[..]).ok())?;
        let key = EncodingKey::from_ec_der(secret.to_pkcs8_der().ok()?.as_bytes());
        let public = secret.public_key().to_encoded_point(false).as_bytes().to_vec();
        Some(Self { key, public })
    }

    /// Returns the public key, as a point without compression.
    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }

    /// Returns the header by which a push service recognizes this control plane. Its operators reach those of the control plane at
    /// `contact`.
    pub(super) fn authorization(
        &self,
        service: &Url,
        contact: Option<&str>,
        now: Timestamp,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let aud = service.origin().ascii_serialization();
        let exp = (now + VALIDITY).0.div_euclid(1_000_000);
        let claims = Claims { aud, exp, sub: contact };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key)?;
        Ok(format!("vapid t={token}, k={}", BASE64_URL_SAFE_NO_PAD.encode(&self.public)))
    }
}
