//! Credentials of a repository: the value of a secret, read again for every call of git, since tokens are rotated while
//! attempts run. Programs of the attempt get neither the value nor a way to use it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rota_forge::{AppKey, AppTokens, TokenSource};
use rota_telemetry::redact::Redactor;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::checks;
use crate::supervise::Environment;

/// User of a token that names none. The forges that check it want this one.
const TOKEN_USER: &str = "x-access-token";
/// What begins a private key of SSH.
const KEY_BEGINS: &str = "-----BEGIN";
/// Prints the credentials that the environment has, if git asks for some.
const HELPER: &str = r#"!f() { test "$1" = get && printf 'username=%s\npassword=%s\n' "$ROTA_GIT_USER" "$ROTA_GIT_PASSWORD"; }; f"#;

/// Credentials of a repository, or of its forge's API.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    place: Place,
    app: Arc<Mutex<Option<OfApp>>>,
}

/// Tokens of an app, and the digest of the secret with its key.
type OfApp = (String, Arc<AppTokens>);

/// Place where credentials are kept.
#[derive(Debug, Clone)]
enum Place {
    /// A file of the agent's secrets, which is replaced when they are rotated.
    File(PathBuf),
    /// A secret of the task.
    Value(SecretString),
}

/// Settings of one call of git.
#[derive(Debug, Default)]
pub(super) struct Access {
    /// Variables, and settings by name.
    pub(super) environment: Environment,
    pub(super) settings: Vec<(String, String)>,
    /// File with a private key.
    pub(super) key: Option<PathBuf>,
}

impl Credential {
    pub(crate) fn file(path: PathBuf) -> Self {
        Self { place: Place::File(path), app: Arc::default() }
    }

    pub(crate) fn value(value: SecretString) -> Self {
        Self { place: Place::Value(value), app: Arc::default() }
    }

    /// Returns the value of one that came with the task.
    pub(crate) fn given(&self) -> Option<&SecretString> {
        match &self.place {
            Place::Value(value) => Some(value),
            Place::File(_) => None,
        }
    }

    /// Whether it is one of the agent's secrets, not of the task.
    pub(super) fn is_of_agent(&self) -> bool {
        self.given().is_none()
    }

    /// Returns what a call uses: the value, or a token that the key of an app makes. After one was `refused`, another. The redactor
    /// learns it.
    pub(super) async fn current(
        &self,
        url: &str,
        refused: bool,
        redactor: &Redactor,
    ) -> Result<SecretString, rota_forge::Error> {
        let value = self.made(url, refused).await?;
        let text = value.expose_secret().trim();
        redactor.learn(text);
        if let Some((_, password)) = text.split_once(':').filter(|_| !text.starts_with(KEY_BEGINS)) {
            redactor.learn(password);
        }
        Ok(value)
    }

    async fn made(&self, url: &str, refused: bool) -> Result<SecretString, rota_forge::Error> {
        let value = self.read().await.map_err(|error| rota_forge::Error::Token(error.to_string()))?;
        let Some(key) = AppKey::parse(value.expose_secret()) else { return Ok(value) };
        let key = key.map_err(rota_forge::Error::Refused)?;
        let digest = format!("{:x}", Sha256::digest(value.expose_secret()));
        let tokens = {
            let mut app = self.app.lock();
            match app.as_ref().filter(|(of, _)| *of == digest) {
                Some((_, tokens)) => Arc::clone(tokens),
                None => {
                    let tokens = Arc::new(AppTokens::new(key, url, &settings())?);
                    *app = Some((digest, Arc::clone(&tokens)));
                    tokens
                }
            }
        };
        tokens.token(refused).await
    }

    /// Returns what distinguishes the repositories that this opens: contents of private ones are for holders of the same
    /// credentials only. The same after a rotation by the agent.
    pub(super) fn identity(&self, agent: &str) -> String {
        match &self.place {
            Place::File(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                format!("agent {agent} {name}")
            }
            Place::Value(value) => format!("value {:x}", Sha256::digest(value.expose_secret())),
        }
    }

    async fn read(&self) -> io::Result<SecretString> {
        match &self.place {
            Place::File(path) => {
                let text = tokio::fs::read_to_string(path).await?;
                Ok(text.into())
            }
            Place::Value(value) => Ok(value.clone()),
        }
    }

