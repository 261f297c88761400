//! `rota version`: this program's version.

use clap::Args;

use crate::args::Globals;
use crate::exit::Exit;
use crate::output::Out;

/// Print this program's version, and those of the API and the worker protocol it speaks
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  rota version\n  rota version -o json")]
pub struct Version {}

/// Of the worker session that this program speaks.
const PROTOCOL: u32 = 1;

impl Version {
    pub fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let out = Out::new(globals.output, globals.color);
        let version = env!("CARGO_PKG_VERSION");
        if out.for_eyes() {
            out.line(&format!(
                "rota {version} (API rota.v1, manifests {}, worker protocol {PROTOCOL})",
                rota_crds::API_VERSION
            ))?;
        } else {
            out.value(&serde_json::json!({
                "version": version,
                "api": "rota.v1",
                "manifests": rota_crds::API_VERSION,
                "workerProtocol": PROTOCOL,
            }))?;
        }
        Ok(Exit::Ok)
    }
}
