//! The tables of failure modes, of the rules of replicas, and of the limits of connections and sessions, name tests that exist.

use anyhow::Context;

use crate::workspace;

/// Pages, with the number of columns of the tables whose last one has tests.
const PAGES: [(&str, usize); 3] =
    [("docs/dev/failure-modes.md", 3), ("docs/dev/replicas.md", 4), ("docs/limits.md", 4)];

/// Returns a problem for each row without a test, and for each test that is missing.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let root = workspace::root();
    let read = |file: &str| std::fs::read_to_string(root.join(file)).ok();
    let mut found = Vec::new();
    for (page, columns) in PAGES {
        let text = read(page).with_context(|| format!("failed to read {page}"))?;
        found.extend(text.lines().flat_map(|line| problems(page, columns, line, read)));
    }
    Ok(found)
}

fn problems(page: &str, columns: usize, line: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let cells: Vec<_> = line.trim().trim_matches('|').split(" | ").collect();
    let ([subject, ..], Some(tests)) = (&cells[..], cells.last()) else { return Vec::new() };
    if cells.len() != columns || tests.trim() == "test" || subject.contains("---") {
        return Vec::new();
    }
    let mut names = tests.split('`').skip(1).step_by(2).peekable();
    if names.peek().is_none() {
        return vec![format!("{page}: no test for: {}", subject.trim())];
    }
    let is_missing = |name: &&str| {
        let Some((file, function)) = name.split_once(':') else { return true };
        !read(file).is_some_and(|text| text.contains(&format!("fn {function}(")))
    };
    names.filter(is_missing).map(|name| format!("{page}: no such test: {name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tests_are_problems() {
        let read = |file: &str| (file == "a.rs").then(|| "async fn works() {}".to_owned());
        let problems = |line: &str| problems("page.md", 3, line, read);
        assert!(problems("| it breaks | it heals | `a.rs:works` |").is_empty());
        assert!(problems("| failure mode | what Rota does | test |").is_empty());
        assert!(problems("| --- | --- | --- |").is_empty());
        assert!(problems("Text.").is_empty());
        assert!(problems("| a table | of two |").is_empty());
        assert_eq!(problems("| it breaks | it heals | `a.rs:works`, `a.rs:fails`, `b.rs:works` |").len(), 2);
        assert_eq!(problems("| it breaks | it heals | by hand |").len(), 1);
    }
}
