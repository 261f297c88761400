//! Keeps secrets out of what is told: values that somebody declared secret, and whatever has the shape of a known
//! kind of key. The one home of redaction; whoever tells something sends it through here. Knows nothing of what is
//! told, or to whom.

mod declared;
mod shapes;
mod stream;

use std::borrow::Cow;
use std::sync::Arc;

use parking_lot::RwLock;

use self::declared::Declared;
pub use self::stream::Stream;

/// What stands where a secret was.
pub const MARK: &str = "[redacted]";

/// Takes out declared values and known shapes. Clones are the same; the default knows shapes alone. It does not print
/// what it knows.
#[derive(Clone, Default)]
pub struct Redactor(Arc<Declared>);

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

impl Redactor {
    /// One that knows these values, each also line by line and as it looks inside of JSON. Values of less than six
    /// bytes are left alone: they are in every other word.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        Self(Arc::new(Declared::new(values)))
    }

    /// Takes secrets out of bytes.
    pub fn bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match self.0.replace(bytes) {
            Cow::Borrowed(bytes) => shapes::replace(bytes),
            Cow::Owned(bytes) => match shapes::replace(&bytes) {
                Cow::Borrowed(_) => Cow::Owned(bytes),
                Cow::Owned(bytes) => Cow::Owned(bytes),
            },
        }
    }

    /// Takes secrets out of a text, in its place.
    pub fn text(&self, text: &mut String) {
        if let Cow::Owned(clean) = self.bytes(text.as_bytes()) {
            // What is taken out is whole characters; this is but the way to say so without a panic.
            *text = String::from_utf8_lossy(&clean).into_owned();
        }
    }
}

/// Values that nothing of this process may tell for now: its logs and spans are searched for them, too.
static PROCESS: RwLock<Vec<Redactor>> = RwLock::new(Vec::new());

/// Keeps values secret in all that this process tells of itself, until it is dropped.
#[derive(Debug)]
#[must_use = "what was declared is forgotten when this is dropped"]
pub struct Guard(Redactor);

impl Redactor {
    /// Keeps its values out of this process's logs and spans, too.
    pub fn guard(&self) -> Guard {
        // Everything that is told is searched for each that is there.
        if !self.0.is_empty() {
            PROCESS.write().push(self.clone());
        }
        Guard(self.clone())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut all = PROCESS.write();
        if let Some(at) = all.iter().position(|one| Arc::ptr_eq(&one.0, &self.0.0)) {
            all.swap_remove(at);
        }
    }
}

/// What this process may tell of itself: without shapes of keys, and without what is declared now.
pub fn own(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut clean = shapes::replace(bytes);
    for one in &*PROCESS.read() {
        if let Cow::Owned(cleaner) = one.0.replace(&clean) {
            clean = Cow::Owned(cleaner);
        }
    }
    clean
}

/// The same for a text, in its place.
pub fn own_text(text: &mut String) {
    if let Cow::Owned(clean) = own(text.as_bytes()) {
        *text = String::from_utf8_lossy(&clean).into_owned();
    }
}

#[cfg(test)]
mod tests;
