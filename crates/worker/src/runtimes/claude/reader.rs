//! Splits the CLI's output into lines of bounded length. Knows nothing of their contents.

use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, LinesCodec, LinesCodecError};

/// Maximum length of a line. Lines of 200 KB were observed; their length depends on tools.
pub(super) const MAX_LINE_BYTES: usize = 8 * 1024 * 1024;

/// Content of a line, if it is readable.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RawLine {
    Text(String),
    /// Exceeded [`MAX_LINE_BYTES`] and was skipped.
    TooLong,
    NotUtf8,
}

/// Codec that continues after an unreadable line, which the inner codec reports as the end of the stream.
#[derive(Debug)]
pub(super) struct LineDecoder(LinesCodec);

impl LineDecoder {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self(LinesCodec::new_with_max_length(max_bytes))
    }
}

impl Decoder for LineDecoder {
    type Item = RawLine;
    type Error = std::io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<RawLine>, Self::Error> {
        raw_line(self.0.decode(bytes))
    }

    fn decode_eof(&mut self, bytes: &mut BytesMut) -> Result<Option<RawLine>, Self::Error> {
        raw_line(self.0.decode_eof(bytes))
    }
}

fn raw_line(line: Result<Option<String>, LinesCodecError>) -> Result<Option<RawLine>, std::io::Error> {
    match line {
        Ok(text) => Ok(text.map(RawLine::Text)),
        Err(LinesCodecError::MaxLineLengthExceeded) => Ok(Some(RawLine::TooLong)),
        Err(LinesCodecError::Io(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
            Ok(Some(RawLine::NotUtf8))
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
    async fn decoding_continues_after_unreadable_lines() {
        let bytes = b"one\n\xff\xfe\n0123456789 0123456789\ntwo\nlast without end";
        let pieces: Vec<_> =
            FramedRead::new(&bytes[..], LineDecoder::new(16)).map(Result::unwrap).collect().await;
        let text = |text: &str| RawLine::Text(text.to_owned());
        assert_eq!(
            pieces,
            [text("one"), RawLine::NotUtf8, RawLine::TooLong, text("two"), text("last without end")]
        );
    }
}
