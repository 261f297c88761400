//! A key of sealed secrets: its file, its id, and what is sealed under it.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, KeyInit, OsRng, Payload};
use chacha20poly1305::{AeadCore, Key, XChaCha20Poly1305, XNonce};
use rota_proto::credential;
use zeroize::Zeroizing;

use super::Error;

pub(super) const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// Label of the check value of a key.
const CHECK: &[u8] = b"rota-key-check-1:";
/// Digits of the id of a key.
const ID_DIGITS: usize = 16;

/// Value by which a key is recognized, and from which nothing follows about it.
pub(super) type Check = [u8; KEY_BYTES];

/// Returns the name of a key, for people, from its check value.
pub(super) fn id(check: &[u8]) -> String {
    check.iter().take(ID_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect()
}

pub(super) struct SecretKey {
    cipher: XChaCha20Poly1305,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    check: Check,
}

impl SecretKey {
    /// Reads a key, or creates one that only this user may read, if that is allowed.
    pub(super) fn open(path: &Path, create: bool) -> Result<Self, Error> {
        let failed = |source| Error::File { path: path.display().to_string(), source };
        let key = match std::fs::read(path) {
            Ok(key) => Zeroizing::new(key),
            Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
                let key = Zeroizing::new(XChaCha20Poly1305::generate_key(&mut OsRng).to_vec());
                create_file(path, &key).map_err(failed)?;
                key
            }
            Err(error) => return Err(failed(error)),
        };
        let Ok(bytes) = <&[u8; KEY_BYTES]>::try_from(&key[..]) else {
            return Err(Error::Incomplete { path: path.display().to_string(), bytes: key.len() });
        };
        let check = credential::mac(bytes, &[CHECK]);
        Ok(Self {
            cipher: XChaCha20Poly1305::new(Key::from_slice(bytes)),
            bytes: Zeroizing::new(*bytes),
            check,
        })
    }

    pub(super) fn check(&self) -> &Check {
        &self.check
    }

    pub(super) fn id(&self) -> String {
        id(&self.check)
    }

    /// Returns a key for a purpose, which nothing else has.
    pub(super) fn derive(&self, purpose: &[&[u8]]) -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(credential::mac(&self.bytes[..], purpose))
    }

    /// Encrypts a text: nonce, then ciphertext.
    pub(super) fn encrypt(&self, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, Error> {
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let sealed = self.cipher.encrypt(&nonce, Payload { msg: plain, aad }).map_err(|_| Error::Sealed)?;
        Ok([&nonce[..], &sealed].concat())
    }

    pub(super) fn decrypt(&self, sealed: &[u8], aad: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
        let payload = Payload { msg: sealed, aad };
        self.cipher.decrypt(XNonce::from_slice(nonce), payload).ok().map(Zeroizing::new)
    }
}

/// Creates a key file as a whole or not at all: the store's lock keeps other control planes away, a full disk or a crash
/// leaves no incomplete key.
fn create_file(path: &Path, key: &[u8]) -> io::Result<()> {
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
