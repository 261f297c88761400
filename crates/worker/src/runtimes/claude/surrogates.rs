//! Escapes of lone UTF-16 surrogates in JSON text, which no Unicode text contains. Knows nothing of lines.

/// Replaces escapes of lone surrogates by the replacement character. `None` if there are none.
pub(super) fn replace_lone(json: &str) -> Option<String> {
    let bytes = json.as_bytes();
    let mut replaced = None::<String>;
    let (mut at, mut copied) = (0, 0);
    while let Some(next) = json[at..].find('\\') {
        let escape = at + next;
        at = match unit(bytes, escape) {
            Some(0xD800..=0xDBFF) if matches!(unit(bytes, escape + 6), Some(0xDC00..=0xDFFF)) => escape + 12,
            Some(0xD800..=0xDFFF) => {
                let text = replaced.get_or_insert_default();
                text.push_str(&json[copied..escape]);
                text.push_str("\\ufffd");
                copied = escape + 6;
                copied
            }
            Some(_) => escape + 6,
            // An escaped character, which may be a backslash.
            None => (escape + 2).min(json.len()),
        };
        if !json.is_char_boundary(at) {
            return None;
        }
    }
    let mut text = replaced?;
    text.push_str(&json[copied..]);
    Some(text)
}

/// Returns the code unit of an escape such as `\u00e4`.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lone_surrogates_are_replaced() {
        for (json, expected) in [
            (r#"{"a":"x"}"#, None),
            (r#""\ud83d\ude00""#, None),
            (r#""\\ud83d""#, None),
            (r#""\ud83d""#, Some(r#""\ufffd""#)),
            (r#""\ude00 \ud83d\n \ud83d\ud83d\ude00ä""#, Some(r#""\ufffd \ufffd\n \ufffd\ud83d\ude00ä""#)),
            (r#""\u00e4 \ud83d"#, Some(r#""\u00e4 \ufffd"#)),
            ("\\", None),
        ] {
            assert_eq!(replace_lone(json).as_deref(), expected, "{json}");
        }
    }
}
