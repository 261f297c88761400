//! Measures the cost of exporting spans and metrics: `cargo run --release -p rota-bench --example tracing [PAIRS]`.

use anyhow::Context;
use rota_bench::tracing::{Options, SINGLE_RUN_ARG, alone, measure};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some(SINGLE_RUN_ARG) {
        println!("{}", alone().await?);
        return Ok(());
    }
    let pairs = argument.map_or(Ok(25), |text| text.parse()).context("how many pairs?")?;
    let options = Options { pairs, share: 0.01, program: std::env::current_exe()? };
    let cost = measure(&options, |step| eprintln!("{step}")).await?;
    println!("{}", serde_json::to_string_pretty(&cost)?);
    Ok(())
}
