//! List prices of models, by date, with a user's own prices on top. For costs that a program does not report itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;

/// Prices of a model, in US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Price {
    pub input: f64,
    pub output: f64,
    pub cache_read: f64,
    /// Writes to a prompt cache that is kept for five minutes.
    #[serde(rename = "cacheWrite5m")]
    pub cache_write_5m: f64,
    /// Writes to a prompt cache that is kept for an hour.
    #[serde(rename = "cacheWrite1h")]
    pub cache_write_1h: f64,
}

/// Tokens by what they cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tokens {
    pub input: f64,
    pub output: f64,
    pub cache_read: f64,
    pub cache_write_5m: f64,
    pub cache_write_1h: f64,
}

/// A table of prices. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Prices(Arc<Tables>);

#[derive(Debug)]
struct Tables {
    list: Table,
    own: Table,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    date: String,
    #[serde(default, rename = "unit")]
    _unit: String,
    models: BTreeMap<String, Price>,
}

/// Reason why a file with prices cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path} is no table of prices: {source}")]
    Parse { path: String, source: serde_json::Error },
    #[error("{path}: the price {field} of model {model} must be a number that is not negative")]
    Negative { path: String, model: String, field: &'static str },
}

// Checked by a test.
static LIST: LazyLock<Prices> = LazyLock::new(|| {
    let list = serde_json::from_str(include_str!("prices.json")).unwrap_or_default();
    Prices(Arc::new(Tables { list, own: Table::default() }))
});

impl Default for Prices {
    fn default() -> Self {
        LIST.clone()
    }
}

impl Prices {
    /// Returns the list prices with those of a file on top, which has the format of the list.
    pub fn with_file(path: &Path) -> Result<Self, Error> {
        let name = || path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: name(), source })?;
        let own: Table =
            serde_json::from_str(&text).map_err(|source| Error::Parse { path: name(), source })?;
        for (model, price) in &own.models {
            if let Some((field, _)) = price.parts().into_iter().find(|(_, price)| !(0.0..).contains(price)) {
                return Err(Error::Negative { path: name(), model: model.clone(), field });
            }
        }
        Ok(Self(Arc::new(Tables { list: LIST.0.list.clone(), own })))
    }

    /// Returns the date of the list prices.
    pub fn date(&self) -> &str {
        &self.0.list.date
    }

    /// Returns a model's price of the user's own table.
    pub fn own(&self, model: &str) -> Option<&Price> {
        self.0.own.find(model)
    }

    /// Returns a model's price; `None` for an unknown model.
    pub fn of(&self, model: &str) -> Option<&Price> {
        self.own(model).or_else(|| self.0.list.find(model))
    }

    /// Returns the cost in US dollars. An unknown model costs as much as the dearest known one.
    pub fn cost_usd(&self, model: &str, tokens: &Tokens) -> f64 {
        let known = self.of(model).map(|price| price.cost_usd(tokens));
        let all = || self.0.list.models.values().chain(self.0.own.models.values());
        known.unwrap_or_else(|| all().map(|price| price.cost_usd(tokens)).fold(0.0, f64::max))
    }
}

impl Table {
    /// Returns the price of a model by the longest name in the table that it contains: providers add prefixes and dates.
    fn find(&self, model: &str) -> Option<&Price> {
        let named = self.models.iter().filter(|(name, _)| is_version_of(model, name));
        named.max_by_key(|(name, _)| name.len()).map(|(_, price)| price)
    }
}

/// Whether a model is the named one, with a prefix or a suffix.
fn is_version_of(model: &str, name: &str) -> bool {
    let is_end = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric());
    model.find(name).is_some_and(|at| is_end(&model[at + name.len()..]))
}

impl Price {
    fn parts(&self) -> [(&'static str, f64); 5] {
        [
            ("input", self.input),
            ("output", self.output),
            ("cacheRead", self.cache_read),
            ("cacheWrite5m", self.cache_write_5m),
            ("cacheWrite1h", self.cache_write_1h),
        ]
    }

    fn cost_usd(&self, tokens: &Tokens) -> f64 {
        let Tokens { input, output, cache_read, cache_write_5m, cache_write_1h } = tokens;
        let of = [input, output, cache_read, cache_write_5m, cache_write_1h];
        self.parts().iter().zip(of).map(|((_, price), tokens)| price * tokens).sum::<f64>() / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLION: Tokens =
        Tokens { input: 1e6, output: 1e6, cache_read: 1e6, cache_write_5m: 1e6, cache_write_1h: 1e6 };

    #[test]
    fn list_has_a_date_and_prices() {
        let prices = Prices::default();
        assert!(prices.date().len() == 10 && prices.0.list.models.len() > 5);
        assert_eq!(prices.cost_usd("claude-opus-5-5", &MILLION), 4.0 + 20.0 + 0.2 + 5.0 + 8.0);
    }

    #[test]
    fn models_are_found_with_prefix_and_date() {
        let prices = Prices::default();
        for model in
            ["claude-haiku-4-5-20251001", "us.anthropic.claude-haiku-4-5@20251001", "claude-haiku-4-5[1m]"]
        {
            assert_eq!(prices.of(model).map(|price| price.input), Some(1.0), "{model}");
        }
        assert_eq!(prices.of("claude-opus-5-5").unwrap().input, 4.0, "the longest name counts");
        assert!(prices.of("claude-haiku-4-50").is_none() && prices.of("other").is_none());
    }

    #[test]
    fn unknown_model_costs_as_the_dearest() {
        let prices = Prices::default();
        let dearest = prices.0.list.models.values().map(|price| price.cost_usd(&MILLION)).fold(0.0, f64::max);
        assert_eq!(prices.cost_usd("other", &MILLION), dearest);
    }

    #[test]
    fn own_prices_precede_the_list() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prices.json");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write(
            r#"{"models": {"claude-opus-5": {"input": 1, "output": 2, "cacheRead": 3, "cacheWrite5m": 4, "cacheWrite1h": 5}}}"#,
        );
        let prices = Prices::with_file(&path).unwrap();
        assert_eq!(prices.cost_usd("claude-opus-5", &MILLION), 15.0);
        assert_eq!(prices.of("claude-sonnet-4-6").unwrap().input, 3.0);
        write(
            r#"{"models": {"x": {"input": -1, "output": 2, "cacheRead": 3, "cacheWrite5m": 4, "cacheWrite1h": 5}}}"#,
        );
        assert!(Prices::with_file(&path).unwrap_err().to_string().contains("input of model x"));
        write(r#"{"models": {"x": {"input": 1}}}"#);
        assert!(matches!(Prices::with_file(&path), Err(Error::Parse { .. })));
    }
}
