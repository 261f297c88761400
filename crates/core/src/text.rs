//! Limits on the length of text.

/// Returns the longest prefix of at most `max` bytes that ends at a character boundary.
pub fn prefix(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ends_at_a_character() {
        assert_eq!(prefix("häuser", 2), "h");
        assert_eq!(prefix("häuser", 3), "hä");
        assert_eq!(prefix("häuser", 99), "häuser");
    }
}
