//! Cuts the CLI's output into lines of bounded length. Knows nothing of what they say.

use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, LinesCodec, LinesCodecError};

/// Longest line that is read. The CLI was seen to print lines of 200 KB; tools decide how long they get.
pub(super) const LONGEST: usize = 8 * 1024 * 1024;

/// What stood between two line ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// Longer than [`LONGEST`]; skipped.
    TooLong,
    NotUtf8,
}

/// A codec that goes on after a line that cannot be read, which its inner one reports as the stream's end.
#[derive(Debug)]
pub(super) struct Lines(LinesCodec);

impl Lines {
    pub(super) fn new(longest: usize) -> Self {
        Self(LinesCodec::new_with_max_length(longest))
    }
}

impl Decoder for Lines {
    type Item = Piece;
    type Error = std::io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Piece>, Self::Error> {
        piece(self.0.decode(bytes))
    }

    fn decode_eof(&mut self, bytes: &mut BytesMut) -> Result<Option<Piece>, Self::Error> {
        piece(self.0.decode_eof(bytes))
    }
}

fn piece(line: Result<Option<String>, LinesCodecError>) -> Result<Option<Piece>, std::io::Error> {
    match line {
        Ok(text) => Ok(text.map(Piece::Text)),
        Err(LinesCodecError::MaxLineLengthExceeded) => Ok(Some(Piece::TooLong)),
        Err(LinesCodecError::Io(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
            Ok(Some(Piece::NotUtf8))
        }
        Err(LinesCodecError::Io(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio_util::codec::FramedRead;

    use super::*;

    #[tokio::test]
    async fn goes_on_after_lines_that_cannot_be_read() {
        let bytes = b"one\n\xff\xfe\n0123456789 0123456789\ntwo\nlast without end";
        let pieces: Vec<_> = FramedRead::new(&bytes[..], Lines::new(16)).map(Result::unwrap).collect().await;
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(
            pieces,
            [text("one"), Piece::NotUtf8, Piece::TooLong, text("two"), text("last without end")]
        );
    }
}
