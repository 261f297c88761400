//! The last bytes of a stream, redacted before anything is dropped: a secret without its beginning would not be
//! recognized. Knows nothing of their meaning.

use rota_telemetry::redact::{Redactor, StreamRedactor};

#[derive(Debug)]
pub(crate) struct Tail {
    stream: StreamRedactor,
    kept: Vec<u8>,
    capacity: usize,
}

impl Tail {
    pub(crate) fn new(redactor: &Redactor, capacity: usize) -> Self {
        Self { stream: StreamRedactor::new(redactor.clone()), kept: Vec::new(), capacity }
    }

    /// Appends a chunk and returns its redacted form, as far as it is final.
    pub(crate) fn add(&mut self, chunk: &[u8]) -> Vec<u8> {
        let clean = self.stream.push(chunk);
        self.keep(clean)
    }

    /// Returns what was held back, at the end of the stream.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        let clean = self.stream.end();
        self.keep(clean)
    }

    fn keep(&mut self, clean: Vec<u8>) -> Vec<u8> {
        self.kept.extend_from_slice(&clean);
        if self.kept.len() > 4 * self.capacity {
            self.kept.drain(..self.kept.len() - self.capacity);
        }
        clean
    }

    pub(crate) fn last(&self) -> &[u8] {
        &self.kept[self.kept.len().saturating_sub(self.capacity)..]
    }

    /// Returns the tail as text at the end of the stream, with invalid UTF-8 replaced.
    pub(crate) fn text(&mut self) -> String {
        self.end();
        String::from_utf8_lossy(self.last()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_last_bytes() {
        let mut tail = Tail::new(&Redactor::default(), 4096);
        tail.add(&vec![b'x'; 10_000]);
        tail.add(b"end");
        let text = tail.text();
        assert_eq!(text.len(), 4096);
        assert!(text.ends_with("xend"));
    }

    #[test]
    fn truncated_secrets_are_still_redacted() {
        let secret = uuid::Uuid::new_v4().to_string();
        let dashes = "-".repeat(5);
        let key = format!("{dashes}BEGIN PRIVATE KEY{dashes}\n{secret}\n{dashes}END PRIVATE KEY{dashes}");
        for (redactor, secret, printed) in
            [(Redactor::new([secret.as_str()]), &secret, &secret), (Redactor::default(), &secret, &key)]
        {
            for after in 0..100 {
                let mut tail = Tail::new(&redactor, 80);
                for chunk in format!("{printed}\n{}", "x".repeat(after)).as_bytes().chunks(7) {
                    tail.add(chunk);
                }
                let text = tail.text();
                assert!(text.ends_with(&"x".repeat(after.min(80))));
                assert!(!text.contains(&secret[secret.len() - 8..]), "{text}");
            }
        }
    }
}
