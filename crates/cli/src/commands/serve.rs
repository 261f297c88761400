//! Start of a control plane, shared by `rota dev` and `rota server`: opens the store in a data directory and binds the listeners.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rota_server::{Bound, Options};
use rota_store::Store;
use rota_store::single_writer::Clock;
use secrecy::SecretString;

use crate::exit::{Exit, Failure};
use crate::private;

/// Returns the file of the store in a data directory.
pub fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("rota.sqlite")
}

/// Opens the store in a data directory, which must exist. Returns its clock as well.
pub async fn open(data_dir: &Path) -> anyhow::Result<(Arc<dyn Store>, Clock)> {
    let clock: Clock = Arc::new(|| rota_core::Timestamp(rota_telemetry::clock::unix_micros()));
    let options = rota_store_sqlite::Options {
        path: database(data_dir),
        clock: Arc::clone(&clock),
        seed: uuid::Uuid::new_v4().as_u64_pair().0,
    };
    // Opening verifies the file and migrates its schema, which may block for long.
    let store = tokio::task::spawn_blocking(move || rota_store_sqlite::open(options)).await?;
    Ok((Arc::new(store.map_err(store_failure)?), clock))
}

/// Binds the listeners of a control plane.
pub async fn bind(options: Options) -> anyhow::Result<Bound> {
    Box::pin(rota_server::Server::bind(options)).await.map_err(|error| match error {
        rota_server::Error::Store(error) => store_failure(error).into(),
        error @ rota_server::Error::Listen { .. } => Failure::new(Exit::Failed, error.to_string())
            .hint("another program may use the address; choose another one with --listen")
            .into(),
        error => error.into(),
    })
}

/// Converts a store's error, with its hint.
pub fn store_failure(error: rota_store::Error) -> Failure {
    let failure = Failure::new(Exit::Failed, error.to_string());
    match error {
        rota_store::Error::Unavailable { hint, .. } => failure.hint(hint),
        _ => failure,
    }
}

/// Reads a token file that no other user may have written or read.
pub fn token(path: &Path) -> anyhow::Result<SecretString> {
    private::check_file(path)?;
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to read the token file {}", path.display()))?;
    let text = text.trim();
    private::check_token(path, text)?;
    Ok(SecretString::from(text))
}
