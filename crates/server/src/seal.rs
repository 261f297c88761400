//! Seals secrets for the store: XChaCha20-Poly1305 (RFC 8439, with the extended nonce of
//! draft-irtf-cfrg-xchacha) under a key from a file. The task's namespace and id are bound in, so that a sealed
//! secret cannot be moved to another task.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, KeyInit, OsRng, Payload};
use chacha20poly1305::{AeadCore, Key, XChaCha20Poly1305, XNonce};
use rota_core::{Namespace, TaskId};
use rota_proto::credential;
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// Start of sealed secrets of the second form, too long to be the start of a nonce by chance.
const VERSION: &[u8] = b"rota-sealed-2:";
/// Label of the keys of hashes of credentials.
const CREDENTIALS: &[u8] = b"rota-credentials-1:";
/// Associated data of worker tokens: neither a token nor a task's secrets open as the other.
const WORKER_TOKEN: &[u8] = b"rota-worker-token-1";

/// Encrypts and decrypts secrets with the server's key.
pub(crate) struct Sealer {
    cipher: XChaCha20Poly1305,
    key: Zeroizing<[u8; KEY_BYTES]>,
}

/// Failure of the key file, or of a decryption.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to use the key file {path}: {source}")]
    File { path: String, source: io::Error },
    #[error("the key file {path} has {bytes} bytes instead of {KEY_BYTES}")]
    Incomplete { path: String, bytes: usize },
    #[error("failed to decrypt the task's secrets: sealed under another key, or damaged")]
    Sealed,
}

impl Error {
    /// How to resolve the failure.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } => {
                "check that its directory exists and is writable, that the file is readable, and that the disk has space"
            }
            Self::Incomplete { .. } => {
                "restore it from a backup; without one, delete it: the next start creates another key, and tasks that \
                 have secrets and wait for a worker fail"
            }
            Self::Sealed => "create the task again with its secrets, and keep the server's key file",
        }
    }
}

impl Sealer {
    /// Reads the key, or creates one that only this user may read.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File { path: path.display().to_string(), source };
        let key = match std::fs::read(path) {
            Ok(key) => Zeroizing::new(key),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Zeroizing::new(XChaCha20Poly1305::generate_key(&mut OsRng).to_vec());
                create(path, &key).map_err(failed)?;
                key
            }
            Err(error) => return Err(failed(error)),
        };
        let Ok(key) = <&[u8; KEY_BYTES]>::try_from(&key[..]) else {
            return Err(Error::Incomplete { path: path.display().to_string(), bytes: key.len() });
        };
        Ok(Self { cipher: XChaCha20Poly1305::new(Key::from_slice(key)), key: Zeroizing::new(*key) })
    }

    /// Returns the key of the hashes of a namespace's credentials: the same as long as the key file is.
    pub(crate) fn credential_key(&self, namespace: &Namespace) -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(credential::mac(&self.key[..], &[CREDENTIALS, namespace.as_str().as_bytes()]))
    }

    /// Encrypts a task's secrets: version, nonce, then ciphertext.
    pub(crate) fn seal(
        &self,
        namespace: &Namespace,
        id: TaskId,
        secrets: &BTreeMap<String, String>,
    ) -> Result<Bytes, Error> {
        let plain = Zeroizing::new(serde_json::to_vec(secrets).map_err(|_| Error::Sealed)?);
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let payload = Payload { msg: &plain, aad: &associated_data(namespace, id) };
        let sealed = self.cipher.encrypt(&nonce, payload).map_err(|_| Error::Sealed)?;
        Ok([VERSION, &nonce[..], &sealed].concat().into())
    }

    /// Decrypts a task's secrets, which were sealed for it.
    pub(crate) fn open_sealed(
        &self,
        namespace: &Namespace,
        id: TaskId,
        sealed: &[u8],
    ) -> Result<BTreeMap<String, String>, Error> {
        match sealed.strip_prefix(VERSION) {
            Some(sealed) => self.decrypt(&associated_data(namespace, id), sealed),
            // The first form, which bound in only the id: a sealed secret of the second never opens as one of these.
            None => self.decrypt(id.0.as_bytes(), sealed),
        }
    }

    /// Seals the content of a worker token.
    pub(crate) fn seal_worker_token(&self, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let payload = Payload { msg: plain, aad: WORKER_TOKEN };
        let sealed = self.cipher.encrypt(&nonce, payload).map_err(|_| Error::Sealed)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Returns the content of a worker token, if this control plane sealed it.
    pub(crate) fn open_worker_token(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
        let payload = Payload { msg: sealed, aad: WORKER_TOKEN };
        self.cipher.decrypt(XNonce::from_slice(nonce), payload).ok()
    }

    fn decrypt(&self, aad: &[u8], sealed: &[u8]) -> Result<BTreeMap<String, String>, Error> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or(Error::Sealed)?;
        let payload = Payload { msg: sealed, aad };
        let plain = self.cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| Error::Sealed)?;
        serde_json::from_slice(&Zeroizing::new(plain)).map_err(|_| Error::Sealed)
    }
}

