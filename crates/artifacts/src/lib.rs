//! Contents of artifacts: parts of at most 1 MiB, addressed by their SHA-256 within a namespace, compressed, in a folder or an
//! object store.
//!
//! Which parts a file consists of, and to which task it belongs, is not known here: the store of the control plane has the
//! lists. Parts that no list refers to are removed by [`Parts::sweep`].

mod digest;
mod error;
mod folder;
mod guard;
mod parts;
mod sweep;

pub use digest::Digest;
pub use error::Error;
pub use guard::Pin;
pub use parts::{MAX_PART_BYTES, Parts};
pub use sweep::{Swept, Until};
