//! Rules that allow calls of a tool, in the syntax of Claude Code: `Tool` or `Tool(content)`. What people are shown, what is
//! stored and what the CLI gets is the same text.

/// Size limit of a rule as text, in bytes.
pub const MAX_RULE: usize = 512;
/// Rules of one permission request.
pub const MAX_SUGGESTED: usize = 16;

/// Splits a rule into its tool and its content. `None` for a text that is no rule, or that a person could read as another one:
/// with parentheses in its content, which the CLI takes for the end of the rule, or with characters that are not visible.
pub fn parse(rule: &str) -> Option<(&str, Option<&str>)> {
    if rule.len() > MAX_RULE {
        return None;
    }
    let (tool, content) = match rule.split_once('(') {
        None => (rule, None),
        Some((tool, rest)) => (tool, Some(rest.strip_suffix(')')?)),
    };
    let named = !tool.is_empty()
        && tool.len() <= 128
        && tool.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    let readable = content.is_none_or(|content| {
        !content.trim().is_empty() && content.chars().all(|char| is_visible(char) && !"()\\".contains(char))
    });
    (named && readable).then_some((tool, content))
}

/// Whether a person sees a character as what it is. Of blanks there is one, and no text runs from right to left.
fn is_visible(char: char) -> bool {
    char == ' ' || (!char.is_control() && !char.is_whitespace() && !is_format(char))
}

/// Characters of the Unicode category Cf and its like: joiners, marks of direction, tags, variation selectors.
fn is_format(char: char) -> bool {
    matches!(u32::from(char),
        0xAD | 0x34F | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F
        | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0
        | 0xFFF0..=0xFFFB | 0xE0000..=0xE0FFF)
}

/// Returns a rule in words.
pub fn describe(tool: &str, content: Option<&str>) -> String {
    let Some(content) = content else { return format!("every use of {tool}") };
    let stem = content.strip_suffix(":*").or_else(|| content.strip_suffix(" *"));
    match (tool, stem) {
        ("Bash", Some(stem)) => format!("every command that begins with `{stem}`"),
        ("Bash", None) if content.contains('*') => format!("every command like `{content}`"),
        ("Bash", None) => format!("the command `{content}`, whenever it is used"),
        _ => format!("every use of {tool} for `{content}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_what_they_look_like() {
        assert_eq!(parse("Bash(npm test *)"), Some(("Bash", Some("npm test *"))));
        assert_eq!(parse("mcp__forge__open_pr"), Some(("mcp__forge__open_pr", None)));
        for hostile in [
            "",
            "Bash()",
            "Bash( )",
            "Bash(ls) Bash(*)",
            "Bash(ls),Bash(rm *)",
            "Bash(ls",
            "Bash(ls)x",
            "Bash *",
            "We b(ls)",
            "Bash(ls\nrm)",
            "Bash(ls\u{202e}mr)",
            "Bash(ls\u{200b})",
            "Bash(ls\u{a0}x)",
            "Bash(a\\)",
        ] {
            assert_eq!(parse(hostile), None, "{hostile:?}");
        }
        assert_eq!(parse(&format!("Bash({})", "x".repeat(MAX_RULE))), None);
    }

    #[test]
    fn rules_are_described() {
        let text = |rule: &str| parse(rule).map(|(tool, content)| describe(tool, content)).unwrap();
        assert_eq!(text("Bash(npm test *)"), "every command that begins with `npm test`");
        assert_eq!(text("Bash(git status)"), "the command `git status`, whenever it is used");
        assert_eq!(text("WebFetch(domain:a.b)"), "every use of WebFetch for `domain:a.b`");
        assert_eq!(text("Write"), "every use of Write");
    }
}
