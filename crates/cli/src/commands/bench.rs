//! `rota bench`: benchmarks on this machine. The command line is that of `rota-bench`.

use clap::Args;

use crate::exit::Exit;
use crate::globals::Globals;
use crate::output::{Out, Reporter, Table};

/// Benchmark a control plane on this machine
#[derive(Debug, Args)]
#[group(skip)]
pub struct Bench {
    #[command(flatten)]
    bench: rota_bench::Bench,
}

impl Bench {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let reporter = Reporter::new(globals.color);
        if cfg!(debug_assertions) {
            reporter.warn("debug build: the values are not representative");
        }
        let Some(outcome) = self.bench.run(&|step| reporter.line(step)).await? else { return Ok(Exit::Ok) };
        let out = Out::new(globals.output, globals.color);
        if out.is_human() {
            let mut table = Table::new(&outcome.table.header);
            outcome.table.rows.into_iter().for_each(|row| table.row(row));
            out.table(&table)?;
        } else {
            out.value(&outcome.value)?;
        }
        Ok(Exit::Ok)
    }
}
