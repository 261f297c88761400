//! Signatures of webhooks as <https://www.standardwebhooks.com> specifies them: HMAC-SHA256 over id, time and body.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

const PREFIX: &str = "whsec_";

/// Keys of a receiver: several while one replaces another.
#[derive(Debug)]
pub(super) struct Keys(Vec<SecretSlice<u8>>);

impl Keys {
    /// Reads keys, one in each line.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let key = |line: &str| {
            let encoded = line.strip_prefix(PREFIX).ok_or("has a line that does not begin with whsec_")?;
            let key = BASE64_STANDARD.decode(encoded).map_err(|_| "has a key that is not base64")?;
            if !(24..=64).contains(&key.len()) {
                return Err("has a key of less than 24 or more than 64 bytes");
            }
            Ok(SecretSlice::from(key))
        };
        let keys = lines.map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err("is empty") } else { Ok(Self(keys)) }
    }

    /// Returns the value of the header `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let one = |key: &SecretSlice<u8>| {
            // Keys of every length are valid.
            let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).ok()?;
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            Some(format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
        };
        self.0.iter().filter_map(one).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn signature_is_that_of_the_specification() {
        let keys = Keys::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signed = keys.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(!format!("{keys:?}").contains("77"));
    }

    #[test]
    fn weak_keys_are_refused() {
        for weak in ["", "\n", "password", "whsec_c2hvcnQ=", "whsec_!"] {
            assert!(Keys::parse(weak).is_err(), "{weak}");
        }
        let two = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\nwhsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx\n";
        assert_eq!(Keys::parse(two).unwrap().sign("a", 1, b"").split(' ').count(), 2);
    }
}
