//! Runs a fixed number of tasks, whose instructions `scripts/instructions` counts.
//!
//! ```text
//! instructions store|control-plane|workflow ROUNDS
//! ```

use anyhow::{Context, Result};
use rota_bench::instructions::Subject;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

// A single thread, so that as little as possible depends on which thread gets a task.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let subject: Subject = arguments.next().context("missing the subject")?.parse()?;
    let rounds = arguments.next().context("missing the number of rounds")?.parse()?;
    let folder = tempfile::tempdir()?;
    subject.run(rounds, folder.path()).await
}
