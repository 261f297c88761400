//! W3C trace context (<https://www.w3.org/TR/trace-context/>): ids, and the `traceparent` header.

use std::fmt;
use std::str::FromStr;

/// A position in a trace: which trace, which span, whether it is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Context {
    /// The trace; never zero.
    pub trace_id: [u8; 16],
    /// The span; never zero.
    pub span_id: [u8; 8],
    /// Whether whoever started the trace records it.
    pub sampled: bool,
}

/// Not a `traceparent` of version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl FromStr for Context {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(version), Some(trace), Some(span), Some(flags)) => (version, trace, span, flags),
            _ => return Err(Malformed),
        };
        // A later version may append fields; version 00 may not, and ff is forbidden.
        if version.len() != 2 || version == "ff" || (version == "00" && parts.next().is_some()) {
            return Err(Malformed);
        }
        let context = Self {
            trace_id: from_hex(trace)?,
            span_id: from_hex(span)?,
            sampled: from_hex::<1>(flags)?[0] & 1 == 1,
        };
        if context.trace_id == [0; 16] || context.span_id == [0; 8] { Err(Malformed) } else { Ok(context) }
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-0{}", hex(&self.trace_id), hex(&self.span_id), u8::from(self.sampled))
    }
}

/// Lower-case hexadecimal, as trace and span ids are written.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], Malformed> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 || !digits.iter().all(|d| d.is_ascii_digit() || (b'a'..=b'f').contains(d)) {
        return Err(Malformed);
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| Malformed)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(text.parse::<Context>().map(|c| c.to_string()), Ok(text.to_owned()));
    }

    #[test]
    fn malformed_ones_are_refused() {
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-ä-b-01",
        ] {
            assert_eq!(bad.parse::<Context>(), Err(Malformed), "{bad}");
        }
    }
}
