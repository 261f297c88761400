//! Reloads small files that others replace, such as certificates and tokens that a cluster renews. Knows nothing of
//! their content.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rota_telemetry::background_tasks::TaskMonitor;
use rota_telemetry::{OnExit, spawn};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

/// More than any certificate chain or token has.
const MAX_SIZE: u64 = 1 << 20;

/// Reads a file. The error is a message for users.
pub(super) async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("failed to read {}: {error}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(format!("{} is larger than 1 MiB", path.display()));
    }
    Ok(bytes)
}

async fn read_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    let mut all = Vec::with_capacity(paths.len());
    for path in paths {
        all.push(read(path).await?);
    }
    Ok(all)
}

/// Detects a change without keeping secrets in memory.
fn digest(files: &[Vec<u8>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for file in files {
        hash.update((file.len() as u64).to_be_bytes());
        hash.update(file);
    }
    hash.finalize().into()
}

/// Loads the files, then again whenever they have changed. A failure is returned from the first load; later it is logged
/// once, and what was loaded before stays in use.
pub(super) async fn follow<F>(
    paths: Vec<PathBuf>,
    interval: Duration,
    monitor: TaskMonitor,
    stop: CancellationToken,
    mut load: F,
) -> Result<(), String>
where
    F: FnMut(&[Vec<u8>]) -> Result<(), String> + Send + 'static,
{
    let files = read_all(&paths).await?;
    load(&files)?;
    let (mut seen, mut error) = (Ok(digest(&files)), None);
    drop(files);
    spawn("follow-files", OnExit::Done, async move {
        let names = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            let activation = monitor.activate();
            let files = read_all(&paths).await;
            let now = files.as_deref().map(digest).map_err(Clone::clone);
            if now == seen {
                match &error {
                    Some(error) => activation.failed(error),
                    None => activation.succeeded(),
                }
                continue;
            }
            seen = now;
            let loaded = files.and_then(|files| load(&files));
            error = loaded.clone().err();
            match loaded {
                Ok(()) => {
                    activation.succeeded();
                    tracing::info!(files = names, "reloaded changed files");
                }
                Err(error) => {
                    activation.failed(&error);
                    tracing::error!(
                        files = names,
                        error,
                        "failed to reload changed files, keeping the previous ones"
                    );
                }
            }
        }
    });
    Ok(())
}
