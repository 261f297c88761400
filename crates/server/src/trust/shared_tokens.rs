//! Tokens that several people share: the admin's and that of viewers. Only their digests are kept. Knows no files.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::roles::Role;

/// Digests of the tokens that are valid now: comparing digests takes the same time wherever two tokens differ.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedTokens(Arc<watch::Sender<Digests>>);

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Digests {
    pub(super) admin: Option<[u8; 32]>,
    pub(super) viewer: Option<[u8; 32]>,
}

impl SharedTokens {
    pub(super) fn get(&self) -> Digests {
        *self.0.borrow()
    }

    pub(super) fn set(&self, digests: Digests) {
        self.0.send_replace(digests);
    }

    /// Returns what reports that tokens were replaced.
    pub(super) fn changes(&self) -> watch::Receiver<Digests> {
        self.0.subscribe()
    }

    /// Returns the role of the holders of a token.
    pub(crate) fn role_of(&self, token: &[u8]) -> Option<Role> {
        let (known, digest) = (self.get(), Some(digest(token)));
        if known.admin == digest {
            return Some(Role::Admin);
        }
        (known.viewer == digest).then_some(Role::Viewer)
    }

    /// Returns a mark of the token of a role, which changes with the token and from which that cannot be guessed more easily than
    /// from its digest.
    pub(super) fn mark(&self, role: Role) -> Option<[u8; 32]> {
        let known = self.get();
        let digest = if role == Role::Viewer { known.viewer } else { known.admin };
        digest.map(|digest| self::digest(&[b"rota browser session".as_slice(), &digest].concat()))
    }
}

pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
