//! Seals secrets for the store: XChaCha20-Poly1305 (RFC 8439, with the extended nonce of
//! draft-irtf-cfrg-xchacha) under a key from a file. The task's namespace and id are bound in, so that a sealed
//! secret cannot be moved to another task.
//!
//! Which key that is, is a document of the store (`seal/stored.rs`): a control plane with another one does not start. While keys are
//! rotated there are two: what is new is sealed under the one that the document names, and both open.

mod key;
mod secrets;
mod stored;

use std::collections::{BTreeMap, HashMap};
use std::io;
#[cfg(test)]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rota_core::{Namespace, TaskId};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use zeroize::Zeroizing;

use self::key::{Check, KEY_BYTES, SecretKey};
pub(crate) use self::secrets::Secrets;
pub use self::stored::key_document;
pub(crate) use self::stored::{StoredKeys, open};

/// Start of sealed secrets of the second form, too long to be the start of a nonce by chance.
const VERSION: &[u8] = b"rota-sealed-2:";
/// Label of the keys of hashes of credentials.
const CREDENTIALS: &[u8] = b"rota-credentials-1:";
/// Keys of hashes of credentials that are kept: those of more namespaces are derived again.
const MAX_CREDENTIAL_KEYS: usize = 1024;
/// Associated data of worker tokens: neither a token nor a task's secrets open as the other.
const WORKER_TOKEN: &[u8] = b"rota-worker-token-1";
const SIGN_IN: &[u8] = b"rota sign-in";
/// Label of the key of push messages.
const WEB_PUSH: &[u8] = b"rota-web-push-1:";

/// Files of the keys that encrypt secrets.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    /// Created if it is missing, for a store that has no key yet.
    pub file: PathBuf,
    /// Key that the secrets are to be sealed under from a rotation on.
    pub next: Option<PathBuf>,
    /// Whether the key of `file` takes the place of one that the store names, and that is lost.
    pub replace_lost: bool,
}

impl KeyFiles {
    pub fn new(file: PathBuf) -> Self {
        Self { file, next: None, replace_lost: false }
    }
}

/// Encrypts and decrypts secrets with the server's keys.
pub(crate) struct Sealer {
    /// Key of the hashes of credentials, which stay as they are until the next start.
    root: Arc<SecretKey>,
    /// Check values of the keys in their files.
    files: (Check, Option<Check>),
    ring: RwLock<Ring>,
    /// Derived keys: each assignment carries one.
    credential_keys: Mutex<HashMap<Namespace, Zeroizing<[u8; KEY_BYTES]>>>,
}

struct Ring {
    current: Arc<SecretKey>,
    other: Option<Arc<SecretKey>>,
    /// What was sealed under the current key, and is not committed yet.
    uncommitted: TaskTracker,
    /// The same of the other key.
    outdated: Option<TaskTracker>,
}

/// Sealed secrets of a task.
pub(crate) struct Sealed {
    pub(crate) bytes: Bytes,
    /// Held until they are committed, or not: a rotation waits for that.
    pub(crate) uncommitted: TaskTrackerToken,
}

/// Failure of a key file, or of a decryption.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to use the key file {path}: {source}")]
    File { path: String, source: io::Error },
    #[error("the key file {path} has {bytes} bytes instead of {KEY_BYTES}")]
    Incomplete { path: String, bytes: usize },
    #[error("key_file and next_key_file contain the same key {0}")]
    SameKey(String),
    #[error(
        "the secrets in the store are sealed under the key {stored}, and this control plane has the key {given}"
    )]
    WrongKey { stored: String, given: String },
    #[error("the secrets in the store are sealed under the key {stored}, and the key file {path} is missing")]
    MissingKey { stored: String, path: String },
    #[error("the record of the key of the store's secrets cannot be decoded")]
    Undecodable,
    #[error("failed to decrypt the task's secrets: sealed under another key, or damaged")]
    Sealed,
}

impl Error {
    /// How to resolve the failure.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } => {
                "check that its directory exists and is writable, that the file is readable, and that the disk has space"
            }
            Self::Incomplete { .. } => {
                "restore it from a backup; without one, delete it and start with --replace-lost-key: tasks that have secrets and \
                 wait for a worker fail"
            }
            Self::SameKey(_) => "make another key with `head -c 32 /dev/urandom`",
            Self::WrongKey { .. } | Self::MissingKey { .. } => {
                "set --key-file to the file with that key; if a rotation was interrupted, set --key-file and --next-key-file to the \
                 two keys, and repeat it; if the key is lost, start once with --replace-lost-key, and tasks that have secrets and wait for a worker fail"
            }
            Self::Undecodable => "run the version of Rota that wrote it, or a later one",
            Self::Sealed => "create the task again with its secrets, and keep the server's key file",
        }
    }
}

