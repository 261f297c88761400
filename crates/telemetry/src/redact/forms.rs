//! Forms in which a declared value may occur: inside literals, escaped, encoded. Knows nothing of the search.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// Shorter values are not searched for in encoded form, which is too short to be distinctive.
const MIN_ENCODED_BYTES: usize = 8;
/// Longer values are files such as certificates, of which the lines are values, too.
const MAX_ENCODED_BYTES: usize = 8 << 10;

/// Returns the value and its other forms. May contain duplicates.
pub(super) fn forms(value: &str) -> Vec<String> {
    let quoted = |text: String| text.trim_matches('"').to_owned();
    let mut forms = vec![
        value.to_owned(),
        quoted(format!("{value:?}")),
        quoted(serde_json::to_string(value).unwrap_or_default()),
        value.replace('\'', r"'\''"),
    ];
    if !(MIN_ENCODED_BYTES..=MAX_ENCODED_BYTES).contains(&value.len()) {
        return forms;
    }
    if value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        forms.extend([value.to_ascii_lowercase(), value.to_ascii_uppercase()]);
    }
    let hex = |upper: bool| value.bytes().map(|byte| hex_digits(byte, upper)).collect::<String>();
    forms.extend([hex(false), hex(true), percent_encoded(value, false), percent_encoded(value, true)]);
    for preceding in 0..3 {
        forms.extend([&STANDARD, &URL_SAFE].map(|engine| base64_within(engine, value, preceding)));
    }
    forms
}

fn hex_digits(byte: u8, upper: bool) -> String {
    if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }
}

fn percent_encoded(value: &str, upper: bool) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            char::from(byte).to_string()
        } else {
            format!("%{}", hex_digits(byte, upper))
        }
    };
    value.bytes().map(encode).collect()
}

/// Returns the digits that depend on the value alone, where `preceding` bytes modulo three are in front of it, as the
/// user name in `user:password`.
fn base64_within(engine: &impl Engine, value: &str, preceding: usize) -> String {
    let mut bytes = vec![0; preceding];
    bytes.extend_from_slice(value.as_bytes());
    let whole = bytes.len() / 3 * 3;
    let text = engine.encode(&bytes[..whole]);
    // A digit has six bits: with one byte in front the first two digits depend on that, with two the first three.
    let skipped = if preceding == 0 { 0 } else { preceding + 1 };
    text[skipped..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_found_at_every_alignment() {
        let value = "correct horse battery";
        for before in ["", "u", "us", "user:"] {
            for after in ["", "!", "!!"] {
                for engine in [&STANDARD, &URL_SAFE] {
                    let text = engine.encode(format!("{before}{value}{after}"));
                    assert!(forms(value).iter().any(|form| text.contains(form.as_str())), "{text}");
                }
            }
        }
    }
}
