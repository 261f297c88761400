//! What opens under which key, and which keys a store accepts.

use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, OsRng, Payload};
use chacha20poly1305::{AeadCore, Key, XChaCha20Poly1305};

use super::*;

fn open(path: &Path) -> Result<Sealer, Error> {
    Sealer::open(&KeyFiles::new(path.to_owned()), None)
}

#[test]
fn secrets_open_only_for_their_task() {
    let folder = std::env::temp_dir().join(format!("rota-seal-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("key");
    let sealer = open(&path).unwrap();
    let (here, there) = (Namespace::new("here").unwrap(), Namespace::new("there").unwrap());
    let (task, other) = (TaskId(uuid::Uuid::now_v7()), TaskId(uuid::Uuid::now_v7()));
    let secrets = BTreeMap::from([("NAME".to_owned(), "value".to_owned())]);
    let sealed = sealer.seal(&here, task, &secrets).unwrap().bytes;
    assert!(!sealed.windows(5).any(|part| part == b"value"));
    assert_eq!(*open(&path).unwrap().open_sealed(&here, task, &sealed).unwrap(), secrets);
    assert!(sealer.open_sealed(&here, other, &sealed).is_err());
    assert!(sealer.open_sealed(&there, task, &sealed).is_err(), "ids are unique within a namespace only");
    assert!(sealer.open_sealed(&here, task, &sealed[VERSION.len()..]).is_err());
    let another = open(&folder.join("another")).unwrap();
    assert!(another.open_sealed(&here, task, &sealed).is_err());
    assert_eq!(open(&path).unwrap().credential_key(&here), sealer.credential_key(&here));
    assert_ne!(sealer.credential_key(&there), sealer.credential_key(&here));
    assert_ne!(another.credential_key(&here), sealer.credential_key(&here));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn secrets_of_the_first_form_still_open() {
    let folder = std::env::temp_dir().join(format!("rota-seal-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&folder).unwrap();
    let sealer = open(&folder.join("key")).unwrap();
    let (task, other) = (TaskId(uuid::Uuid::now_v7()), TaskId(uuid::Uuid::now_v7()));
    let cipher = XChaCha20Poly1305::new(Key::from_slice(&std::fs::read(folder.join("key")).unwrap()));
    let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
    let payload = Payload { msg: br#"{"NAME":"value"}"#, aad: task.0.as_bytes() };
    let sealed = [&nonce[..], &cipher.encrypt(&nonce, payload).unwrap()].concat();
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
    let error = open(&path).err().unwrap();
    assert!(matches!(&error, Error::File { source, .. } if source.kind() == io::ErrorKind::StorageFull));
    assert!(error.hint().contains("disk has space"));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    // With space again, the next start creates a key, which only its owner may read.
    drop(open(&path).unwrap());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!(
        (meta.len(), std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777),
        (32, 0o600)
    );
    // What earlier versions left after a full disk.
    std::fs::write(&path, "").unwrap();
    let error = open(&path).err().unwrap();
    assert!(error.to_string().contains("has 0 bytes") && error.hint().contains("delete it"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}

/// A pair of keys in a folder, and a task.
struct Pair {
    folder: tempfile::TempDir,
    namespace: Namespace,
    task: TaskId,
    secrets: BTreeMap<String, String>,
}

impl Pair {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, byte) in [("old", 1), ("new", 2), ("third", 3)] {
            std::fs::write(folder.path().join(name), [byte; KEY_BYTES]).unwrap();
        }
        let (namespace, task) = (Namespace::default(), TaskId(uuid::Uuid::now_v7()));
        Self { folder, namespace, task, secrets: BTreeMap::from([("NAME".into(), "value".into())]) }
    }

    fn files(&self, file: &str, next: Option<&str>) -> KeyFiles {
        let next = next.map(|name| self.folder.path().join(name));
        KeyFiles { next, ..KeyFiles::new(self.folder.path().join(file)) }
    }

    fn opens(&self, sealer: &Sealer, sealed: &[u8]) -> bool {
        sealer.open_sealed(&self.namespace, self.task, sealed).is_ok_and(|found| *found == self.secrets)
    }
}

#[tokio::test]
async fn both_keys_open_while_they_are_rotated() {
    let pair = Pair::new();
    let sealer = Sealer::open(&pair.files("old", Some("new")), None).unwrap();
    let seal = || sealer.seal(&pair.namespace, pair.task, &pair.secrets).unwrap();
    let (token, before) = (sealer.seal_worker_token(b"token").unwrap(), seal());
    let hashes = sealer.credential_key(&pair.namespace);
    let next = sealer.target(&sealer.stored()).unwrap();
    sealer.switch(&next);
    assert_eq!(sealer.stored().current, next.current);
    assert!(pair.opens(&sealer, &before.bytes));
    assert_eq!(sealer.open_worker_token(&token).as_deref(), Some(&b"token"[..]));
    assert_eq!(sealer.credential_key(&pair.namespace), hashes);
    // What was sealed before is awaited.
    assert!(!sealer.committed(Duration::from_millis(20)).await);
    let sealed = before.bytes.clone();
    drop(before);
    assert!(sealer.committed(Duration::from_secs(60)).await);
    let resealed = sealer.reseal(&pair.namespace, pair.task, &sealed).unwrap().unwrap().bytes;
    assert!(sealer.reseal(&pair.namespace, pair.task, &resealed).unwrap().is_none());
    assert!(sealer.reseal(&pair.namespace, TaskId(uuid::Uuid::now_v7()), &sealed).is_err());
    let alone = Sealer::open(&pair.files("new", None), None).unwrap();
    assert!(
        pair.opens(&alone, &resealed) && pair.opens(&alone, &seal().bytes) && !pair.opens(&alone, &sealed)
    );
}

#[test]
fn interrupted_rotation_never_runs_backwards() {
    let pair = Pair::new();
    let key = |name| Sealer::open(&pair.files(name, None), None).unwrap().stored().current;
    let (old, new) = (key("old"), key("new"));
    let before = StoredKeys { current: old.clone(), previous: Vec::new() };
    let during = StoredKeys { current: new, previous: old };
    for (file, next) in [("old", "new"), ("new", "old")] {
        let sealer = Sealer::open(&pair.files(file, Some(next)), Some(&during)).unwrap();
        assert_eq!(sealer.target(&during).as_ref(), Some(&during), "{file} {next}");
    }
    let sealer = Sealer::open(&pair.files("old", Some("new")), Some(&before)).unwrap();
    assert_eq!(sealer.target(&before), Some(during));
}

#[test]
fn unnamed_keys_are_refused() {
    let pair = Pair::new();
    let key = |name| Sealer::open(&pair.files(name, None), None).unwrap().stored().current;
    let (old, new) = (key("old"), key("new"));
    let named =
        |current: &[u8], previous: &[u8]| StoredKeys { current: current.into(), previous: previous.into() };
    let opens = |file, next, stored: &StoredKeys| Sealer::open(&pair.files(file, next), Some(stored)).is_ok();
    let (before, during, after) = (named(&old, b""), named(&new, &old), named(&new, b""));
    for (file, next, accepted) in [
        ("old", None, [true, false, false]),
        ("old", Some("new"), [true, true, true]),
        ("new", Some("old"), [true, true, true]),
        ("new", None, [false, false, true]),
        ("third", None, [false, false, false]),
        ("new", Some("third"), [false, false, true]),
    ] {
        let found = [&before, &during, &after].map(|stored| opens(file, next, stored));
        assert_eq!(found, accepted, "{file} {next:?}");
    }
    let error = Sealer::open(&pair.files("third", None), Some(&before)).err().unwrap();
    assert!(error.to_string().contains(&before.current_id()), "{error}");
    // A key that is missing is not made for a store that names one.
    let absent = pair.files("absent", None);
    let error = Sealer::open(&absent, Some(&before)).err().unwrap();
    assert!(matches!(error, Error::MissingKey { .. }) && !absent.file.exists(), "{error}");
    assert!(Sealer::open(&KeyFiles { replace_lost: true, ..absent }, Some(&before)).is_ok());
    let same = Sealer::open(&pair.files("old", Some("old")), None).err().unwrap();
    assert!(matches!(same, Error::SameKey(_)));
}
