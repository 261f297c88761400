//! The last of what a program prints, without secrets. These go before anything is dropped: of one that lost its
//! beginning nobody recognizes the rest. Knows nothing of what it means.

use rota_telemetry::redact::{Redactor, Stream};

#[derive(Debug)]
pub(crate) struct Tail {
    stream: Stream,
    kept: Vec<u8>,
    most: usize,
}

impl Tail {
    pub(crate) fn new(redactor: &Redactor, most: usize) -> Self {
        Self { stream: Stream::new(redactor.clone()), kept: Vec::new(), most }
    }

    /// Takes a piece, and gives what may be told by now.
    pub(crate) fn add(&mut self, piece: &[u8]) -> Vec<u8> {
        let clean = self.stream.push(piece);
        self.keep(clean)
    }

    /// What was held back: nothing more is printed.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        let clean = self.stream.end();
        self.keep(clean)
    }

    fn keep(&mut self, clean: Vec<u8>) -> Vec<u8> {
        self.kept.extend_from_slice(&clean);
        if self.kept.len() > 4 * self.most {
            self.kept.drain(..self.kept.len() - self.most);
        }
        clean
    }

    pub(crate) fn last(&self) -> &[u8] {
        &self.kept[self.kept.len().saturating_sub(self.most)..]
    }

    /// All that is there at the end, as text; what is not UTF-8 is replaced.
    pub(crate) fn text(&mut self) -> String {
        self.end();
        String::from_utf8_lossy(self.last()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end() {
        let mut tail = Tail::new(&Redactor::default(), 4096);
        tail.add(&vec![b'x'; 10_000]);
        tail.add(b"end");
        let text = tail.text();
        assert_eq!(text.len(), 4096);
        assert!(text.ends_with("xend"));
    }

    #[test]
    fn no_secret_loses_its_beginning() {
        let secret = uuid::Uuid::new_v4().to_string();
        let dashes = "-".repeat(5);
        let key = format!("{dashes}BEGIN PRIVATE KEY{dashes}\n{secret}\n{dashes}END PRIVATE KEY{dashes}");
        for (redactor, secret, printed) in
            [(Redactor::new([secret.as_str()]), &secret, &secret), (Redactor::default(), &secret, &key)]
        {
            for after in 0..100 {
                let mut tail = Tail::new(&redactor, 80);
                for piece in format!("{printed}\n{}", "x".repeat(after)).as_bytes().chunks(7) {
                    tail.add(piece);
                }
                let text = tail.text();
                assert!(text.ends_with(&"x".repeat(after.min(80))));
                assert!(!text.contains(&secret[secret.len() - 8..]), "{text}");
            }
        }
    }
}
