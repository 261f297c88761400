//! What comes piece by piece: a secret that lies across two pieces is found all the same. The end of a piece is held
//! back for as long as it may be the beginning of one. Knows nothing of who prints.

use super::{Redactor, shapes};

/// Most that is held back; no key is as long.
const MOST: usize = 32 << 10;

/// One stream.
#[derive(Debug, Default)]
pub struct Stream {
    redactor: Redactor,
    held: Vec<u8>,
}

impl Stream {
    /// One from which a redactor takes secrets.
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor, held: Vec::new() }
    }

    /// Takes a piece, and gives what may be told by now.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(piece);
        let (bytes, redactor) = (&self.held, &self.redactor.0);
        let mut safe = redactor.begins(bytes).min(shapes::begins(bytes));
        // What may be a beginning may also be the end of a whole one, which must not be cut in two.
        while let Some(start) = redactor.across(bytes, safe).or_else(|| shapes::across(bytes, safe)) {
            safe = start;
        }
        if bytes.len() - safe > MOST {
            safe = bytes.len();
        }
        let rest = self.held.split_off(safe);
        let told = std::mem::replace(&mut self.held, rest);
        self.redactor.bytes(&told).into_owned()
    }

    /// What is still held back: the stream has ended.
    pub fn end(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        self.redactor.bytes(&held).into_owned()
    }
}
