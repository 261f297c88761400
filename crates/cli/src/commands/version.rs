//! `rota version`: prints versions.

use clap::Args;
use rota_worker::PROTOCOL_VERSION;

use crate::exit::Exit;
use crate::globals::Globals;
use crate::output::Out;

/// Print the version of this program, of its API and of its worker protocol
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  rota version\n  rota version -o json")]
pub struct Version {}

impl Version {
    pub fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let out = Out::new(globals.output, globals.color);
        let version = env!("CARGO_PKG_VERSION");
        if out.is_human() {
            out.line(&format!(
                "rota {version} (API rota.v1, manifests {}, worker protocol {PROTOCOL_VERSION})",
                rota_crds::API_VERSION
            ))?;
        } else {
            out.value(&serde_json::json!({
                "version": version,
                "api": "rota.v1",
                "manifests": rota_crds::API_VERSION,
                "workerProtocol": PROTOCOL_VERSION,
            }))?;
        }
        Ok(Exit::Ok)
    }
}
