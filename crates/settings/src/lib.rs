//! Settings of the programs that run: one struct per component, from which its flags, environment
//! variables, file keys, JSON schema and reference page are derived.
//!
//! A component declares its settings once, in the crate that owns the component:
//!
//! ```
//! use rota_settings::{HumanDuration, Settings};
//!
//! /// Settings of `rota example`.
//! #[derive(Debug, Clone, clap::Args, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
//! #[serde(default, deny_unknown_fields)]
//! struct Example {
//!     /// Interval between health checks
//!     #[arg(long, value_name = "TIME")]
//!     check_interval: HumanDuration,
//! }
//!
//! impl Default for Example {
//!     fn default() -> Self {
//!         Self { check_interval: HumanDuration(std::time::Duration::from_secs(5)) }
//!     }
//! }
//!
//! impl Settings for Example {
//!     const ENV_PREFIX: &'static str = "ROTA_EXAMPLE_";
//! }
//! ```
//!
//! # What is derived
//!
//! - **Key** of the TOML file: the field name (`check_interval`). Unknown keys are errors.
//! - **Environment variable**: the prefix and the key in capitals (`ROTA_EXAMPLE_CHECK_INTERVAL`). The
//!   key's type decides how its text is read: lists are separated by commas, booleans are `true`, `1`, `false` or `0`.
//! - **Flag**: as clap derives it (`--check-interval`); the doc comment is its help text.
//! - **Default**: the field's value in `Default::default()`, shown in `--help` and in the schema.
//! - **Schema**: [`schema`], the input of `docs/reference/config.md`.
//!
//! # Data flow
//!
//! [`Layers<S>`] is flattened into the clap command of a component. It remembers only the flags that were
//! given on the command line, and [`Layers::load`] merges them: defaults, then the file of `--config`, then the
//! environment, then flags; a later layer overrides an earlier one.
//!
//! # Adding a setting
//!
//! Add a documented field to the component's struct and its default to the `Default` implementation, then
//! run `make docs`. Read [`Layers`] first.
//!
//! This crate knows no component, and nothing of tasks, agents or the API.

mod duration;
mod environment;
mod layers;
mod reference;

pub use duration::HumanDuration;
pub use layers::{Error, Layers, Settings, to_toml};
pub use reference::schema;
