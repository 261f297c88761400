//! Environment variables of a program.

use std::collections::BTreeMap;
use std::fmt;

/// Environment variables of an attempt. Contains secrets, so `Debug` prints only names.
#[derive(Default, Clone)]
pub struct Environment(pub BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
