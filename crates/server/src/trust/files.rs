//! Follows small files that somebody else replaces, such as a cluster that renews a certificate or a token.
//! Knows nothing of what is in them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rota_telemetry::loops::Beat;
use rota_telemetry::{OnExit, spawn};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

/// Larger ones are no certificates and no tokens.
const LARGEST: u64 = 1 << 20;

/// What a file says, or a sentence.
pub(super) async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
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

/// To tell a change without keeping keys about.
fn digest(files: &[Vec<u8>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for file in files {
        hash.update((file.len() as u64).to_be_bytes());
        hash.update(file);
    }
    hash.finalize().into()
}

/// Takes the files as they are, then again whenever they have changed. What cannot be taken is an error now; later
/// it is logged once, and what was taken before stays.
pub(super) async fn follow<F>(
    paths: Vec<PathBuf>,
    every: Duration,
    beat: Beat,
    stop: CancellationToken,
    mut take: F,
) -> Result<(), String>
where
    F: FnMut(&[Vec<u8>]) -> Result<(), String> + Send + 'static,
{
    let files = read_all(&paths).await?;
    take(&files)?;
    let (mut seen, mut wrong) = (Ok(digest(&files)), None);
    drop(files);
    spawn("follow-files", OnExit::Done, async move {
        let names = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let round = beat.round();
            let files = read_all(&paths).await;
            let now = files.as_deref().map(digest).map_err(Clone::clone);
            if now == seen {
                // What could not be used the last time cannot be used now either.
                match &wrong {
                    Some(why) => round.failed(why),
                    None => round.succeeded(),
                }
                continue;
            }
            seen = now;
            let taken = files.and_then(|files| take(&files));
            wrong = taken.clone().err();
            match taken {
                Ok(()) => {
                    round.succeeded();
                    tracing::info!(files = names, "changed files are used from now on");
                }
                Err(why) => {
                    round.failed(&why);
                    tracing::error!(
                        files = names,
                        why,
                        "changed files cannot be used; what was there before stays"
                    );
                }
            }
        }
    });
    Ok(())
}