impl Sealer {
    /// Reads the keys for a store that names this one; creates the first one if the store names none.
    pub(crate) fn open(files: &KeyFiles, stored: Option<&StoredKeys>) -> Result<Self, Error> {
        let create = stored.is_none() || files.replace_lost;
        let first = match SecretKey::open(&files.file, create) {
            Err(Error::File { path, source }) if source.kind() == io::ErrorKind::NotFound => {
                let id = stored.map(StoredKeys::current_id);
                return Err(id.map_or(Error::File { path: path.clone(), source }, |stored| {
                    Error::MissingKey { stored, path }
                }));
            }
            opened => Arc::new(opened?),
        };
        let next = files.next.as_deref().map(|path| SecretKey::open(path, false)).transpose()?.map(Arc::new);
        if next.as_ref().is_some_and(|next| next.check() == first.check()) {
            return Err(Error::SameKey(first.id()));
        }
        let checks = (*first.check(), next.as_ref().map(|next| *next.check()));
        let (current, other) = match (stored, next) {
            (Some(stored), Some(next)) if stored.names(&next) => (next, Some(first)),
            (_, next) => (first, next),
        };
        let ring =
            Ring { current: Arc::clone(&current), other, uncommitted: TaskTracker::new(), outdated: None };
        let sealer =
            Self { root: current, files: checks, ring: RwLock::new(ring), credential_keys: Mutex::default() };
        if let Some(stored) = stored.filter(|_| !files.replace_lost) {
            sealer.check(stored)?;
        }
        Ok(sealer)
    }

    /// Fails if a key is missing that secrets in the store are sealed under.
    fn check(&self, stored: &StoredKeys) -> Result<(), Error> {
        let ring = self.ring.read();
        let has = |check: &[u8]| {
            let mut keys = std::iter::once(&ring.current).chain(&ring.other);
            keys.any(|key| key.check()[..] == *check)
        };
        let missing = |check: &[u8]| {
            let given: Vec<_> =
                std::iter::once(&ring.current).chain(&ring.other).map(|key| key.id()).collect();
            Err(Error::WrongKey { stored: key::id(check), given: given.join(" and ") })
        };
        if !stored.names(&ring.current) {
            return missing(&stored.current);
        }
        if !stored.previous.is_empty() && !has(&stored.previous) {
            return missing(&stored.previous);
        }
        Ok(())
    }

    /// Returns the record of the keys, as the store is to have it.
    pub(crate) fn stored(&self) -> StoredKeys {
        StoredKeys { current: self.ring.read().current.check().to_vec(), previous: Vec::new() }
    }

    /// Seals from now on under the other key, if it is the one that this record names.
    pub(crate) fn switch(&self, stored: &StoredKeys) {
        let mut ring = self.ring.write();
        let Some(next) = ring.other.clone().filter(|other| stored.names(other)) else { return };
        let outdated = std::mem::take(&mut ring.uncommitted);
        outdated.close();
        ring.outdated = Some(outdated);
        ring.other = Some(std::mem::replace(&mut ring.current, next));
    }

    /// Returns the record of the keys that a rotation leads to; `None` if there is no next one. One that was interrupted leads
    /// to the key that it had begun with, in whichever files the two keys are now.
    pub(crate) fn target(&self, stored: &StoredKeys) -> Option<StoredKeys> {
        if !stored.previous.is_empty() {
            return Some(stored.clone());
        }
        let (first, next) = &self.files;
        Some(StoredKeys { current: next.as_ref()?.to_vec(), previous: first.to_vec() })
    }

    /// Waits until what was sealed before the last switch is committed, or not. Returns whether that took no longer than `limit`.
    pub(crate) async fn committed(&self, limit: Duration) -> bool {
        let outdated = self.ring.read().outdated.clone();
        match outdated {
            Some(outdated) => tokio::time::timeout(limit, outdated.wait()).await.is_ok(),
            None => true,
        }
    }

