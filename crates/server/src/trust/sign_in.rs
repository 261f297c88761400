//! Codes by which a browser signs in with the token of another program: each works once, for a minute, and is only in memory.
//! Knows nothing of pages.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

/// Time within which a code is redeemed.
pub(crate) const LIFETIME: Duration = Duration::from_secs(60);
/// Codes that are kept; a further one replaces the oldest.
const MAX_CODES: usize = 64;

/// Codes that were issued and not yet redeemed, the oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct SignInCodes(Arc<Mutex<VecDeque<Entry>>>);

#[derive(Debug)]
struct Entry {
    /// Digest of the code: comparing digests takes the same time wherever two codes differ.
    digest: [u8; 32],
    token: SecretString,
    expires: Instant,
}

impl SignInCodes {
    /// Returns a code for a token.
    pub(crate) fn issue(&self, token: SecretString) -> String {
        let code = Uuid::new_v4().simple().to_string();
        let mut entries = self.0.lock();
        entries.retain(|entry| entry.expires > Instant::now());
        if entries.len() == MAX_CODES {
            entries.pop_front();
        }
        entries.push_back(Entry { digest: digest(&code), token, expires: Instant::now() + LIFETIME });
        code
    }

    /// Returns the token of a code, and forgets both.
    pub(crate) fn redeem(&self, code: &str) -> Option<SecretString> {
        let digest = digest(code);
        let mut entries = self.0.lock();
        entries.retain(|entry| entry.expires > Instant::now());
        let at = entries.iter().position(|entry| entry.digest == digest)?;
        entries.remove(at).map(|entry| entry.token)
    }
}

fn digest(code: &str) -> [u8; 32] {
    Sha256::digest(code).into()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn codes_work_once_within_a_minute() {
        let codes = SignInCodes::default();
        let first = codes.issue("one".into());
        let second = codes.issue("two".into());
        assert_ne!(first, second);
        assert!(codes.redeem("guess").is_none());
        assert_eq!(codes.redeem(&first).unwrap().expose_secret(), "one");
        assert!(codes.redeem(&first).is_none());
        tokio::time::advance(LIFETIME).await;
        assert!(codes.redeem(&second).is_none());
    }

    #[tokio::test]
    async fn codes_are_bounded() {
        let codes = SignInCodes::default();
        let issued: Vec<_> = (0..=MAX_CODES).map(|_| codes.issue("token".into())).collect();
        assert_eq!(codes.0.lock().len(), MAX_CODES);
        assert!(codes.redeem(&issued[0]).is_none());
        assert!(codes.redeem(&issued[MAX_CODES]).is_some());
    }
}
