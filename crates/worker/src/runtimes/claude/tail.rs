//! Keeps the last of what a program printed. Knows nothing of what it means.

/// Bytes kept.
const KEPT: usize = 4 * 1024;

#[derive(Debug, Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let extra = self.0.len().saturating_sub(KEPT);
        self.0.drain(..extra);
    }

    /// As text; what is not UTF-8 is replaced.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end() {
        let mut tail = Tail::default();
        tail.add(&vec![b'x'; 10_000]);
        tail.add(b"end");
        let text = tail.text();
        assert_eq!(text.len(), KEPT);
        assert!(text.ends_with("xend"));
    }
}
