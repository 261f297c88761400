//! How long the disk takes to make 4 KiB durable, measured where the store lies.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use tokio::time::Instant;

use crate::report::Latency;

const WRITES: usize = 200;

/// Appends 4 KiB and waits for the disk, again and again. Blocking.
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
