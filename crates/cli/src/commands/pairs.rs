//! `KEY=VALUE` arguments, and environment that is handed on.

use std::collections::BTreeMap;

use rota_telemetry::env;

use crate::exit::{Exit, Failure};

/// One `KEY=VALUE`.
pub type Pair = (String, String);

/// For clap.
pub fn pair(text: &str) -> Result<Pair, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

/// Several, the last of each key counting.
pub fn map(pairs: &[Pair]) -> BTreeMap<String, String> {
    pairs.iter().cloned().collect()
}

/// Variables of this process by name, so that secrets stand on no command line.
pub fn from_environment(names: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    names
        .iter()
        .map(|name| match env::var(name) {
            Some(value) => Ok((name.clone(), value)),
            None => Err(Failure::new(Exit::Usage, format!("{name} is not set in the environment"))
                .hint(format!("set it first, for example: read -rs {name} && export {name}"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("a").is_err() && pair("=b").is_err());
        assert!(from_environment(&["ROTA_NO_SUCH_VARIABLE".to_owned()]).is_err());
    }
}