    /// Returns the settings with which git uses the credentials for a URL, and for no other host; after those before were `refused`,
    /// others if they can be made. A private key is written to
    /// a file in `home`, which git may read and the caller removes.
    pub(super) async fn access(
        &self,
        url: &str,
        refused: bool,
        home: &Path,
        redactor: &Redactor,
    ) -> io::Result<Access> {
        if checks::local_path(url).is_some() {
            // Its programs could read them.
            let text = "a repository on the worker's machine is opened without credentials";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let value = self.current(url, refused, redactor).await.map_err(|error| match error {
            rota_forge::Error::Token(_) => io::Error::other(error),
            rota_forge::Error::Refused(_) => io::Error::new(io::ErrorKind::InvalidInput, error),
            // Not the worker's machine, and not the task: the host, as when it refuses them itself.
            error => io::Error::new(io::ErrorKind::ConnectionRefused, error),
        })?;
        let text = value.expose_secret().trim();
        let mut access = Access::default();
        if text.starts_with(KEY_BEGINS) {
            let mut file = tempfile::Builder::new().prefix("key").tempfile_in(home)?;
            // Programs that read keys want the line to end.
            writeln!(file, "{text}")?;
            access.key = Some(file.into_temp_path().keep()?);
        } else if let Some(origin) = checks::http_origin(url) {
            let (user, password) = text.split_once(':').unwrap_or((TOKEN_USER, text));
            let variables = [("ROTA_GIT_USER", user), ("ROTA_GIT_PASSWORD", password)];
            for (name, value) in variables {
                access.environment.0.insert(name.to_owned(), value.to_owned());
            }
            access.settings.push((format!("credential.{origin}.helper"), HELPER.to_owned()));
        } else {
            let text = "the secret is no private key in PEM, which SSH needs, and the URL is not of HTTP";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(access)
    }
}

/// Returns how forges are reached: as git reaches hosts.
pub(super) fn settings() -> rota_forge::Settings {
    let path = rota_telemetry::env::var_os("GIT_SSL_CAINFO");
    rota_forge::Settings { ca: path.and_then(|path| std::fs::read(path).ok()) }
}

/// Writes the settings of SSH into a file in `home`, and returns the command that uses it. SSH never prompts, notices a
/// silent host within two minutes, and remembers the keys of hosts in `known_hosts`.
pub(super) fn ssh(home: &Path, known_hosts: &Path, key: Option<&Path>) -> io::Result<String> {
    let quoted = |path: &Path| format!("\"{}\"", path.display().to_string().replace('%', "%%"));
    let known = quoted(known_hosts);
    let mut lines = vec![
        "Host *".to_owned(),
        "BatchMode yes".to_owned(),
        "ConnectTimeout 30".to_owned(),
        "ServerAliveInterval 30".to_owned(),
        "ServerAliveCountMax 3".to_owned(),
        // The first key of a host is believed, as on a new machine; another one later is refused.
        "StrictHostKeyChecking accept-new".to_owned(),
        format!("UserKnownHostsFile {known} ~/.ssh/known_hosts"),
    ];
    if let Some(key) = key {
        lines.push("IdentitiesOnly yes".to_owned());
        lines.push("IdentityAgent none".to_owned());
        lines.push(format!("IdentityFile {}", quoted(key)));
    }
    let mut file = tempfile::Builder::new().prefix("ssh").tempfile_in(home)?;
    file.write_all((lines.join("\n") + "\n").as_bytes())?;
    let path = file.into_temp_path().keep()?;
    // Git has a shell parse it.
    Ok(format!("ssh -F '{}'", path.display().to_string().replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rota_testkit::forge::{App, Forge, Kind};

    use super::*;

    #[tokio::test]
    async fn tokens_are_for_their_host_and_read_for_each_call() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("TOKEN");
        let (credential, redactor) = (Credential::file(file.clone()), Redactor::default());
        for (value, user, password) in
            [("first-one\n", TOKEN_USER, "first-one"), ("me:second", "me", "second")]
        {
            std::fs::write(&file, value).unwrap();
            let url = "https://git.example/a.git";
            let access = credential.access(url, false, folder.path(), &redactor).await.unwrap();
            assert_eq!(access.environment.0["ROTA_GIT_USER"], user);
            assert_eq!(access.environment.0["ROTA_GIT_PASSWORD"], password);
            assert_eq!(access.settings[0].0, "credential.https://git.example.helper");
            assert!(access.key.is_none());
            // Not known before, as after a rotation.
            let mut text = format!("fatal: {password} is refused");
            redactor.text(&mut text);
            assert_eq!(text, "fatal: [redacted] is refused");
        }
        assert!(credential.access("ssh://git.example/a.git", false, folder.path(), &redactor).await.is_err());
    }

    /// The key of an app opens nothing by itself: git gets the tokens that the forge makes for it.
    #[tokio::test]
    async fn keys_of_apps_make_tokens_for_git() {
        let forge = Forge::start(Kind::GitHub, "none").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("APP");
        let (credential, redactor) = (Credential::file(file.clone()), Redactor::default());
        let made = Arc::new(AtomicUsize::new(0));
        let install = || {
            let counted = Arc::clone(&made);
            let app = App::new(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
            });
            let app = app.unwrap();
            std::fs::write(&file, app.secret(&forge.api())).unwrap();
            forge.install(app);
        };
        let url = "https://git.example/team/project.git";
        let password = async |refused: bool| {
            let access = credential.access(url, refused, folder.path(), &redactor).await.unwrap();
            assert!(access.key.is_none(), "it is no key of SSH");
            assert_eq!(access.environment.0["ROTA_GIT_USER"], TOKEN_USER);
            assert_eq!(access.settings[0].0, "credential.https://git.example.helper");
            access.environment.0["ROTA_GIT_PASSWORD"].clone()
        };
        install();
        // One for all calls, until the host refuses it.
        for (refused, token) in [(false, "ghs_1"), (false, "ghs_1"), (true, "ghs_2"), (false, "ghs_2")] {
            assert_eq!(password(refused).await, token);
        }
        assert_eq!(made.load(Ordering::Relaxed), 2);
        // Another app, as after a rotation.
        install();
        assert_eq!(password(false).await, "ghs_1");
        assert_eq!(made.load(Ordering::Relaxed), 3);

        let kind = async || {
            let failed = credential.access(url, true, folder.path(), &redactor).await.unwrap_err();
            failed.kind()
        };
        forge.set_away(true);
        assert_eq!(kind().await, io::ErrorKind::ConnectionRefused, "the host is away");
        std::fs::write(&file, r#"{"appId": 1, "privateKey": "x"}"#).unwrap();
        assert_eq!(kind().await, io::ErrorKind::InvalidInput, "no host can help");
    }

    #[tokio::test]
    async fn keys_are_files_in_the_home_of_a_call() {
        let home = tempfile::tempdir().unwrap();
        let credential = Credential::value(format!("{KEY_BEGINS} x").into());
        let (url, redactor) = ("git@git.example:a.git", Redactor::default());
        let access = credential.access(url, false, home.path(), &redactor).await.unwrap();
        let key = access.key.unwrap();
        assert!(key.starts_with(home.path()));
        assert_eq!(std::fs::read_to_string(&key).unwrap(), format!("{KEY_BEGINS} x\n"));
        let command = ssh(home.path(), Path::new("/state/known_hosts"), Some(&key)).unwrap();
        let settings = command.strip_prefix("ssh -F '").and_then(|rest| rest.strip_suffix('\'')).unwrap();
        assert!(Path::new(settings).starts_with(home.path()));
        let settings = std::fs::read_to_string(settings).unwrap();
        assert!(settings.contains(&format!("IdentityFile \"{}\"", key.display())), "{settings}");
        assert!(settings.contains("UserKnownHostsFile \"/state/known_hosts\" "), "{settings}");
    }

    #[tokio::test]
    async fn repositories_on_this_machine_get_no_credentials() {
        let home = tempfile::tempdir().unwrap();
        for value in [format!("{KEY_BEGINS} x"), "token".to_owned()] {
            let credential = Credential::value(value.into());
            for url in ["/srv/project.git", "file:///srv/project.git"] {
                let access = credential.access(url, false, home.path(), &Redactor::default()).await;
                assert_eq!(access.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{url}");
            }
        }
        assert_eq!(home.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn identity_outlives_rotation_and_holds_no_value() {
        let file = Credential::file("/secrets/TOKEN".into());
        assert_eq!(file.identity("default/coder"), "agent default/coder TOKEN");
        let identity = Credential::value("very-secret".to_owned().into()).identity("default/coder");
        assert!(!identity.contains("very-secret"));
        assert_ne!(identity, Credential::value("other".to_owned().into()).identity("default/coder"));
    }
}
