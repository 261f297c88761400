//! The tables of failure modes, of the rules of replicas, of limits, and of what is shown about workflows and delivery, name tests that
//! exist.

use std::collections::HashSet;

use anyhow::Context;

use crate::workspace;

/// Pages whose tables name tests in their last column.
const PAGES: [&str; 5] = [
    "docs/dev/delivery.md",
    "docs/dev/failure-modes.md",
    "docs/dev/replicas.md",
    "docs/dev/workflows.md",
    "docs/limits.md",
];
/// Last columns of the tables of these pages that need no tests: of reasons, of mutants, and of measurements.
const WITHOUT_TESTS: [&str; 3] = ["why", "noticed by", "before there was a limit"];

/// Returns a problem for each row without a test or with the first cell of another one, and for each test that is missing.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let root = workspace::root();
    let read = |file: &str| std::fs::read_to_string(root.join(file)).ok();
    let mut found = Vec::new();
    for page in PAGES {
        let text = read(page).with_context(|| format!("failed to read {page}"))?;
        found.extend(problems(page, &text, read));
    }
    Ok(found)
}

fn problems(page: &str, text: &str, read: impl Fn(&str) -> Option<String> + Copy) -> Vec<String> {
    let mut found = Vec::new();
    let mut header: Option<Vec<&str>> = None;
    let mut rows = HashSet::new();
    for line in text.lines().map(str::trim) {
        let Some(row) = line.strip_prefix('|') else {
            header = None;
            rows.clear();
            continue;
        };
        let cells: Vec<_> = row.trim_end_matches('|').trim().split(" | ").map(str::trim).collect();
        let last = |cells: &[&str]| cells.last().map_or_else(String::new, ToString::to_string);
        match &header {
            None => {
                if last(&cells) != "test" && !WITHOUT_TESTS.contains(&&*last(&cells)) {
                    found.push(format!("{page}: a table without a column of tests: {}", cells[0]));
                }
                header = Some(cells);
            }
            Some(_) if line.contains("---") => {}
            Some(_) if !rows.insert(cells[0].to_owned()) => {
                found.push(format!("{page}: two rows for: {}", cells[0]));
            }
            Some(header) if WITHOUT_TESTS.contains(&&*last(header)) => {}
            Some(header) if header.len() != cells.len() => {
                found.push(format!("{page}: no test for: {}", cells[0]));
            }
            Some(_) => found.extend(missing_tests(page, &cells, read)),
        }
    }
    found
}

fn missing_tests(page: &str, cells: &[&str], read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut names = cells.last().into_iter().flat_map(|tests| tests.split('`').skip(1).step_by(2)).peekable();
    if names.peek().is_none() {
        return vec![format!("{page}: no test for: {}", cells[0])];
    }
    let is_missing = |name: &&str| {
        let Some((file, function)) = name.split_once(':') else { return true };
        !read(file).is_some_and(|text| text.contains(&format!("fn {function}(")))
    };
    names.filter(is_missing).map(|name| format!("{page}: no such test: {name}")).collect()
}

#[cfg(test)]
mod tests {
    fn problems(lines: &[&str]) -> Vec<String> {
        let read = |file: &str| (file == "a.rs").then(|| "async fn works() {}".to_owned());
        super::problems("page.md", &lines.join("\n"), read)
    }

    #[test]
    fn missing_tests_are_problems() {
        let rows = |rows: &[&str]| {
            let head = ["Text.", "", "| failure mode | what Rota does | test |", "| --- | --- | --- |"];
            problems(&[&head[..], rows].concat())
        };
        assert!(rows(&["| it breaks | it heals | `a.rs:works` |", "", "Text."]).is_empty());
        assert_eq!(rows(&["| it breaks | it heals | `a.rs:works`, `a.rs:fails`, `b.rs:works` |"]).len(), 2);
        assert_eq!(rows(&["| it breaks | it heals | by hand |"]).len(), 1);
        assert_eq!(rows(&["| it breaks | it heals |", "| it fails | it heals | `a.rs:works` |"]).len(), 1);
    }

    #[test]
    fn repeated_rows_are_problems() {
        let head = ["| rule | how it is kept | test |", "| --- | --- | --- |"];
        let row = "| 1. It lasts. | by a lock | `a.rs:works` |";
        let changed = "| 1. It lasts. | by a lease | `a.rs:works` |";
        assert_eq!(problems(&[&head[..], &[row, changed]].concat()), ["page.md: two rows for: 1. It lasts."]);
        assert!(problems(&[&head[..], &[row, "", "Text."], &head[..], &[changed]].concat()).is_empty());
    }

    #[test]
    fn tables_without_tests_are_problems() {
        assert_eq!(problems(&["| limit | value |", "| --- | --- |", "| a | 1 |"]).len(), 2);
        assert!(problems(&["| rule | why |", "| --- | --- |", "| a | because |"]).is_empty());
    }
}