    /// Returns the key of the hashes of a namespace's credentials: the same as long as the key file is.
    pub(crate) fn credential_key(&self, namespace: &Namespace) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut known = self.credential_keys.lock();
        if let Some(key) = known.get(namespace) {
            return key.clone();
        }
        let key = self.root.derive(&[CREDENTIALS, namespace.as_str().as_bytes()]);
        if known.len() >= MAX_CREDENTIAL_KEYS {
            known.clear();
        }
        known.insert(namespace.clone(), key.clone());
        key
    }

    /// Returns the numbers that may be the key of push messages, the first that is a key: the same as long as the key file is.
    pub(crate) fn web_push_seed(&self, at: u8) -> Zeroizing<[u8; KEY_BYTES]> {
        self.root.derive(&[WEB_PUSH, &[at]])
    }

    /// Encrypts a task's secrets: version, nonce, then ciphertext.
    pub(crate) fn seal(
        &self,
        namespace: &Namespace,
        id: TaskId,
        secrets: &BTreeMap<String, String>,
    ) -> Result<Sealed, Error> {
        let plain = Zeroizing::new(serde_json::to_vec(secrets).map_err(|_| Error::Sealed)?);
        self.seal_plain(namespace, id, &plain)
    }

    fn seal_plain(&self, namespace: &Namespace, id: TaskId, plain: &[u8]) -> Result<Sealed, Error> {
        let ring = self.ring.read();
        let sealed = ring.current.encrypt(plain, &associated_data(namespace, id))?;
        let bytes = Bytes::from([VERSION, &sealed].concat());
        Ok(Sealed { bytes, uncommitted: ring.uncommitted.token() })
    }

    /// Decrypts a task's secrets, which were sealed for it.
    pub(crate) fn open_sealed(
        &self,
        namespace: &Namespace,
        id: TaskId,
        sealed: &[u8],
    ) -> Result<Secrets, Error> {
        let (plain, _) = self.open_plain(namespace, id, sealed).ok_or(Error::Sealed)?;
        let secrets: BTreeMap<_, _> = serde_json::from_slice(&plain).map_err(|_| Error::Sealed)?;
        Ok(Secrets::from(secrets))
    }

    /// Decrypts, and returns whether the current key has sealed.
    fn open_plain(
        &self,
        namespace: &Namespace,
        id: TaskId,
        sealed: &[u8],
    ) -> Option<(Zeroizing<Vec<u8>>, bool)> {
        let (aad, sealed) = match sealed.strip_prefix(VERSION) {
            Some(sealed) => (associated_data(namespace, id), sealed),
            // The first form, which bound in only the id: a sealed secret of the second never opens as one of these.
            None => (id.0.as_bytes().to_vec(), sealed),
        };
        self.decrypt(sealed, &aad)
    }

    fn decrypt(&self, sealed: &[u8], aad: &[u8]) -> Option<(Zeroizing<Vec<u8>>, bool)> {
        let ring = self.ring.read();
        let current = ring.current.decrypt(sealed, aad).map(|plain| (plain, true));
        current.or_else(|| ring.other.as_ref()?.decrypt(sealed, aad).map(|plain| (plain, false)))
    }

    /// Seals secrets under the current key. Returns `None` if they are, and an error if no key opens them.
    pub(crate) fn reseal(
        &self,
        namespace: &Namespace,
        id: TaskId,
        sealed: &[u8],
    ) -> Result<Option<Sealed>, Error> {
        match self.open_plain(namespace, id, sealed) {
            Some((_, true)) => Ok(None),
            Some((plain, false)) => self.seal_plain(namespace, id, &plain).map(Some),
            None => Err(Error::Sealed),
        }
    }

    /// Seals what belongs to the sign-in of a browser.
    pub(crate) fn seal_sign_in(&self, plain: &[u8]) -> Result<Vec<u8>, Error> {
        self.ring.read().current.encrypt(plain, SIGN_IN)
    }

    /// Returns what belongs to the sign-in of a browser, if this control plane sealed it.
    pub(crate) fn open_sign_in(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        self.decrypt(sealed, SIGN_IN).map(|(plain, _)| plain.to_vec())
    }

    /// Seals the content of a worker token.
    pub(crate) fn seal_worker_token(&self, plain: &[u8]) -> Result<Vec<u8>, Error> {
        self.ring.read().current.encrypt(plain, WORKER_TOKEN)
    }

    /// Returns the content of a worker token, if this control plane sealed it.
    pub(crate) fn open_worker_token(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        self.decrypt(sealed, WORKER_TOKEN).map(|(plain, _)| plain.to_vec())
    }
}

/// Returns a sealer for tests, with the key of a file.
#[cfg(test)]
pub(crate) fn of_file(path: &Path) -> Sealer {
    Sealer::open(&KeyFiles::new(path.to_owned()), None).unwrap()
}

/// Returns what the ciphertext is bound to. Unambiguous: the id has a fixed size.
fn associated_data(namespace: &Namespace, id: TaskId) -> Vec<u8> {
    [VERSION, namespace.as_str().as_bytes(), id.0.as_bytes()].concat()
}

#[cfg(test)]
mod tests;
