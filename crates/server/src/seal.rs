//! Seals secrets for the store: XChaCha20-Poly1305 (RFC 8439, with the extended nonce of
//! draft-irtf-cfrg-xchacha) under a key from a file. The task's id is bound in, so that a sealed
//! secret cannot be moved to another task.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, KeyInit, OsRng, Payload};
use chacha20poly1305::{AeadCore, Key, XChaCha20Poly1305, XNonce};
use rota_core::TaskId;
use zeroize::Zeroizing;

const NONCE_BYTES: usize = 24;

/// Encrypts and decrypts secrets with the server's key.
pub(crate) struct Sealer {
    cipher: XChaCha20Poly1305,
}

/// Failure of the key file, or of a decryption.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to use the key file {path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("failed to decrypt the task's secrets: sealed under another key, or damaged")]
    Sealed,
}

impl Sealer {
    /// Reads the key, or creates one that only this user may read.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File { path: path.display().to_string(), source };
        let mut key = Zeroizing::new([0_u8; 32]);
        match std::fs::File::open(path) {
            Ok(mut file) => file.read_exact(key.as_mut_slice()).map_err(failed)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                key.copy_from_slice(&XChaCha20Poly1305::generate_key(&mut OsRng));
                let mut file = std::fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .map_err(failed)?;
                file.write_all(key.as_slice()).and_then(|()| file.sync_all()).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(Self { cipher: XChaCha20Poly1305::new(Key::from_slice(key.as_slice())) })
    }

    /// Encrypts a task's secrets: nonce, then ciphertext.
    pub(crate) fn seal(&self, id: TaskId, secrets: &BTreeMap<String, String>) -> Result<Bytes, Error> {
        let plain = Zeroizing::new(serde_json::to_vec(secrets).map_err(|_| Error::Sealed)?);
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let payload = Payload { msg: &plain, aad: id.0.as_bytes() };
        let sealed = self.cipher.encrypt(&nonce, payload).map_err(|_| Error::Sealed)?;
        Ok([&nonce[..], &sealed].concat().into())
    }

    /// Decrypts a task's secrets.
    pub(crate) fn open_sealed(&self, id: TaskId, sealed: &[u8]) -> Result<BTreeMap<String, String>, Error> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or(Error::Sealed)?;
        let payload = Payload { msg: sealed, aad: id.0.as_bytes() };
        let plain = self.cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| Error::Sealed)?;
        serde_json::from_slice(&Zeroizing::new(plain)).map_err(|_| Error::Sealed)
    }
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
        let (task, other) = (TaskId(uuid::Uuid::now_v7()), TaskId(uuid::Uuid::now_v7()));
        let secrets = BTreeMap::from([("NAME".to_owned(), "value".to_owned())]);
        let sealed = sealer.seal(task, &secrets).unwrap();
        assert!(!sealed.windows(5).any(|part| part == b"value"));
        assert_eq!(Sealer::open(&path).unwrap().open_sealed(task, &sealed).unwrap(), secrets);
        assert!(sealer.open_sealed(other, &sealed).is_err());
        assert!(Sealer::open(&folder.join("another")).unwrap().open_sealed(task, &sealed).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
