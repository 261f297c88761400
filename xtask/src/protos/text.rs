//! Shapes of names.

/// `PascalCase`: letters and digits, the first a capital.
pub(crate) fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric())
}

/// `lower_snake`.
pub(crate) fn is_lower_snake(name: &str) -> bool {
    is_snake(name, |c| c.is_ascii_lowercase())
}

/// `UPPER_SNAKE`.
pub(crate) fn is_upper_snake(name: &str) -> bool {
    is_snake(name, |c| c.is_ascii_uppercase())
}

fn is_snake(name: &str, letter: fn(char) -> bool) -> bool {
    name.starts_with(letter)
        && !name.ends_with('_')
        && !name.contains("__")
        && name.chars().all(|c| letter(c) || c.is_ascii_digit() || c == '_')
}

/// `PascalCase` as `PASCAL_CASE`.
pub(crate) fn upper_snake(pascal: &str) -> String {
    let mut snake = String::new();
    for c in pascal.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_uppercase());
    }
    snake
}

/// `v1`, `v1alpha2`, `v3beta1`.
pub(crate) fn is_version(part: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let Some(rest) = part.strip_prefix('v') else { return false };
    match rest.split_once("alpha").or_else(|| rest.split_once("beta")) {
        Some((major, minor)) => digits(major) && digits(minor),
        None => digits(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        assert!(is_pascal("TaskState") && !is_pascal("taskState") && !is_pascal("Task_State"));
        assert!(is_lower_snake("log_seq2") && !is_lower_snake("logSeq") && !is_lower_snake("log__seq"));
        assert!(is_upper_snake("TASK_STATE_2") && !is_upper_snake("_TASK") && !is_upper_snake("Task"));
        assert_eq!(upper_snake("OnDependencyFailure"), "ON_DEPENDENCY_FAILURE");
        assert!(is_version("v1") && is_version("v1alpha1") && is_version("v2beta10"));
        assert!(!is_version("1") && !is_version("v") && !is_version("v1alpha") && !is_version("vx"));
    }
}
