//! Latency of durable writes on the disk of the store.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use tokio::time::Instant;

use crate::report::Latency;

const WRITES: usize = 200;

/// Measures appending and syncing blocks of 4 KiB. Blocks the thread.
pub(crate) fn fsync(folder: &Path) -> Result<Latency> {
    let path = folder.join("fsync");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let block = [7_u8; 4096];
    let mut latency = Latency::new();
    for _ in 0..WRITES {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        latency.record(start.elapsed());
    }
    drop(file);
    std::fs::remove_file(path)?;
    Ok(latency)
}
