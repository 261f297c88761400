//! Every page and file that a text points to is there: links in Markdown, and pages of `docs/` that
//! comments name.

use std::path::{Component, Path, PathBuf};

use super::files::File;

/// Looks at Markdown's links, and at names of pages anywhere.
pub(crate) fn check(root: &Path, files: &[File]) -> Vec<String> {
    let mut problems = Vec::new();
    for file in files {
        let here = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        if file.path.ends_with(".md") {
            for target in links(&file.text) {
                if !exists(root, &here.join(&target)) {
                    problems.push(format!("{} links to {target}, which is not there", file.path));
                }
            }
        }
        let comments = [".rs", ".proto", ".toml", ".yaml"].iter().any(|end| file.path.ends_with(end));
        // What xtask itself writes and tests is named there by parts.
        if comments && !file.path.starts_with("xtask/") {
            for page in pages(&file.text) {
                if !exists(root, Path::new(&page)) {
                    problems.push(format!("{} names {page}, which is not there", file.path));
                }
            }
        }
    }
    problems
}

/// Targets of `[text](target)` inside the repository, without anchors. Code is passed over.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        // Every second piece between backticks is code.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for rest in prose.split("](").skip(1) {
            let Some((target, _)) = rest.split_once(')') else { continue };
            let path = target.split('#').next().unwrap_or_default();
            if !path.is_empty() && !target.contains(':') {
                found.push(path.to_owned());
            }
        }
    }
    found
}

/// `docs/….md` wherever it is named.
fn pages(text: &str) -> Vec<String> {
    text.match_indices("docs/")
        .filter_map(|(at, _)| {
            let ours = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
            let before = text[..at].chars().next_back();
            let rest = &text[at..];
            let end = rest.find(|c| !ours(c)).unwrap_or(rest.len());
            let page = rest[..end].trim_end_matches('.');
            (page.ends_with(".md") && !before.is_some_and(ours)).then(|| page.to_owned())
        })
        .collect()
}

fn exists(root: &Path, path: &Path) -> bool {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if !plain.pop() => return false,
            Component::Normal(name) => plain.push(name),
            _ => {}
        }
    }
    root.join(plain).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_markdown() {
        let text = "See [a](a.md), [b](../b/c.md#d), [web](https://x.y/z), [here](#top) and `[no](no.md)`.\n\
                    ```\n[code](code.md)\n```\n[c](c/)\n";
        assert_eq!(links(text), ["a.md", "../b/c.md", "c/"]);
    }

    #[test]
    fn pages_in_comments() {
        let text = "// see docs/a.md. Or `docs/b/c.md`, not https://x.y/docs/d.md nor docs/.";
        assert_eq!(pages(text), ["docs/a.md", "docs/b/c.md"]);
    }

    #[test]
    fn what_is_there() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("docs")).unwrap();
        std::fs::write(root.path().join("docs/a.md"), "").unwrap();
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let good = file("docs/b.md", "[a](a.md) [a](../docs/a.md)");
        assert_eq!(check(root.path(), &[good, file("c.rs", "// docs/a.md")]), Vec::<String>::new());
        assert_eq!(check(root.path(), &[file("docs/b.md", "[x](x.md) [y](../../a.md)")]).len(), 2);
        assert_eq!(check(root.path(), &[file("c.proto", "// docs/x.md")]).len(), 1);
    }
}
