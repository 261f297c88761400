//! `rota bench dispatch` without the CLI around it, for profilers.

use std::time::Duration;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = rota_bench::Options {
        clients: 64,
        workers: 4,
        slots: 64,
        rounds: 1,
        span: Duration::from_secs(5),
        idle_workers: 0,
        program: std::env::current_exe()?,
        folder: Some(std::env::current_dir()?),
    };
    let report = rota_bench::run(options, |step| eprintln!("{step}")).await?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
