//! Environment layer of settings: variables with the component's prefix, converted to the types of its keys.
//! Knows nothing of files and flags.

use figment::providers::Env;
use figment::value::{Dict, Map, Num, Value};
use figment::{Metadata, Profile, Provider};

use crate::{Settings, schema};

/// Keys that variables set. figment's own conversion derives the type from the text instead of the key: digits
/// would be no name, and a list would need brackets.
pub(crate) struct Environment {
    prefix: &'static str,
    values: Dict,
}

impl Environment {
    /// Reads the variables of this process.
    pub(crate) fn read<S: Settings>() -> Self {
        let variables = Env::prefixed(S::ENV_PREFIX).filter(|key| !is_foreign(key.as_str()));
        Self::new::<S>(variables.iter().map(|(key, text)| (key.as_str().to_owned(), text)))
    }

    /// Converts variables, given by their keys in lower case.
    pub(crate) fn new<S: Settings>(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let schema = schema::<S>();
        let values = variables.into_iter().map(|(key, text)| {
            let value = convert(&schema["properties"][&key], text);
            (key, value)
        });
        Self { prefix: S::ENV_PREFIX, values: values.collect() }
    }
}

/// Whether a variable is not a setting. Kubernetes puts `ROTA_SERVER_PORT`, `ROTA_SERVER_SERVICE_HOST` and the
/// like into every pod of a namespace with a Service of that name.
fn is_foreign(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key == "config" || key.starts_with("service_") || key == "port" || key.starts_with("port_")
}

/// Converts text to the type in the key's schema. Text of another form is kept, so that loading reports the
/// expected type.
fn convert(property: &serde_json::Value, text: String) -> Value {
    let is = |name: &str| match &property["type"] {
        serde_json::Value::Array(types) => types.iter().any(|one| one == name),
        one => one == name,
    };
    if is("array") {
        let items: Vec<_> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        return items.into();
    }
    if is("boolean") {
        match text.trim() {
            "1" | "true" => return true.into(),
            "0" | "false" => return false.into(),
            _ => {}
        }
    }
    if (is("integer") || is("number"))
        && let Ok(number) = text.parse::<Num>()
    {
        return number.into();
    }
    text.into()
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        let prefix = self.prefix;
        Metadata::named("the environment").interpolater(move |_: &Profile, keys: &[&str]| {
            format!("{prefix}{}", keys.join(".").to_ascii_uppercase())
        })
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}