/// Creates a key file as a whole or not at all: the store's lock keeps other control planes away, a full disk or a crash
/// leaves no incomplete key.
fn create(path: &Path, key: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(key)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        std::fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    };
    let written = write();
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

/// Returns what the ciphertext is bound to. Unambiguous: the id has a fixed size.
fn associated_data(namespace: &Namespace, id: TaskId) -> Vec<u8> {
    [VERSION, namespace.as_str().as_bytes(), id.0.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_open_only_for_their_task() {
        let folder = std::env::temp_dir().join(format!("rota-seal-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("key");
        let sealer = Sealer::open(&path).unwrap();
        let (here, there) = (Namespace::new("here").unwrap(), Namespace::new("there").unwrap());
        let (task, other) = (TaskId(uuid::Uuid::now_v7()), TaskId(uuid::Uuid::now_v7()));
        let secrets = BTreeMap::from([("NAME".to_owned(), "value".to_owned())]);
        let sealed = sealer.seal(&here, task, &secrets).unwrap();
        assert!(!sealed.windows(5).any(|part| part == b"value"));
        assert_eq!(Sealer::open(&path).unwrap().open_sealed(&here, task, &sealed).unwrap(), secrets);
        assert!(sealer.open_sealed(&here, other, &sealed).is_err());
        assert!(sealer.open_sealed(&there, task, &sealed).is_err(), "ids are unique within a namespace only");
        assert!(sealer.open_sealed(&here, task, &sealed[VERSION.len()..]).is_err());
        let another = Sealer::open(&folder.join("another")).unwrap();
        assert!(another.open_sealed(&here, task, &sealed).is_err());
        assert_eq!(Sealer::open(&path).unwrap().credential_key(&here), sealer.credential_key(&here));
        assert_ne!(sealer.credential_key(&there), sealer.credential_key(&here));
        assert_ne!(another.credential_key(&here), sealer.credential_key(&here));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn secrets_of_the_first_form_still_open() {
        let folder = std::env::temp_dir().join(format!("rota-seal-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        let sealer = Sealer::open(&folder.join("key")).unwrap();
        let (task, other) = (TaskId(uuid::Uuid::now_v7()), TaskId(uuid::Uuid::now_v7()));
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let payload = Payload { msg: br#"{"NAME":"value"}"#, aad: task.0.as_bytes() };
        let sealed = [&nonce[..], &sealer.cipher.encrypt(&nonce, payload).unwrap()].concat();
        let namespace = Namespace::new("n").unwrap();
        assert_eq!(sealer.open_sealed(&namespace, task, &sealed).unwrap()["NAME"], "value");
        assert!(sealer.open_sealed(&namespace, other, &sealed).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn full_disk_leaves_no_incomplete_key() {
        let folder = std::env::temp_dir().join(format!("rota-seal-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("key");
        std::os::unix::fs::symlink("/dev/full", folder.join("key.new")).unwrap();
        let error = Sealer::open(&path).err().unwrap();
        assert!(matches!(&error, Error::File { source, .. } if source.kind() == io::ErrorKind::StorageFull));
        assert!(error.hint().contains("disk has space"));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        // With space again, the next start creates a key, which only its owner may read.
        drop(Sealer::open(&path).unwrap());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!(
            (meta.len(), std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777),
            (32, 0o600)
        );
        // What earlier versions left after a full disk.
        std::fs::write(&path, "").unwrap();
        let error = Sealer::open(&path).err().unwrap();
        assert!(error.to_string().contains("has 0 bytes") && error.hint().contains("delete it"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
