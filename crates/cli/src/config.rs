//! Loads the settings of the components that run, and prints them for `--print-config`. Which settings there
//! are is up to the components.

use rota_settings::{Error, Layers, Settings, schema, to_toml};

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::Out;

/// Returns the settings; `None` where they were only to be printed.
pub fn load<S: Settings>(layers: &Layers<S>, globals: &Globals) -> anyhow::Result<Option<S>> {
    let out = Out::new(globals.output, globals.color);
    if layers.print_schema {
        let text = serde_json::to_string_pretty(&schema::<S>())?;
        out.bytes(format!("{text}\n").as_bytes())?;
        return Ok(None);
    }
    let settings = layers.load().map_err(failure)?;
    if layers.print_config {
        out.bytes(to_toml(&settings)?.as_bytes())?;
        return Ok(None);
    }
    Ok(Some(settings))
}

fn failure(error: Error) -> Failure {
    let message = error.to_string();
    match error {
        Error::Read { .. } => Failure::new(Exit::Failed, message),
        Error::Invalid { others, .. } => Failure::usage(message)
            .causes(others)
            .hint("list all keys and their effective values with --print-config"),
    }
}
