//! Contexts: control planes by name, in a file that the command line writes. Unknown keys are errors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::{Error, write_private};
use crate::Token;

/// Bytes of a file of contexts.
const MAX_SIZE: u64 = 1 << 20;
/// Characters of the name of a context.
const MAX_NAME: usize = 63;

/// Contents of the file of contexts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// Name of the context that commands use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Contexts by the names of users.
    #[serde(default, rename = "context", skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<String, ServerContext>,
}

/// A control plane, and how it is called.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerContext {
    /// URL or address of the control plane.
    pub endpoint: String,
    /// PEM file of certificates to trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Namespace of names without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Bearer token. Takes precedence over `token_file`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    pub token: Option<SecretString>,
    /// File with the bearer token. Takes precedence over `login`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Tokens of a person who has signed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
    /// Where people sign in for the control plane: another place needs a new context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
}

/// Client by which people sign in at an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Issuer, as its tokens name it.
    pub issuer: String,
    /// Client that the issuer knows.
    pub client_id: String,
}

/// Tokens of a person, and what renews them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Issuer of the tokens, as they name it.
    pub issuer: String,
    /// PEM file of certificates to trust for the issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_ca: Option<PathBuf>,
    /// Client that the issuer knows.
    pub client_id: String,
    /// Scopes that were asked for.
    pub scopes: Vec<String>,
    /// Time at which the ID token expires, in seconds since 1970.
    pub expires: i64,
    /// Time at which the ID token was received, in seconds since 1970.
    #[serde(default)]
    pub received: i64,
    /// Bearer token of the calls.
    #[serde(serialize_with = "expose_one")]
    pub id_token: SecretString,
    /// Token for the issuer, which renews the others.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    pub refresh_token: Option<SecretString>,
}

fn expose_one<S: Serializer>(token: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    token.expose_secret().serialize(serializer)
}

fn expose<S: Serializer>(token: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    token.as_ref().map(ExposeSecret::expose_secret).serialize(serializer)
}

impl ServerContext {
    pub(super) fn token(&self) -> Option<Token> {
        let fixed = self.token.clone().map(Token::Fixed);
        let kept = fixed.or_else(|| self.token_file.clone().map(Token::File));
        kept.or_else(|| self.login.as_ref().map(|login| Token::Fixed(login.id_token.clone())))
    }
}

impl Contexts {
    /// Reads a file. A missing one has no contexts.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut text = String::new();
        file.take(MAX_SIZE + 1).read_to_string(&mut text).map_err(failed)?;
        let invalid = |message| Error::Config { path: path.to_owned(), message };
        if text.len() as u64 > MAX_SIZE {
            return Err(invalid(format!("more than {MAX_SIZE} bytes")));
        }
        toml::from_str(&text).map_err(|error| invalid(error.to_string()))
    }

    /// Changes a file, which only its owner can access, or leaves it as it is if the change fails. Changes of several
    /// processes happen one after the other.
    pub fn change<T, E: From<Error>>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let failed = |source| Error::Write { path: path.to_owned(), source };
        let _lock = lock(path).map_err(failed)?;
        let mut contexts = Self::read(path)?;
        let changed = change(&mut contexts)?;
        let invalid = |error: toml::ser::Error| failed(std::io::Error::other(error));
        let text = toml::to_string(&contexts).map_err(invalid)?;
        write_private(path, text.as_bytes()).map_err(failed)?;
        Ok(changed)
    }

    /// Returns a context of a file by its name.
    pub fn get(&self, name: &str, path: &Path) -> Result<&ServerContext, Error> {
        let missing = || Error::NoContext { name: name.to_owned(), path: path.to_owned() };
        self.named.get(name).ok_or_else(missing)
    }

    /// Whether a text can be the name of a context.
    pub fn is_name(name: &str) -> bool {
        let fits = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
        (1..=MAX_NAME).contains(&name.len()) && name.chars().all(fits)
    }
}

/// Waits for other processes that change the file, each of which takes as long as writing it. Ends with the returned value.
fn lock(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let lock = File::create(path.with_extension("lock"))?;
    lock.lock()?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn set(path: &Path, name: &str, token: &str) {
        let context = ServerContext {
            endpoint: "https://rota.example".to_owned(),
            token: Some(token.into()),
            ..ServerContext::default()
        };
        Contexts::change(path, |contexts| {
            contexts.named.insert(name.to_owned(), context);
            Ok::<_, Error>(())
        })
        .unwrap();
    }

    #[test]
    fn changes_are_kept_in_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rota/contexts.toml");
        assert!(Contexts::read(&path).unwrap().named.is_empty());
        set(&path, "prod.eu", "hush");
        set(&path, "test", "other");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Contexts::read(&path).unwrap();
        assert_eq!(read.named.keys().collect::<Vec<_>>(), ["prod.eu", "test"]);
        let token = read.get("prod.eu", &path).unwrap().token.as_ref().unwrap();
        assert_eq!(token.expose_secret(), "hush");
        assert!(!format!("{read:?}").contains("hush"));
        let refused = Contexts::change(&path, |contexts| {
            contexts.named.clear();
            Err::<(), _>(Error::NoContext { name: String::new(), path: path.clone() })
        });
        assert!(refused.is_err() && Contexts::read(&path).unwrap().named.len() == 2);
    }

    #[test]
    fn concurrent_changes_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        std::thread::scope(|scope| {
            for at in 0..16 {
                let path = &path;
                scope.spawn(move || set(path, &format!("c{at}"), "t"));
            }
        });
        assert_eq!(Contexts::read(&path).unwrap().named.len(), 16);
    }

    #[test]
    fn unknown_keys_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        for (text, word) in [
            ("endpont = 'x'\n", "endpont"),
            ("[context.x]\nendpont = 'y'\n", "endpont"),
            ("[context.x]\nca = 'y'\n", "endpoint"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Contexts::read(&path).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("contexts.toml"), "{error}");
        }
        std::fs::write(&path, " ".repeat(MAX_SIZE as usize + 1)).unwrap();
        assert!(Contexts::read(&path).unwrap_err().to_string().contains("bytes"));
    }

    #[test]
    fn names_are_words() {
        assert!(Contexts::is_name("prod-1.eu_west"));
        for other in ["", "a b", "a/b", "é", &"x".repeat(64)] {
            assert!(!Contexts::is_name(other), "{other:?}");
        }
    }
}
