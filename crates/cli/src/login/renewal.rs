//! Renewals of the login of a context by one process. They continue in memory where the file of contexts cannot be written. Knows no
//! command.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rota_client::discover::{self, Contexts, Login};
use secrecy::{ExposeSecret, SecretString};
use tempfile::NamedTempFile;

use super::{check_endpoint, client, is_due, keep, received, remaining};

/// Login of a context of an address, as far as this process knows it.
pub(super) struct Renewals {
    name: String,
    endpoint: String,
    path: PathBuf,
    /// The newest login, which the file may lack.
    pub(super) login: Login,
    /// What the issuer has refused to renew a login for.
    refused: Option<SecretString>,
}

impl Renewals {
    pub(super) fn new(path: PathBuf, (name, endpoint): (&str, &str), login: Login) -> Self {
        Self { name: name.to_owned(), endpoint: endpoint.to_owned(), path, login, refused: None }
    }

    /// Renews the login, unless another process has, or does so while the token is valid. Returns why the renewed one is not kept, if
    /// that failed. What renews the login of the file is used up by that: a token that is still valid is renewed so only if `for_long`.
    pub(super) async fn renew(&mut self, for_long: bool) -> anyhow::Result<Option<anyhow::Error>> {
        self.read()?;
        let is_valid = !remaining(&self.login).is_zero();
        let locked = lock(self.path.with_extension("renewal"), is_valid).await;
        if matches!(locked, Ok(None)) {
            return Ok(None);
        }
        let kept = self.read()?;
        if !is_due(&self.login) {
            return Ok(None);
        }
        let writable = locked.and_then(|lock| check_writable(&self.path).map(|()| lock));
        if let Err(error) = &writable
            && is_valid
            && !for_long
        {
            anyhow::bail!("a renewed one could not be kept in {}: {error}", self.path.display());
        }
        let login = self.refreshed().await?;
        let replaced = keep_renewed(&self.path, (&self.name, &self.endpoint), &kept, &login);
        let unkept = match replaced {
            Ok(()) => None,
            Err(error) if matches!(error.downcast_ref(), Some(discover::Error::Write { .. })) => Some(error),
            Err(error) => return Err(error),
        };
        self.login = login;
        Ok(unkept)
    }

    /// Returns the login of the file, and takes it over unless this process has a newer one.
    fn read(&mut self) -> anyhow::Result<Login> {
        let contexts = Contexts::read(&self.path)?;
        let context = contexts.get(&self.name, &self.path)?;
        check_endpoint(context, &self.endpoint)?;
        let kept = context.login.clone().context("the context was logged out")?;
        if kept.received >= self.login.received {
            self.login = kept.clone();
        }
        Ok(kept)
    }

    /// Has the issuer renew the login. It takes each token of this kind once, and is not asked again about one that it has refused.
    async fn refreshed(&mut self) -> anyhow::Result<Login> {
        let login = self.login.clone();
        let token = login.refresh_token.clone().context("the issuer has given no refresh token")?;
        let is_refused = |refused: &SecretString| refused.expose_secret() == token.expose_secret();
        anyhow::ensure!(!self.refused.as_ref().is_some_and(is_refused), "the issuer has refused to renew it");
        let issuer =
            client(&login.issuer, login.issuer_ca.as_deref(), &login.client_id, &login.scopes).await?;
        let answer = issuer.refresh(&token).await;
        if matches!(answer, Err(rota_oidc::Error::Refused(_))) {
            self.refused = Some(token);
        }
        let tokens = answer?;
        received(Login { refresh_token: tokens.refresh_token.clone(), ..login }, &tokens)
    }
}

