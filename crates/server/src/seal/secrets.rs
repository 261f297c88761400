//! Secrets of a task outside of their seal, which are overwritten when they are dropped.

use std::collections::BTreeMap;
use std::ops::Deref;

use zeroize::Zeroize;

/// Secrets by name. No `Debug`, so that they are not printed.
#[derive(Default)]
pub(crate) struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// Returns the secrets for a message, which does not overwrite them.
    pub(crate) fn into_message(mut self) -> BTreeMap<String, String> {
        std::mem::take(&mut self.0)
    }
}

impl From<BTreeMap<String, String>> for Secrets {
    fn from(secrets: BTreeMap<String, String>) -> Self {
        Self(secrets)
    }
}

impl Deref for Secrets {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Zeroize for Secrets {
    fn zeroize(&mut self) {
        self.0.values_mut().for_each(Zeroize::zeroize);
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_overwritten_unless_moved_to_a_message() {
        let given: BTreeMap<_, _> = [("KEY".to_owned(), "value".to_owned())].into();
        let mut secrets = Secrets::from(given.clone());
        secrets.zeroize();
        assert_eq!(secrets["KEY"], "");
        assert_eq!(Secrets::from(given.clone()).into_message(), given);
    }
}
