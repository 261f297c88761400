//! Reading of files in parts, with their digests. A file may change while it is read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Weak;

use bytes::Bytes;
use rota_proto::v1::Artifact;
use rota_proto::{PART_BYTES, num};
use sha2::{Digest, Sha256};

use super::Source;
use crate::Error;

/// Reads a file to its end, which is not beyond its size, unless `wanted` was dropped meanwhile. Returns its description.
pub(super) fn scan(source: &Source, wanted: &Weak<()>) -> io::Result<Artifact> {
    // One byte more shows that it has grown.
    let mut file = (source.open)()?.take(source.size.saturating_add(1));
    let (mut whole, mut size, mut parts) = (Sha256::new(), 0_u64, Vec::new());
    let mut buffer = Vec::with_capacity(PART_BYTES);
    loop {
        buffer.clear();
        file.by_ref().take(PART_BYTES as u64).read_to_end(&mut buffer)?;
        if buffer.is_empty() {
            break;
        }
        size += buffer.len() as u64;
        if size > source.size {
            return Err(io::Error::other("it grew while it was read"));
        }
        if wanted.strong_count() == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        whole.update(&buffer);
        parts.push(Sha256::digest(&buffer).to_vec());
    }
    Ok(Artifact {
        name: source.name.clone(),
        size: num::to_i64(size),
        sha256: hex::encode(whole.finalize()),
        parts,
        executable: source.executable,
    })
}

/// Returns the size of a part.
pub(super) fn part_size(artifact: &Artifact, index: usize) -> u64 {
    let size = u64::try_from(artifact.size).unwrap_or_default();
    size.saturating_sub(index as u64 * PART_BYTES as u64).min(PART_BYTES as u64)
}

/// Reads a part again. The inner error is the reason why the file is skipped.
pub(super) async fn read_part(
    source: &Source,
    artifact: &Artifact,
    index: usize,
) -> Result<Result<Bytes, String>, Error> {
    let file = match (source.open)() {
        Ok(file) => file,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let (size, digest) = (part_size(artifact, index), artifact.parts.get(index).cloned().unwrap_or_default());
    super::blocking(move || read(&file, index, size, &digest)).await
}

fn read(file: &File, index: usize, size: u64, digest: &[u8]) -> Result<Bytes, String> {
    let mut data = vec![0; usize::try_from(size).unwrap_or_default()];
    let read = file.read_exact_at(&mut data, index as u64 * PART_BYTES as u64);
    match read {
        Ok(()) if Sha256::digest(&data)[..] == *digest => Ok(data.into()),
        Ok(()) => Err("it changed while it was read".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err("it became shorter while it was read".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Returns a source of this size whose file is larger once it is opened, and the file.
    fn growing(size: u64, now: u64) -> (Source, File) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        let opened = file.try_clone().unwrap();
        let open = move || {
            opened.set_len(now)?;
            opened.try_clone()
        };
        (Source { name: "output/a".to_owned(), executable: false, size, open: Box::new(open) }, file)
    }

    #[test]
    fn no_more_is_read_than_was_admitted() {
        let wanted = Arc::new(());
        let size = PART_BYTES as u64 + 7;
        // Sparse, and without end for who reads all of it.
        let (source, mut file) = growing(size, 1 << 42);
        let failed = scan(&source, &Arc::downgrade(&wanted)).unwrap_err();
        assert_eq!(failed.to_string(), "it grew while it was read");
        assert_eq!(io::Seek::stream_position(&mut file).unwrap(), size + 1);
        let (source, _) = growing(size, size);
        let artifact = scan(&source, &Arc::downgrade(&wanted)).unwrap();
        assert_eq!((artifact.size, artifact.parts.len()), (num::to_i64(size), 2));
        let (source, _) = growing(size, 3);
        assert_eq!(scan(&source, &Arc::downgrade(&wanted)).unwrap().size, 3);
    }

    #[tokio::test]
    async fn upload_that_is_dropped_reads_no_further() {
        let (source, mut file) = growing(1 << 40, 1 << 40);
        let wanted = Arc::new(());
        let weak = Arc::downgrade(&wanted);
        let read = Arc::new(AtomicU64::new(0));
        let (at, opened) = (Arc::clone(&read), file.try_clone().unwrap());
        let open = move || {
            at.fetch_add(1, Ordering::Relaxed);
            opened.try_clone()
        };
        let source = Source { open: Box::new(open), ..source };
        let scanning = tokio::task::spawn_blocking(move || scan(&source, &weak));
        while read.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        drop(wanted);
        assert_eq!(scanning.await.unwrap().unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(io::Seek::stream_position(&mut file).unwrap() < 1 << 40);
    }
}
