//! Layering of settings: defaults, then a TOML file, then the environment, then flags. A later layer
//! overrides an earlier one; unknown keys are errors in each of them.

use std::marker::PhantomData;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, FromArgMatches};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::environment::Environment;

/// Settings of one component, from all of their sources.
pub trait Settings: clap::Args + Default + Serialize + DeserializeOwned + JsonSchema {
    /// Prefix of the component's environment variables, such as `ROTA_SERVER_`.
    const ENV_PREFIX: &'static str;
}

/// Failure to read, merge or validate settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of `--config` is unreadable.
    #[error("failed to read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A layer has an unknown key or a value of the wrong type.
    #[error("invalid configuration: {first}")]
    Invalid { first: String, others: Vec<String> },
}

/// Flags of a component, and the file that they name. Flattened into the component's clap command.
#[derive(Debug)]
pub struct Layers<S> {
    /// Whether to print the effective settings instead of running.
    pub print_config: bool,
    /// Whether to print the JSON schema instead of running.
    pub print_schema: bool,
    file: Option<PathBuf>,
    flags: Map<String, Value>,
    settings: PhantomData<fn() -> S>,
}

impl<S: Settings> Layers<S> {
    /// Overrides a key, as a flag of that name would.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.flags.insert(key.to_owned(), value.into());
    }

    /// Merges defaults, file, environment and flags, in this order.
    pub fn load(&self) -> Result<S, Error> {
        self.load_with(Environment::read::<S>())
    }

    fn load_with(&self, environment: Environment) -> Result<S, Error> {
        let mut figment = Figment::from(Serialized::defaults(S::default()));
        if let Some(path) = self.file() {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| Error::Read { path: path.clone(), source })?;
            figment = figment.merge(Toml::string(&text));
        }
        figment.merge(environment).merge(Serialized::defaults(&self.flags)).extract().map_err(|error| {
            let mut problems = error.into_iter().map(|one| one.to_string());
            let first = problems.next().unwrap_or_default();
            Error::Invalid { first, others: problems.collect() }
        })
    }

    /// The file of `--config` or of the component's `…_CONFIG` variable.
    fn file(&self) -> Option<PathBuf> {
        let named = || Env::var(&format!("{}CONFIG", S::ENV_PREFIX)).filter(|path| !path.is_empty());
        self.file.clone().or_else(|| named().map(PathBuf::from))
    }
}

/// Returns settings as TOML. They hold no secrets, only names of files.
pub fn to_toml(settings: &impl Serialize) -> Result<String, toml::ser::Error> {
    toml::to_string_pretty(settings)
}

