//! Reading of files in parts, with their digests. A file may change while it is read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use rota_proto::v1::Artifact;
use rota_proto::{PART_BYTES, num};
use sha2::{Digest, Sha256};

use super::Source;
use crate::Error;

/// Reads a file to its end. Returns its description.
pub(super) fn scan(source: &Source) -> io::Result<Artifact> {
    let mut file = (source.open)()?;
    let (mut whole, mut size, mut parts) = (Sha256::new(), 0_u64, Vec::new());
    let mut buffer = Vec::with_capacity(PART_BYTES);
    loop {
        buffer.clear();
        file.by_ref().take(PART_BYTES as u64).read_to_end(&mut buffer)?;
        if buffer.is_empty() {
            break;
        }
        whole.update(&buffer);
        size += buffer.len() as u64;
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