/// Waits for another process that renews the same login, for two requests at most. Returns nothing if there is one and the token is
/// valid.
async fn lock(path: PathBuf, is_valid: bool) -> io::Result<Option<File>> {
    let lock = tokio::task::spawn_blocking(move || {
        let file = File::create(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) if is_valid => Ok(None),
            Err(TryLockError::WouldBlock) => file.lock().map(|()| Some(file)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    });
    lock.await?
}

/// Fails if a file cannot be replaced: its folder takes no other one of its size.
fn check_writable(path: &Path) -> io::Result<()> {
    let size = usize::try_from(std::fs::metadata(path)?.len()).unwrap_or_default();
    let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(&vec![0; size])?;
    file.as_file().sync_all()
}

/// Keeps a login in place of the one that it renews, unless the context was logged out, or has another login, since the issuer was
/// asked.
fn keep_renewed(path: &Path, at: (&str, &str), before: &Login, renewed: &Login) -> anyhow::Result<()> {
    let token = |login: &Login| login.id_token.expose_secret().to_owned();
    keep(path, at, renewed, |context| {
        let now = context.login.as_ref().context("the context was logged out")?;
        anyhow::ensure!(token(now) == token(before), "the context has another login by now");
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use rota_client::Options;
    use rota_client::discover::ServerContext;
    use rota_oidc::Tokens;
    use rota_telemetry::clock;
    use rota_testkit::identity_provider::{Algorithm, CLIENT, IdentityProvider};

    use super::*;

    const SERVER: &str = "https://rota.example";
    /// Token that is valid until 2100. Its holder does not look at the signature.
    const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDB9.eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eA";

    fn login(issuer: &str, refresh_token: &str) -> Login {
        Login {
            issuer: issuer.to_owned(),
            issuer_ca: None,
            client_id: CLIENT.to_owned(),
            scopes: Vec::new(),
            expires: 1,
            received: 0,
            id_token: "old".into(),
            refresh_token: Some(refresh_token.to_owned().into()),
        }
    }

    fn set(path: &Path, login: Option<Login>) {
        Contexts::change(path, |contexts| {
            let server = ServerContext { endpoint: SERVER.into(), login, ..ServerContext::default() };
            contexts.named.insert("prod".into(), server);
            anyhow::Ok(())
        })
        .unwrap();
    }

    fn kept(path: &Path) -> Option<Login> {
        Contexts::read(path).unwrap().named["prod"].login.clone()
    }

    fn renewals(path: &Path, login: Login) -> Renewals {
        Renewals::new(path.to_owned(), ("prod", &Options::new(SERVER).endpoint), login)
    }

    #[test]
    fn renewal_brings_no_login_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        let before = login("https://id.example", "once");
        let tokens = Tokens { id_token: TOKEN.into(), refresh_token: Some("again".into()) };
        let renewed = received(before.clone(), &tokens).unwrap();
        assert_eq!(renewed.expires, 4_102_444_800);
        let endpoint = Options::new(SERVER).endpoint;
        let renew = || keep_renewed(&path, ("prod", &endpoint), &before, &renewed);
        set(&path, Some(before.clone()));
        renew().unwrap();
        assert_eq!(kept(&path).unwrap().id_token.expose_secret(), TOKEN);
        let other = renew().unwrap_err();
        assert!(other.to_string().contains("another login"), "{other}");
        set(&path, None);
        let refused = renew().unwrap_err();
        assert!(refused.to_string().contains("logged out") && kept(&path).is_none(), "{refused}");
    }

    #[tokio::test]
    async fn login_that_cannot_be_kept_is_renewed_in_memory() {
        let provider = IdentityProvider::start(Algorithm::ES256, None).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        let first = login(provider.url(), &provider.refresh_token());
        set(&path, Some(first.clone()));
        // A folder in the place of a lock keeps root from writing, too.
        let [lock, renewal] = ["lock", "renewal"].map(|name| path.with_extension(name));
        std::fs::remove_file(&lock).unwrap();
        std::fs::create_dir(&lock).unwrap();
        let mut renewals = renewals(&path, first.clone());
        for count in 1..=2 {
            let unkept = renewals.renew(true).await.unwrap().unwrap();
            assert!(unkept.to_string().starts_with("failed to write"), "{unkept}");
            // The second time with what the issuer has given since, which the file does not have.
            assert_eq!((provider.refreshes(), remaining(&renewals.login).is_zero()), (count, false));
            renewals.login.expires = 1;
        }
        assert_eq!(kept(&path).unwrap().id_token.expose_secret(), "old");
        std::fs::remove_dir(&lock).unwrap();
        assert!(renewals.renew(true).await.unwrap().is_none());
        assert_eq!(kept(&path).unwrap().id_token.expose_secret(), renewals.login.id_token.expose_secret());

        // A command that can use its token uses up nothing that it cannot keep.
        let refreshes = provider.refreshes();
        let valid = Login { expires: clock::unix_micros() / 1_000_000 + 200, ..renewals.login.clone() };
        set(&path, Some(Login { received: 0, ..valid.clone() }));
        std::fs::remove_file(&renewal).unwrap();
        std::fs::create_dir(&renewal).unwrap();
        let mut renewals = self::renewals(&path, Login { received: 0, ..valid });
        let refused = renewals.renew(false).await.unwrap_err();
        assert!(refused.to_string().contains("could not be kept"), "{refused}");
        assert_eq!(provider.refreshes(), refreshes);
        assert!(renewals.renew(true).await.unwrap().is_none());
        assert_eq!(provider.refreshes(), refreshes + 1);
    }

    #[tokio::test]
    async fn issuer_is_asked_once_for_what_it_refuses() {
        let provider = IdentityProvider::start(Algorithm::ES256, None).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        let used = login(provider.url(), "used");
        set(&path, Some(used.clone()));
        let mut renewals = renewals(&path, used);
        let refused = renewals.renew(true).await.unwrap_err();
        assert!(refused.to_string().contains("the issuer refuses"), "{refused}");
        let again = renewals.renew(true).await.unwrap_err();
        assert_eq!(again.to_string(), "the issuer has refused to renew it");
        // Another login has another token.
        set(&path, Some(Login { received: 1, ..login(provider.url(), &provider.refresh_token()) }));
        assert!(renewals.renew(true).await.unwrap().is_none());
    }
}
