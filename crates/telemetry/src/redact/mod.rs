//! Secret redaction: removes declared values and anything with the shape of a known kind of key. The only
//! implementation; whatever leaves the process passes through it. Must not know where its texts come from or go.

mod declared;
mod forms;
mod shapes;
mod stream;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;

pub use self::declared::is_common_word;
use self::declared::{Declared, Values};
pub use self::stream::StreamRedactor;

/// Replacement for each redacted secret.
pub const PLACEHOLDER: &str = "[redacted]";

/// Values that are learned later; those before have expired by then.
const MAX_LEARNED: usize = 64;

/// Removes declared values and known shapes of keys. Clones share the values; the default has none and removes shapes
/// only. `Debug` does not print the values.
#[derive(Clone, Default)]
pub struct Redactor(Arc<Known>);

#[derive(Default)]
struct Known {
    declared: Declared,
    learned: RwLock<Learned>,
}

/// Values that were not known when the redactor was made.
#[derive(Default)]
struct Learned {
    values: VecDeque<String>,
    declared: Declared,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

impl Redactor {
    /// Creates a redactor for these values, for each of their longer lines, and for their forms in literals, URLs, hex and
    /// base64. Values below six bytes are not redacted: they occur in ordinary words.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        Self(Arc::new(Known { declared: Declared::new(values), learned: RwLock::default() }))
    }

    /// Redacts one more value from now on, such as a token that was made or rotated meanwhile. In chunks of a stream it is
    /// found as long as it is not split.
    pub fn learn(&self, value: &str) {
        let declared = self.0.declared.all();
        if declared.replace(value.as_bytes()) == PLACEHOLDER.as_bytes()
            || self.0.learned.read().values.iter().any(|known| known == value)
        {
            return;
        }
        let mut learned = self.0.learned.write();
        if learned.values.len() == MAX_LEARNED {
            learned.values.pop_front();
        }
        learned.values.push_back(value.to_owned());
        learned.declared = Declared::new(learned.values.iter().map(String::as_str));
    }

    /// Returns the bytes with secrets replaced.
    pub fn bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        self.replace(Declared::all, bytes)
    }

    /// Replaces secrets in place.
    pub fn text(&self, text: &mut String) {
        if let Cow::Owned(redacted) = self.bytes(text.as_bytes()) {
            *text = into_string(redacted);
        }
    }

    /// Replaces secrets in place, except values that are ordinary words ([`is_common_word`]): a result is input of other
    /// tasks, and would be corrupted.
    pub fn result(&self, text: &mut String) {
        if let Cow::Owned(redacted) = self.replace(Declared::uncommon, text.as_bytes()) {
            *text = into_string(redacted);
        }
    }

    fn replace<'a>(&self, of: fn(&Declared) -> &Values, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let redacted = then(of(&self.0.declared).replace(bytes), |bytes| {
            of(&self.0.learned.read().declared).replace(bytes)
        });
        then(redacted, shapes::replace)
    }
}

/// Replaces more in bytes of which something may be replaced already.
fn then<'a>(bytes: Cow<'a, [u8]>, replace: impl Fn(&[u8]) -> Cow<'_, [u8]>) -> Cow<'a, [u8]> {
    match replace(&bytes) {
        Cow::Borrowed(_) => bytes,
        Cow::Owned(replaced) => Cow::Owned(replaced),
    }
}

/// Redactors of secrets that are in use in this process: its logs and spans are redacted with each of them.
static REGISTERED: RwLock<Vec<Redactor>> = RwLock::new(Vec::new());

/// Keeps a redactor registered until it is dropped.
#[derive(Debug)]
#[must_use = "dropping the guard ends the redaction"]
pub struct RedactionGuard(Redactor);

impl Redactor {
    /// Applies this redactor to the logs and spans of this process, too, until the guard is dropped.
    pub fn register(&self) -> RedactionGuard {
        // Every log entry is searched once per registered redactor.
        if !self.0.declared.all().is_empty() {
            REGISTERED.write().push(self.clone());
        }
        RedactionGuard(self.clone())
    }
}

impl Drop for RedactionGuard {
    fn drop(&mut self) {
        let mut registered = REGISTERED.write();
        if let Some(index) = registered.iter().position(|redactor| Arc::ptr_eq(&redactor.0, &self.0.0)) {
            registered.swap_remove(index);
        }
    }
}

/// Returns the bytes without shapes of keys and without the values of all registered redactors.
pub fn bytes(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut redacted = shapes::replace(bytes);
    for Redactor(known) in &*REGISTERED.read() {
        redacted = then(redacted, |bytes| known.declared.all().replace(bytes));
        redacted = then(redacted, |bytes| known.learned.read().declared.all().replace(bytes));
    }
    redacted
}

/// Replaces in place what [`bytes`] replaces.
pub fn text(text: &mut String) {
    if let Cow::Owned(redacted) = bytes(text.as_bytes()) {
        *text = into_string(redacted);
    }
}

/// Whole characters are replaced by ASCII, so the bytes are UTF-8; the lossy conversion only avoids a panic.
fn into_string(redacted: Vec<u8>) -> String {
    String::from_utf8_lossy(&redacted).into_owned()
}
