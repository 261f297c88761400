//! Start of a replica on PostgreSQL: while another one owns the database, it passes connections on to that, and takes over
//! once the database is free.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rota_server::{Findings, KeyFiles, Owner, Problem, Settings, Standby};
use rota_store::Store;
use rota_store::single_writer::Clock;
use rota_store_postgres::{Admission, Options, Target};
use secrecy::{ExposeSecret, SecretString};

use super::server::contradiction;
use super::{serve, signals};
use crate::exit::Failure;
use crate::globals::Globals;
use crate::output::Reporter;
use crate::private;

/// Connections for reads of the owner.
const READERS: usize = 8;
/// Longest wait for the lease of another control plane, of ten seconds.
const LEASE_PATIENCE: Duration = Duration::from_secs(15);

/// The store of a replica that owns the database.
pub struct Opened {
    pub store: Arc<dyn Store>,
    /// Time of the database, by which deadlines are set.
    pub clock: Clock,
    /// Id of the database, which a copy of it elsewhere does not have.
    pub database: String,
}

/// Returns the target that a URL, or a file with one, names.
pub fn target(place: &str, password_file: Option<&Path>) -> anyhow::Result<Target> {
    let password = password_file.map(secret).transpose()?;
    let url = if rota_store_postgres::is_url(place) {
        if has_password(place) {
            let message =
                "the URL of --store contains a password, which other users of this machine can read";
            let hint = "put the URL into a file and name that, or use --store-password-file";
            return Err(Failure::usage(message).hint(hint).into());
        }
        SecretString::from(place.to_owned())
    } else {
        secret(Path::new(place))?
    };
    let target = Target::parse(url.expose_secret(), password.as_ref()).map_err(serve::store_failure)?;
    // It is read again for each connection, since it may be changed while the process runs.
    let unreadable = |error: anyhow::Error| rota_store::Error::Unavailable {
        message: format!("{error:#}"),
        hint: "check the file with the password of the store",
    };
    Ok(match password_file {
        Some(path) => {
            let path = path.to_owned();
            target.with_password_source(Arc::new(move || secret(&path).map(Some).map_err(unreadable)))
        }
        None if rota_store_postgres::is_url(place) => target,
        None => {
            let path = PathBuf::from(place);
            target.with_password_source(Arc::new(move || {
                Target::password_of(secret(&path).map_err(unreadable)?.expose_secret())
            }))
        }
    })
}

/// Reads a file that only its owner can read.
fn secret(path: &Path) -> anyhow::Result<SecretString> {
    private::check_file(path)?;
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to read the file {}", path.display()))?;
    Ok(SecretString::from(text.trim().to_owned()))
}

fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let user = authority.split_once('@').map_or("", |(user, _)| user);
    user.contains(':') || query.split('&').any(|part| part.starts_with("password="))
}

/// Opens the store once no other replica owns it. Returns `None` if a signal has ended the wait.
pub async fn open(
    place: &str,
    settings: &Settings,
    globals: &Globals,
    shutdown: &signals::Shutdown,
) -> anyhow::Result<Option<Opened>> {
    let target = target(place, settings.store_password_file.as_deref())?;
    let address = settings.advertised(target.is_local()).map_err(contradiction)?;
    let findings = Findings::default();
    let (mut seen, mut away) = (findings.owners.subscribe(), findings.problems.subscribe());
    let options = Options {
        address: address.clone(),
        readers: READERS,
        on_wait: on_wait(findings.clone()),
        admission: Some(admission(settings.keys())),
        connect_timeout: settings.store_connect_timeout.0,
        on_away: on_away(findings.clone()),
        stop: shutdown.graceful.clone(),
        seed: uuid::Uuid::new_v4().as_u64_pair().0,
        ..Options::new(target.clone(), &settings.replica)
    };
    let opened = tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None));
    let mut opened = std::pin::pin!(opened);
    // A free database is taken over without a detour.
    let first = tokio::select! {
        opened = &mut opened => Some(opened),
        changed = seen.changed() => changed.map(|()| None).unwrap_or_default(),
        changed = away.changed() => changed.map(|()| None).unwrap_or_default(),
    };
    let opened = match first {
        Some(opened) => opened,
        None => {
            let (listen, http) = (settings.listen, settings.http_listen);
            let standby = Standby::start(listen, http, &address, &findings).await?;
            let line = match away.borrow().is_some() {
                true => format!("waiting for {}", target.describe()),
                false => {
                    format!("standing by for {}: connections are passed on to its owner", target.describe())
                }
            };
            Reporter::new(globals.color).line(&line);
            tokio::select! {
                opened = &mut opened => {
                    standby.stop().await;
                    opened
                }
                () = shutdown.graceful.cancelled() => {
                    let forced = shutdown.forced.cancelled();
                    tokio::select! {
                        () = standby.drain(settings.shutdown_grace.0) => {}
                        () = forced => {}
                    }
                    opened.await
                }
            }
        }
    };
    match opened? {
        Ok(rota_store_postgres::Opened { store, clock, database }) => {
            Ok(Some(Opened { store: Arc::new(store), clock, database }))
        }
        Err(rota_store::Error::Closed) if shutdown.graceful.is_cancelled() => Ok(None),
        Err(error) => Err(serve::store_failure(error).into()),
    }
}

