//! Configuration of what runs: defaults, then a TOML file, then the environment, then flags.
//! Unknown keys are errors wherever they come from.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use rota_telemetry::env;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::Globals;
use crate::exit::{Exit, Failure};
use crate::output::Out;

/// Where a configuration comes from, for every command that has one.
#[derive(Debug, Args)]
pub struct Source {
    /// A TOML file [env: ROTA_DEV_CONFIG, ROTA_SERVER_CONFIG or ROTA_WORKER_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the configuration that would be used, and end
    #[arg(long)]
    print_config: bool,
}

impl Source {
    /// The configuration; nothing where it was only to be printed.
    pub fn load<C>(
        &self,
        prefix: &str,
        flags: &impl Serialize,
        globals: &Globals,
    ) -> anyhow::Result<Option<C>>
    where
        C: Default + Serialize + DeserializeOwned,
    {
        let named = || env::var_os(&format!("{prefix}CONFIG")).map(PathBuf::from);
        let config: C = load(self.config.clone().or_else(named).as_deref(), prefix, flags)?;
        if !self.print_config {
            return Ok(Some(config));
        }
        Out::new(globals.output, globals.color).bytes(show(&config)?.as_bytes())?;
        Ok(None)
    }
}

/// Flags of what keeps data and listens.
#[derive(Debug, Default, Args, Serialize)]
pub struct Place {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
    /// Where everything is kept
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
}

/// Flags of what starts agents.
#[derive(Debug, Default, Args, Serialize)]
pub struct Programs {
    /// The Claude Code CLI, for agents that name none
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    claude_program: Option<PathBuf>,
}

/// Puts a configuration together. `prefix` is that of the environment, such as `ROTA_SERVER_`;
/// `flags` serializes to what was given alone.
fn load<C>(file: Option<&Path>, prefix: &str, flags: &impl Serialize) -> anyhow::Result<C>
where
    C: Default + Serialize + DeserializeOwned,
{
    let mut figment = Figment::from(Serialized::defaults(C::default()));
    if let Some(file) = file {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Failure::new(Exit::Failed, format!("{} cannot be read: {error}", file.display()))
        })?;
        figment = figment.merge(Toml::string(&text));
    }
    figment = figment.merge(environment(prefix)).merge(Serialized::defaults(flags));
    figment.extract().map_err(|error| {
        let mut causes: Vec<_> = error.into_iter().map(|one| one.to_string()).collect();
        let first = if causes.is_empty() { String::new() } else { causes.remove(0) };
        Failure::new(Exit::Usage, format!("the configuration is wrong: {first}"))
            .causes(causes)
            .hint("see all keys and what they are now with --print-config")
            .into()
    })
}

/// The environment's part. A cluster puts `ROTA_SERVER_PORT`, `ROTA_SERVER_SERVICE_HOST` and the
/// like into every pod beside a Service of that name; they are not meant for us.
fn environment(prefix: &str) -> Env {
    Env::prefixed(prefix).filter(|key| {
        let key = key.as_str().to_ascii_lowercase();
        key != "config" && !key.starts_with("service_") && key != "port" && !key.starts_with("port_")
    })
}

/// A configuration as TOML, for `--print-config`. There are no secrets in it, only names of files.
fn show(config: &impl Serialize) -> anyhow::Result<String> {
    Ok(toml::to_string_pretty(config)?)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        a: String,
        b: u32,
    }

    impl Default for Config {
        fn default() -> Self {
            Self { a: "default".into(), b: 1 }
        }
    }

    #[derive(Serialize)]
    struct Flags {
        #[serde(skip_serializing_if = "Option::is_none")]
        b: Option<u32>,
    }

    #[test]
    fn layers_and_unknown_keys() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        let load = |b| load::<Config>(Some(&file), "ROTA_TEST_NOTHING_", &Flags { b });
        assert!(load(None).is_err(), "a file that is named must be there");
        std::fs::write(&file, "a = \"file\"\nb = 2\n").unwrap();
        assert_eq!(load(None).unwrap(), Config { a: "file".into(), b: 2 });
        assert_eq!(load(Some(3)).unwrap(), Config { a: "file".into(), b: 3 });
        std::fs::write(&file, "c = 1\n").unwrap();
        assert!(load(None).unwrap_err().to_string().contains("unknown field"));
        assert_eq!(show(&Config::default()).unwrap(), "a = \"default\"\nb = 1\n");
    }
}
