//! JSON schema of settings, with the flag and the environment variable of each key.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::Settings;
use crate::layers::{flags, variable};

/// Returns the JSON schema of a component's settings. Each property also has `x-env`, and `x-flag` where a
/// flag sets it.
pub fn schema<S: Settings>() -> Value {
    // Without references: each property has its type and pattern.
    let settings = SchemaSettings::default().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<S>().to_value();
    let flags = flags::<S>();
    if let Some(properties) = schema["properties"].as_object_mut() {
        for (key, property) in properties {
            property["x-env"] = json!(variable::<S>(key));
            let flag = flags.iter().find(|flag| flag.get_id().as_str() == key);
            if let Some(long) = flag.and_then(|flag| flag.get_long()) {
                property["x-flag"] = json!(format!("--{long}"));
            }
        }
    }
    schema
}
