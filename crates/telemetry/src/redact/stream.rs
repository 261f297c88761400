//! Redaction of output that arrives in chunks: the end of a chunk is held back for as long as it may be the beginning
//! of a secret, so that a secret across two chunks is found. Must not know who writes the output.

use super::{Redactor, shapes};

/// Limit of bytes held back; no known key is as long.
const MAX_HELD_BYTES: usize = 32 << 10;

/// Redactor of one stream.
#[derive(Debug, Default)]
pub struct StreamRedactor {
    redactor: Redactor,
    held: Vec<u8>,
}

impl StreamRedactor {
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor, held: Vec::new() }
    }

    /// Accepts a chunk and returns the redacted bytes that are safe to publish.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(chunk);
        let (bytes, declared) = (&self.held, self.redactor.0.declared.all());
        let keys = shapes::scan(bytes, false);
        let mut safe = declared.start_of_partial_match(bytes).min(keys.partial);
        // A possible beginning may also be the end of a whole secret, which must not be cut in two.
        let mut whole = declared.find(bytes);
        whole.extend(keys.found.into_iter().map(|found| found.context..found.key.end));
        whole.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.start));
        for secret in whole {
            if secret.start < safe && secret.end > safe {
                safe = secret.start;
            }
        }
        if bytes.len() - safe > MAX_HELD_BYTES {
            safe = bytes.len();
        }
        let rest = self.held.split_off(safe);
        let published = std::mem::replace(&mut self.held, rest);
        self.redactor.bytes(&published).into_owned()
    }

    /// Returns what is still held back, at the end of the stream.
    pub fn end(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        self.redactor.bytes(&held).into_owned()
    }
}
