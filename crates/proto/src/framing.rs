//! Framing of messages in the bodies of gRPC: each has a prefix, a flag for compression and its length. Knows no message.

use bytes::{Buf, Bytes};
use prost::Message;

/// Bytes of the prefix that each message has.
pub const PREFIX: usize = 5;

/// What the prefix of a message contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub compressed: bool,
    /// Bytes of the message behind it, encoded and perhaps compressed.
    pub length: usize,
}

/// Returns the prefix at the beginning of `bytes`, if all of it is there.
pub fn header(bytes: &[u8]) -> Option<Header> {
    let ([flag, length @ ..], _) = bytes.split_first_chunk::<PREFIX>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    Some(Header { compressed: *flag != 0, length })
}

/// Takes the first message off a buffer, if all of it is there. For callers that accept no compression: the flag is not read.
pub fn split(buffer: &mut (impl Buf + AsRef<[u8]>)) -> Option<Bytes> {
    let Header { length, .. } = header(buffer.as_ref())?;
    if buffer.remaining() - PREFIX < length {
        return None;
    }
    buffer.advance(PREFIX);
    Some(buffer.copy_to_bytes(length))
}

/// Appends a message, encoded and with its prefix.
pub fn append(out: &mut Vec<u8>, message: &impl Message) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    // A vector has room for everything.
    let _ = message.encode(out);
    set_length(&mut out[start..]);
}

/// Returns a message, encoded and with its prefix.
pub fn encode(message: &impl Message) -> Vec<u8> {
    let mut framed = Vec::with_capacity(PREFIX + message.encoded_len());
    append(&mut framed, message);
    framed
}

/// Sets the length in the prefix of `framed`, whose message is the rest.
pub fn set_length(framed: &mut [u8]) {
    if let Some((prefix, message)) = framed.split_first_chunk_mut::<PREFIX>() {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        prefix[1..].copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn prefixes_have_a_flag_and_a_length() {
        let of = |compressed, length| Some(Header { compressed, length });
        let prefixes: [(&[u8], Option<Header>); 6] = [
            (&[], None),
            (&[0, 0, 0, 0], None),
            (&[0, 0, 0, 0, 0], of(false, 0)),
            (&[1, 0, 0, 0, 2, 9], of(true, 2)),
            (&[0, 1, 2, 3, 4], of(false, 0x0102_0304)),
            (&[0, 255, 255, 255, 255], of(false, u32::MAX as usize)),
        ];
        for (bytes, found) in prefixes {
            assert_eq!(header(bytes), found, "{bytes:?}");
        }
    }

    #[test]
    fn messages_are_split_from_any_pieces() {
        let bytes = [0, 0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'c'];
        for size in 1..bytes.len() {
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(size) {
                buffer.extend_from_slice(piece);
                while let Some(message) = split(&mut buffer) {
                    found.push(message);
                }
            }
            assert_eq!(found, [&b"ab"[..], b"", b"c"], "pieces of {size} bytes");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn appended_messages_are_split_again() {
        let texts = ["", "one", &"x".repeat(300)].map(str::to_owned);
        let mut framed = Vec::new();
        for text in &texts {
            append(&mut framed, text);
            assert!(framed.ends_with(&encode(text)));
        }
        let mut framed = Bytes::from(framed);
        let split = std::iter::from_fn(|| split(&mut framed));
        let found: Vec<String> = split.map(|message| Message::decode(message).unwrap()).collect();
        assert_eq!(found, texts);
        assert!(framed.is_empty());
    }
}
