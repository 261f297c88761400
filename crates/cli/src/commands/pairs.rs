//! `KEY=VALUE` arguments, and environment variables that are passed on.

use std::collections::BTreeMap;

use rota_telemetry::env;

use crate::exit::{Exit, Failure};

/// Key and value of one argument.
pub type Pair = (String, String);

pub fn pair(text: &str) -> Result<Pair, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

/// Collects pairs; the last one of each key is kept.
pub fn map(pairs: &[Pair]) -> BTreeMap<String, String> {
    pairs.iter().cloned().collect()
}

/// Returns variables of this process, so that secrets are on no command line.
pub fn from_environment(names: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    names
        .iter()
        .map(|name| match env::var(name) {
            Some(value) => Ok((name.clone(), value)),
            None => Err(Failure::new(Exit::Usage, format!("{name} is not set in the environment"))
                .hint(format!("set the variable first, for example: read -rs {name} && export {name}"))),
        })
        .collect()
}

/// Fails if a secret of an ended task is not given again: its value was removed with the task's end.
pub fn require(names: &[String], given: &BTreeMap<String, String>) -> Result<(), Failure> {
    let Some(missing) = names.iter().find(|name| !given.contains_key(*name)) else { return Ok(()) };
    let text = format!("the task has the secret {missing}, which is not copied");
    Err(Failure::usage(text).hint(format!("pass it with --secret-env {missing}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_need_a_key() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("a").is_err() && pair("=b").is_err());
        assert!(from_environment(&["ROTA_NO_SUCH_VARIABLE".to_owned()]).is_err());
    }
}
