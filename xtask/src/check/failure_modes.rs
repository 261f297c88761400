//! The table of failure modes names tests that exist.

use anyhow::Context;

use crate::workspace;

const PAGE: &str = "docs/dev/failure-modes.md";

/// Returns a problem for each row without a test, and for each test that is missing.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let root = workspace::root();
    let page = std::fs::read_to_string(root.join(PAGE)).with_context(|| format!("failed to read {PAGE}"))?;
    let read = |file: &str| std::fs::read_to_string(root.join(file)).ok();
    Ok(page.lines().flat_map(|line| problems(line, read)).collect())
}

fn problems(line: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let cells: Vec<_> = line.trim().trim_matches('|').split(" | ").collect();
    let [mode, _, tests] = cells[..] else { return Vec::new() };
    if mode.trim() == "failure mode" || mode.contains("---") {
        return Vec::new();
    }
    let mut names = tests.split('`').skip(1).step_by(2).peekable();
    if names.peek().is_none() {
        return vec![format!("{PAGE}: no test for: {}", mode.trim())];
    }
    let is_missing = |name: &&str| {
        let Some((file, function)) = name.split_once(':') else { return true };
        !read(file).is_some_and(|text| text.contains(&format!("fn {function}(")))
    };
    names.filter(is_missing).map(|name| format!("{PAGE}: no such test: {name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tests_are_problems() {
        let read = |file: &str| (file == "a.rs").then(|| "async fn works() {}".to_owned());
        assert!(problems("| it breaks | it heals | `a.rs:works` |", read).is_empty());
        assert!(problems("| failure mode | what Rota does | test |", read).is_empty());
        assert!(problems("| --- | --- | --- |", read).is_empty());
        assert!(problems("Text.", read).is_empty());
        assert_eq!(
            problems("| it breaks | it heals | `a.rs:works`, `a.rs:fails`, `b.rs:works` |", read).len(),
            2
        );
        assert_eq!(problems("| it breaks | it heals | by hand |", read).len(), 1);
    }
}
