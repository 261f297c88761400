//! What `rota dev` and `rota server` share: opening the store and putting a control plane on it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rota_server::{Bound, Options};
use rota_store::Store;
use secrecy::SecretString;

use crate::exit::{Exit, Failure};

/// Opens the store of a data directory, which must exist.
pub async fn open(data_dir: &Path) -> anyhow::Result<Arc<dyn Store>> {
    let options = rota_store_sqlite::Options {
        path: data_dir.join("rota.sqlite"),
        clock: Arc::new(|| rota_core::Timestamp(rota_telemetry::clock::unix_micros())),
        seed: uuid::Uuid::new_v4().as_u64_pair().0,
    };
    // Opening checks the file and brings its schema up to date, which takes as long as it takes.
    let store = tokio::task::spawn_blocking(move || rota_store_sqlite::open(options)).await?;
    Ok(Arc::new(store.map_err(said)?))
}

/// Listens.
pub async fn bind(options: Options) -> anyhow::Result<Bound> {
    rota_server::Server::bind(options).await.map_err(|error| match error {
        rota_server::Error::Store(error) => said(error).into(),
        error @ rota_server::Error::Listen { .. } => Failure::new(Exit::Failed, error.to_string())
            .hint("another program may listen there; choose another address with --listen")
            .into(),
        error => error.into(),
    })
}

/// A store's error with what it says can be done.
fn said(error: rota_store::Error) -> Failure {
    let failure = Failure::new(Exit::Failed, error.to_string());
    match error {
        rota_store::Error::Unavailable { hint, .. } => failure.hint(hint),
        _ => failure,
    }
}

/// Makes a directory that only its owner may look into.
pub fn private_dir(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("the directory {} cannot be made", path.display()))
}

/// The token of a file.
pub fn token(path: &Path) -> anyhow::Result<SecretString> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("the token file {} cannot be read", path.display()))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::new(Exit::Failed, format!("the token file {} is empty", path.display())).into());
    }
    Ok(SecretString::from(text))
}