/// Returns the check that this replica has the key of the secrets in the store, before it stands by: as the owner it would only
/// end.
fn admission(keys: KeyFiles) -> Admission {
    let check = move |found: Option<&rota_store::Document>| {
        keys.check(found).map_err(|error| rota_store::Error::Unavailable {
            message: error.to_string(),
            hint: error.hint(),
        })
    };
    Admission { document: rota_server::key_document(), check: Arc::new(check) }
}

/// Returns the options of a process that uses a database alone. One that ended without a word, such as the last `rota dev`, is
/// waited for as long as its lease.
pub fn options_alone(place: &str, password_file: Option<&Path>, name: &str) -> anyhow::Result<Options> {
    let target = target(place, password_file)?;
    Ok(Options {
        patience: Some(LEASE_PATIENCE),
        readers: READERS,
        seed: uuid::Uuid::new_v4().as_u64_pair().0,
        ..Options::new(target, name)
    })
}

/// Opens the store of a control plane that has no replicas.
pub async fn open_alone(place: &str, name: &str) -> anyhow::Result<(Arc<dyn Store>, Clock)> {
    let options = options_alone(place, None, name)?;
    let opened = tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None)).await?;
    let opened = opened.map_err(serve::store_failure)?;
    Ok((Arc::new(opened.store), opened.clock))
}

/// Publishes the owner, to which connections are passed on. One that cannot be looked up, such as while the database is restarted,
/// still takes calls: only another owner replaces it.
fn on_wait(findings: Findings) -> rota_store_postgres::OnWait {
    Arc::new(move |owner| {
        let Some(owner) = owner else { return };
        findings.found(Owner { name: owner.name.clone(), address: owner.address.clone() });
    })
}

/// Publishes why the database is not reached, for the probes.
fn on_away(findings: Findings) -> rota_store_postgres::OnAway {
    Arc::new(move |error| {
        let hint = match error {
            rota_store::Error::Unavailable { hint, .. } => hint,
            _ => "",
        };
        findings.problems.send_replace(Some(Problem { message: error.to_string(), hint }));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_is_kept_while_it_is_unknown() {
        let findings = Findings::default();
        let look = on_wait(findings.clone());
        let owner = |name: &str| rota_store_postgres::Owner { name: name.to_owned(), address: String::new() };
        for (seen, known) in [(None, None), (Some("a"), Some("a")), (None, Some("a")), (Some("b"), Some("b"))]
        {
            look(seen.map(owner).as_ref());
            assert_eq!(findings.owners.borrow().as_ref().map(|owner| &*owner.name), known);
        }
    }

    #[test]
    fn password_in_a_flag_is_refused() {
        for url in ["postgres://rota:secret@db/rota", "postgres://rota@db/rota?a=b&password=secret"] {
            let error = target(url, None).unwrap_err();
            assert!(
                error.to_string().contains("password") && !format!("{error:?}").contains("secret@"),
                "{error:?}"
            );
        }
        assert!(target("postgres://rota@127.0.0.1/rota", None).is_ok());
    }
}
