//! What every file of the repository keeps to: it says what it is for, it is not too long, it holds
//! nothing of the machine on which it was written, and its text is clean.

use std::path::{Path, PathBuf};

/// Lines that a Rust file may have.
const LONGEST: usize = 400;
/// Files that may be longer, and why.
const LONG: &[(&str, &str)] = &[];
/// The rules themselves have to spell what they forbid.
const RULES: &[&str] = &["xtask/src/check/files.rs"];
/// Left as they are: written by tools, or by law.
const AS_IT_IS: &[&str] = &["Cargo.lock", "LICENSE"];

/// What no file says, and why.
const NOWHERE: &[(&str, &str)] = &[
    ("/root/", "a path of one machine"),
    ("/Users/", "a path of one machine"),
    ("<<<<<<< ", "a merge that was not finished"),
    (">>>>>>> ", "a merge that was not finished"),
];
/// What no Rust file says, and why.
const NOT_IN_RUST: &[(&str, &str)] = &[
    ("todo!(", "work that is not done"),
    ("unimplemented!(", "work that is not done"),
    ("TODO", "work that is not done belongs in an issue"),
    ("FIXME", "work that is not done belongs in an issue"),
    ("allow(dead_code)", "code that nobody calls is deleted"),
];
/// Directories of people: a path of one machine, unless it is an example's.
const HOMES: &str = "/home/";
const EXAMPLE_HOMES: &[&str] = &["/home/you", "/home/user"];

/// A file as text.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Reads the files; binary ones are left out.
pub(crate) fn read(root: &Path, paths: Vec<PathBuf>) -> Vec<File> {
    paths
        .into_iter()
        .filter_map(|path| {
            let text = String::from_utf8(std::fs::read(root.join(&path)).ok()?).ok()?;
            Some(File { path: path.to_string_lossy().into_owned(), text })
        })
        .collect()
}

/// Looks at each file.
pub(crate) fn check(files: &[File]) -> Vec<String> {
    let mut problems: Vec<_> =
        files.iter().filter(|file| !AS_IT_IS.contains(&file.path.as_str())).flat_map(one).collect();
    for (path, _) in LONG {
        if !files.iter().any(|file| file.path == *path && file.text.lines().count() > LONGEST) {
            problems.push(format!("{path} need not be listed as long any more"));
        }
    }
    problems
}

fn one(file: &File) -> Vec<String> {
    let (path, text) = (&file.path, &file.text);
    let mut problems = Vec::new();
    let rust = path.ends_with(".rs");
    if rust && !text.starts_with("//!") {
        problems
            .push(format!("{path}:1 must begin with `//!`: what the file owns, and what it must not know"));
    }
    let lines = text.lines().count();
    if rust && lines > LONGEST && !LONG.iter().any(|(long, _)| long == path) {
        problems.push(format!(
            "{path} has {lines} lines, more than {LONGEST}: split it, or list it with a reason"
        ));
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        problems.push(format!("{path} must end with one newline"));
    }
    for (at, line) in text.split('\n').enumerate() {
        problems
            .extend(of_line(path, rust, line).into_iter().map(|what| format!("{path}:{} {what}", at + 1)));
    }
    problems
}

fn of_line(path: &str, rust: bool, line: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if line.ends_with([' ', '\t', '\r']) && !path.ends_with(".snap") {
        problems.push("ends with white space".to_owned());
    }
    if RULES.contains(&path) {
        return problems;
    }
    let words = NOWHERE.iter().chain(NOT_IN_RUST.iter().filter(|_| rust));
    for (word, why) in words.filter(|(word, _)| line.contains(word)) {
        problems.push(format!("says `{}`: {why}", word.trim()));
    }
    let mut rest = line;
    while let Some(at) = rest.find(HOMES) {
        if !EXAMPLE_HOMES.iter().any(|example| rest[at..].starts_with(example)) {
            problems.push(format!("says `{HOMES}`: a path of one machine"));
        }
        rest = &rest[at + HOMES.len()..];
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        check(&[File { path: path.to_owned(), text: text.to_owned() }])
    }

    #[test]
    fn clean_files_pass() {
        assert_eq!(problems("a.rs", "//! A.\nfn a() {}\n"), Vec::<String>::new());
        assert_eq!(problems("a.md", "See /home/you/notes.\n"), Vec::<String>::new());
        assert_eq!(problems("empty.txt", ""), Vec::<String>::new());
    }

    #[test]
    fn each_rule_finds_its_breach() {
        for (path, text, what) in [
            ("a.rs", "fn a() {}\n", "//!"),
            ("a.rs", "//! A.\nfn a() { todo!() }\n", "todo!"),
            ("a.md", "no end", "newline"),
            ("a.md", "two ends\n\n", "newline"),
            ("a.md", "space \n", "white space"),
            ("a.md", "tool\r\n", "white space"),
            ("a.md", "in /root/x\n", "machine"),
            ("a.md", "in /home/somebody/x\n", "machine"),
            ("a.md", "in /home/you/x and /home/me/x\n", "machine"),
            ("a.md", "<<<<<<< HEAD\n", "merge"),
        ] {
            let found = problems(path, text);
            assert!(found.len() == 1 && found[0].contains(what), "{text:?}: {found:?}");
        }
        let long = format!("//! A.\n{}", "fn a() {}\n".repeat(LONGEST));
        assert!(problems("a.rs", &long)[0].contains("lines"));
    }
}
