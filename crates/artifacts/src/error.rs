//! Errors of the storage of artifacts.

use crate::Digest;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL names no store that this program can use.
    #[error("artifacts cannot be stored at {url:?}: {reason}")]
    Url { url: String, reason: String },
    /// Temporary, or until a person intervenes.
    #[error("the storage of artifacts is unavailable: {0}")]
    Unavailable(String),
    /// A call did not end in time; it may have an effect later.
    #[error("the storage of artifacts did not answer in time")]
    TimedOut,
    /// Another control plane removes parts at this location.
    #[error(
        "another control plane of the same store removes parts at {0}: nothing is removed here until it has not done so for a day"
    )]
    Shared(String),
    #[error("part {0} is not stored")]
    NotFound(Digest),
    /// What is stored does not have the digest under which it is stored.
    #[error("part {0} is damaged")]
    Damaged(Digest),
    #[error("a part has {0} bytes; from 1 to 1,048,576 are possible")]
    Size(usize),
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}
