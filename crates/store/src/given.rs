//! What a task is given when it is created, besides its payload.

use bytes::Bytes;

/// Lists of artifacts, and a result.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// List of the artifacts of its input, which are kept as those of attempt 0.
    pub input: Option<Bytes>,
    /// Work of another task that it only delivers, and which is kept as that of attempt 1.
    pub work: Option<Work>,
}

/// Work that is done and not delivered.
#[derive(Debug, Clone)]
pub struct Work {
    /// List of the artifacts that its attempt has left.
    pub list: Bytes,
    pub result: Option<Bytes>,
}

impl Given {
    pub(crate) fn bytes(&self) -> usize {
        let work =
            self.work.as_ref().map(|work| (Some(&work.list), work.result.as_ref())).unwrap_or_default();
        [self.input.as_ref(), work.0, work.1].into_iter().flatten().map(Bytes::len).sum()
    }
}
