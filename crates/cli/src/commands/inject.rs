//! `rota inject`: copies this program to a container whose image lacks it.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::exit::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  rota inject /injected

An init container of a pod calls it with a volume that the worker's container mounts at /opt/rota. The operator does so for \
Agents with an image of their own.";

/// Copy this program and its libraries to a directory, for containers whose image lacks it
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Inject {
    /// Directory that containers have as /opt/rota
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

impl Inject {
    pub async fn run(self) -> anyhow::Result<Exit> {
        tokio::task::spawn_blocking(move || inject(&self.directory)).await??;
        Ok(Exit::Ok)
    }
}

fn inject(to: &Path) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    // The layout of deploy/control-root.
    let own = program.parent().and_then(Path::parent).filter(|own| own.join("lib").is_dir());
    let Some(own) = own.filter(|own| own.ends_with("opt/rota")) else {
        return Err(Failure::usage(format!("{} has no libraries of its own to copy", program.display()))
            .hint("use the program of an image of Rota, in /opt/rota")
            .into());
    };
    for part in ["bin", "lib"] {
        std::fs::create_dir_all(to.join(part))?;
        for entry in std::fs::read_dir(own.join(part))? {
            let entry = entry?;
            std::fs::copy(entry.path(), to.join(part).join(entry.file_name()))?;
        }
    }
    Ok(())
}