/// The flags of a component's settings, with the environment variable and the default of each.
pub(crate) fn flags<S: Settings>() -> Vec<Arg> {
    let defaults = serde_json::to_value(S::default()).unwrap_or_default();
    let describe = |arg: Arg| {
        let key = arg.get_id().to_string();
        let help = format!("{} [env: {}]", arg.get_help().cloned().unwrap_or_default(), variable::<S>(&key));
        let default = match &defaults[&key] {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        // A negative duration is reported as such, not as an unknown flag.
        let is_time = arg.get_value_names().is_some_and(|names| names[0] == "TIME");
        let arg = arg.help(help).required(false);
        let arg = if is_time { arg.allow_hyphen_values(true) } else { arg };
        if let Some(default) = default { arg.default_value(default) } else { arg }
    };
    S::augment_args(Command::new("settings")).mut_args(describe).get_arguments().cloned().collect()
}

/// The environment variable of a key.
pub(crate) fn variable<S: Settings>(key: &str) -> String {
    format!("{}{}", S::ENV_PREFIX, key.to_ascii_uppercase())
}

impl<S: Settings> clap::Args for Layers<S> {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!("TOML file with settings [env: {}CONFIG]", S::ENV_PREFIX));
        let print_config = Arg::new("print_config")
            .long("print-config")
            .action(clap::ArgAction::SetTrue)
            .help("Print the effective settings as TOML and exit");
        let print_schema = Arg::new("print_schema")
            .long("print-schema")
            .action(clap::ArgAction::SetTrue)
            .hide(true)
            .help("Print the JSON schema of the settings and exit");
        // clap numbered the flags of the struct from zero, too.
        let flags = flags::<S>().into_iter().zip(3..).map(|(flag, order)| flag.display_order(order));
        command.arg(config).arg(print_config).arg(print_schema).args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<S: Settings> FromArgMatches for Layers<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let invalid = |error| clap::Error::raw(clap::error::ErrorKind::InvalidValue, format!("{error}\n"));
        let settings = S::from_arg_matches(matches)?;
        let Value::Object(mut given) = serde_json::to_value(settings).map_err(invalid)? else {
            unreachable!("settings are a struct with named fields");
        };
        let known: Vec<_> = flags::<S>().iter().map(|flag| flag.get_id().to_string()).collect();
        given.retain(|key, _| {
            known.contains(key) && matches.value_source(key) == Some(ValueSource::CommandLine)
        });
        Ok(Self {
            print_config: matches.get_flag("print_config"),
            print_schema: matches.get_flag("print_schema"),
            file: matches.get_one("config").cloned(),
            flags: given,
            settings: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Args as _;
    use serde::Deserialize;

    use super::*;
    use crate::{HumanDuration, schema};

    /// Settings of a component that only tests have.
    #[derive(Debug, PartialEq, clap::Args, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Example {
        /// Name of the replica
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Number of slots
        #[arg(long, value_name = "COUNT")]
        slots: u32,
        /// Interval between heartbeats
        #[arg(long, value_name = "TIME")]
        heartbeat: HumanDuration,
        /// Labels of the replica
        #[arg(long = "label", value_name = "WORD")]
        labels: Vec<String>,
        /// Accept clients that are not authenticated
        #[arg(long)]
        insecure: bool,
        /// Time for running tasks to finish
        #[arg(long, value_name = "TIME")]
        drain_timeout: Option<HumanDuration>,
        /// File with a token
        #[arg(skip)]
        #[schemars(extend("x-flag" = "--token-file"))]
        token_file: Option<PathBuf>,
    }

    impl Default for Example {
        fn default() -> Self {
            Self {
                name: "default".to_owned(),
                slots: 1,
                heartbeat: HumanDuration(Duration::from_secs(5)),
                labels: Vec::new(),
                insecure: false,
                drain_timeout: None,
                token_file: None,
            }
        }
    }

    impl Settings for Example {
        const ENV_PREFIX: &'static str = "ROTA_SETTINGS_TEST_";
    }

    fn parse(args: &[&str]) -> Layers<Example> {
        let command = Layers::<Example>::augment_args(Command::new("example"));
        let matches = command.try_get_matches_from([&["example"], args].concat()).unwrap();
        Layers::from_arg_matches(&matches).unwrap()
    }

    /// Loads the flags over variables, given by their keys.
    fn load(layers: &Layers<Example>, variables: &[(&str, &str)]) -> Result<Example, String> {
        let owned = variables.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
        layers.load_with(Environment::new::<Example>(owned)).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_override_file_overrides_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("example.toml");
        std::fs::write(&path, "name = \"file\"\nslots = 2\n").unwrap();
        let path = path.to_str().unwrap();

        assert_eq!(parse(&[]).load().unwrap(), Example::default());
        let file = parse(&["--config", path]).load().unwrap();
        assert_eq!((file.name.as_str(), file.slots), ("file", 2));
        let mut layers = parse(&["--config", path, "--slots", "1", "--label", "a"]);
        layers.set("token_file", "token");
        let flags = layers.load().unwrap();
        assert_eq!((flags.name.as_str(), flags.slots), ("file", 1), "a flag may repeat the default");
        assert_eq!(flags.labels, ["a"]);
        assert_eq!(flags.token_file, Some(PathBuf::from("token")));
    }

    #[test]
    fn missing_files_and_unknown_keys_fail() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("example.toml");
        let layers = parse(&["--config", path.to_str().unwrap()]);
        assert!(matches!(layers.load(), Err(Error::Read { .. })));
        std::fs::write(&path, "unknown = 1\n").unwrap();
        assert!(layers.load().unwrap_err().to_string().contains("unknown field"));
    }

    #[test]
    fn variables_have_the_type_of_the_key() {
        let variables = [
            ("name", "123"),
            ("slots", "4"),
            ("heartbeat", "7s"),
            ("labels", "a, b,"),
            ("insecure", "1"),
            ("drain_timeout", "1m"),
            ("token_file", "1"),
        ];
        let expected = Example {
            name: "123".to_owned(),
            slots: 4,
            heartbeat: HumanDuration(Duration::from_secs(7)),
            labels: vec!["a".to_owned(), "b".to_owned()],
            insecure: true,
            drain_timeout: Some(HumanDuration(Duration::from_secs(60))),
            token_file: Some(PathBuf::from("1")),
        };
        assert_eq!(load(&parse(&[]), &variables).unwrap(), expected);
        for (text, labels) in [("gpu", vec!["gpu"]), ("2024", vec!["2024"]), ("", Vec::new())] {
            assert_eq!(load(&parse(&[]), &[("labels", text)]).unwrap().labels, labels, "{text}");
        }
        for (text, insecure) in [("true", true), ("1", true), ("false", false), ("0", false)] {
            assert_eq!(load(&parse(&[]), &[("insecure", text)]).unwrap().insecure, insecure, "{text}");
        }
    }

    #[test]
    fn variables_override_file_and_flags_override_variables() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("example.toml");
        std::fs::write(&path, "name = \"file\"\nslots = 2\nlabels = [\"file\"]\n").unwrap();
        let layers = parse(&["--config", path.to_str().unwrap(), "--slots", "3"]);
        let settings = load(&layers, &[("labels", "variable"), ("slots", "4")]).unwrap();
        assert_eq!((settings.name.as_str(), settings.slots), ("file", 3));
        assert_eq!(settings.labels, ["variable"]);
    }

    #[test]
    fn unusable_variables_fail() {
        for (key, text) in [
            ("slots", "many"),
            ("slots", "-1"),
            ("slots", ""),
            ("insecure", "yes"),
            ("heartbeat", "5"),
            ("drain_timeout", "soon"),
        ] {
            let error = load(&parse(&[]), &[(key, text)]).unwrap_err();
            let variable = format!("ROTA_SETTINGS_TEST_{}", key.to_ascii_uppercase());
            assert!(error.contains(&variable), "{key}={text}: {error}");
        }
        let error = load(&parse(&[]), &[("slotz", "1")]).unwrap_err();
        assert!(error.contains("unknown field") && error.contains("slotz"), "{error}");
    }

    #[test]
    fn help_shows_variable_and_default() {
        let help = Layers::<Example>::augment_args(Command::new("example")).render_long_help().to_string();
        assert!(help.contains("[env: ROTA_SETTINGS_TEST_HEARTBEAT]"), "{help}");
        assert!(help.contains("[default: 5s]"), "{help}");
        assert!(!help.contains("token"), "{help}");
    }

    #[test]
    fn schema_names_flags_and_variables() {
        let schema = schema::<Example>();
        assert_eq!(schema["properties"]["labels"]["x-flag"], "--label");
        assert_eq!(schema["properties"]["token_file"]["x-flag"], "--token-file");
        assert_eq!(schema["properties"]["slots"]["x-env"], "ROTA_SETTINGS_TEST_SLOTS");
        assert_eq!(schema["properties"]["heartbeat"]["default"], "5s");
        assert_eq!(schema["properties"]["slots"]["description"], "Number of slots");
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn toml_omits_unset_keys() {
        let text = to_toml(&Example::default()).unwrap();
        assert_eq!(
            text,
            "name = \"default\"\nslots = 1\nheartbeat = \"5s\"\nlabels = []\ninsecure = false\n"
        );
    }
}
