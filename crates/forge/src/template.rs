//! Texts of requests with names such as `${task}` in them.

/// Names that a text may contain.
pub const NAMES: [&str; 8] = ["title", "prompt", "result", "task", "name", "agent", "branch", "cost"];

/// Body without one of the task's own.
pub const BODY: &str = "${result}\n\n---\n${title}\n\nTask `${task}` of agent `${agent}`, ${cost}\n";

/// Returns the first name in a text that means nothing.
pub fn unknown_name(text: &str) -> Option<&str> {
    let mut names = text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    names.find(|name| !NAMES.contains(name))
}

/// Puts values in the place of names. What a value contains stays as it is.
pub fn fill(text: &str, value: impl Fn(&str) -> String) -> String {
    let mut parts = text.split("${");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('}').filter(|(name, _)| NAMES.contains(name)) {
            Some((name, rest)) => {
                filled.push_str(&value(name));
                filled.push_str(rest);
            }
            None => {
                filled.push_str("${");
                filled.push_str(part);
            }
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_once() {
        let value = |name: &str| if name == "title" { "${task}".to_owned() } else { name.to_uppercase() };
        assert_eq!(fill("a ${title} ${cost}${", value), "a ${task} COST${");
        assert_eq!(fill("${other} $x", value), "${other} $x");
        assert_eq!(unknown_name("${title} ${other}"), Some("other"));
        assert_eq!(unknown_name(BODY), None);
    }
}
