//! Subagents that a repository brings along: one with a permission mode of its own may do what the agent may not. Knows files, and
//! nothing of the CLI's options.
//!
//! No option takes the mode away, so such a subagent is denied by its name. A file whose name and mode another parser of YAML may
//! read in another way is refused.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use serde_json::Value;

use super::project::text;
use crate::program_dir;

/// Where a repository has its subagents.
const FOLDER: &str = ".claude/agents";
/// Limit of files and folders.
const MAX_ENTRIES: usize = 2000;
const MAX_DEPTH: usize = 16;
/// Keys of the head of a file.
const NAME: &str = "name";
const MODE: &str = "permissionMode";
/// Letters for which the CLI quotes a value.
const SPECIAL: [char; 13] = ['{', '}', '[', ']', '*', '&', '#', '!', '|', '>', '%', '@', '`'];
/// Modes that only deny more than those which are not strict.
const HARMLESS: [&str; 4] = ["default", "manual", "plan", "dontAsk"];
/// Modes than which each other one allows more, or asks for more.
const STRICT: [&str; 2] = ["plan", "dontAsk"];

/// Returns the names of the subagents that would have more permissions than an agent with the permission mode `mode`. The CLI loads
/// those of the folders above the workspace too, up to the root of the repository, and those of the directories that it is given
/// besides.
pub(super) fn escalating(workspace: &Path, given: &[PathBuf], mode: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut left = MAX_ENTRIES;
    for folder in workspace.ancestors() {
        let root = match program_dir::open(folder) {
            Ok(root) => root,
            Err(_) if folder != workspace => break,
            Err(error) => return Err(error),
        };
        of_folder(&root, FOLDER, MAX_DEPTH, &mut left, mode, &mut names)?;
        if root.symlink_metadata(".git").is_ok() {
            break;
        }
    }
    for folder in given {
        // Links on the way are followed, as the CLI does.
        let root = match folder.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found.and_then(|folder| program_dir::open(&folder)),
        };
        root.and_then(|root| of_folder(&root, FOLDER, MAX_DEPTH, &mut left, mode, &mut names))
            .map_err(|error| named(&folder.to_string_lossy(), &error))?;
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn of_folder(
    root: &Dir,
    path: &str,
    depth: usize,
    left: &mut usize,
    mode: &str,
    names: &mut Vec<String>,
) -> io::Result<()> {
    let entries = match root.read_dir(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        *left = left.checked_sub(1).filter(|_| depth > 0).ok_or_else(|| named(path, "too many files"))?;
        let Some(name) = name.to_str() else { return Err(named(path, "a name is not UTF-8")) };
        let path = format!("{path}/{name}");
        match root.metadata(&path) {
            Ok(found) if found.is_dir() => of_folder(root, &path, depth - 1, left, mode, names)?,
            // A link to nothing, unless it is one to elsewhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(named(&path, &error)),
            Ok(_) if path.ends_with(".md") => {
                let text = text(root, &path).map_err(|error| named(&path, &error))?.unwrap_or_default();
                match read(&text, mode) {
                    Subagent::Harmless => {}
                    Subagent::Escalates(name) => names.push(name),
                    Subagent::Unclear => {
                        let what = "its permission mode or its name is not written plainly";
                        return Err(named(&path, &what));
                    }
                }
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

fn named(path: &str, error: &(impl std::fmt::Display + ?Sized)) -> io::Error {
    io::Error::other(format!("{path}: {error}"))
}

#[derive(Debug, PartialEq, Eq)]
enum Subagent {
    Harmless,
    Escalates(String),
    Unclear,
}

fn read(text: &str, mode: &str) -> Subagent {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let Some((_, rest)) = text.strip_prefix("---").and_then(|rest| rest.split_once('\n')) else {
        return Subagent::Harmless;
    };
    // The CLI ends the head there, wherever that is in a line.
    let head = rest.split("---").next().unwrap_or_default().replace("\r\n", "\n");
    // The parser of the CLI ends lines at some of these, and passes over others.
    let odd = |letter: char| {
        letter.is_control() && !matches!(letter, '\n' | '\t')
            || matches!(letter, '\u{feff}' | '\u{2028}' | '\u{2029}')
    };
    if head.contains(odd) {
        return Subagent::Unclear;
    }
    // Other versions of the CLI, and other programs, end it at a line of its own: both must read the same about the mode.
    let longer: Vec<_> = rest.lines().take_while(|line| line.trim_end() != "---").collect();
    let names_mode = |text: &str| plain(text).contains(&plain(MODE));
    if names_mode(&longer.join("\n")) && !names_mode(&head) {
        return Subagent::Unclear;
    }
    let starts = || head.lines().map(str::trim_start);
    // Brings in keys of another place, which can be hidden in a value.
    if starts().any(|line| line.strip_prefix("<<").is_some_and(|rest| rest.trim_start().starts_with(':'))) {
        return Subagent::Unclear;
    }
    // Keys in quotes, or of several lines, and what refers to another place: only with one of these, a key can be hidden.
    if starts().any(|line| line.starts_with(['"', '\'', '?', '*', '&', '!', '{', '['])) {
        let hides = head.contains('\\') || plain(&head).contains(&plain(MODE));
        return if hides { Subagent::Unclear } else { Subagent::Harmless };
    }
    let values = |wanted: &str| -> Vec<&str> {
        let pairs = starts().filter_map(|line| line.split_once(':'));
        pairs.filter(|(key, _)| plain(key.trim_end()) == plain(wanted)).map(|(_, value)| value).collect()
    };
    let (names, modes) = (values(NAME), values(MODE));
    if modes.is_empty() {
        return Subagent::Harmless;
    }
    // Each is written once, so that it is known which line a parser takes for it, and means the same to another parser.
    let ([own], Some(keys)) = (&modes[..], keys(&head)) else { return Subagent::Unclear };
    let value = |wanted: &str| keys.iter().find(|(key, _)| plain(key) == plain(wanted))?.1.as_str();
    let is_harmless = |own: &str| own == mode || !STRICT.contains(&mode) && HARMLESS.contains(&own);
    let is_word = |text: &str| {
        !text.is_empty() && text.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_'))
    };
    match (value(MODE), value(NAME), &names[..]) {
        (Some(mode), ..) if mode == unquoted(own) && is_harmless(mode) => Subagent::Harmless,
        (Some(_), Some(name), [own]) if name == unquoted(own) && is_word(name) => {
            Subagent::Escalates(name.to_owned())
        }
        _ => Subagent::Unclear,
    }
}

/// Parses the head of a file: as it is, or else with quoted values, as the CLI does with what is no YAML without them.
fn keys(head: &str) -> Option<BTreeMap<String, Value>> {
    let quoted = |line: &str| {
        let (key, value) = line.split_once(':').filter(|(_, value)| value.starts_with([' ', '\t']))?;
        let value = value.trim_start();
        let is_key = key.chars().all(|letter| letter.is_ascii_alphabetic() || matches!(letter, '-' | '_'));
        let is_special = value.contains(SPECIAL) || value.contains(": ");
        let is_quoted = ['"', '\''].iter().any(|quote| value.starts_with(*quote) && value.ends_with(*quote));
        (is_key && is_special && !is_quoted).then(|| format!("{key}: {}", Value::from(value)))
    };
    let parse = |text: &str| serde_saphyr::from_str(text).ok();
    parse(head).or_else(|| {
        let lines: Vec<_> =
            head.lines().map(|line| quoted(line).unwrap_or_else(|| line.to_owned())).collect();
        parse(&lines.join("\n"))
    })
}

/// Writes a key as a parser may that knows several spellings of it.
fn plain(key: &str) -> String {
    key.replace(['-', '_'], "").to_lowercase()
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(head: &str) -> Subagent {
        read(&format!("---\n{head}\n---\nHelp with permissionMode.\n"), "default")
    }

    #[test]
    fn modes_that_allow_more_are_found() {
        let escalates = || Subagent::Escalates("helper".to_owned());
        assert_eq!(one("name: helper\ndescription: d\npermissionMode: acceptEdits"), escalates());
        assert_eq!(one("permissionMode: 'acceptEdits'\r\nname: \"helper\"\r"), escalates());
        assert_eq!(one("  name: helper\n  permissionMode: bypassPermissions"), escalates());
        assert_eq!(one("name: helper\npermissionMode:\n  acceptEdits"), escalates());
        assert_eq!(one("name : helper\npermission_mode: acceptEdits"), escalates());
        assert_eq!(one("name: helper\npermissionMode: plan\n  acceptEdits"), escalates());
        let example = "description: Use it: <example>a \"b\": c # d</example>";
        assert_eq!(one(&format!("name: helper\n{example}\npermissionMode: acceptEdits")), escalates());
        for harmless in [
            "name: helper\npermissionMode: plan",
            "name: helper\ndescription: Use it.\\n\\n<example>\"x\": y</example>",
            "name: helper",
            "name: helper\ndescription: |\n  Of \"permission-mode\": plan.",
            "name: helper\ndescription: With `permission-mode: plan`.",
        ] {
            assert_eq!(one(harmless), Subagent::Harmless, "{harmless}");
        }
        let text = "\u{feff}\n---\nname: helper\npermissionMode: acceptEdits\n---\n";
        assert_eq!(read(text, "acceptEdits"), Subagent::Harmless, "no more than the agent");
        assert_eq!(read(text, "dontAsk"), escalates());
        for (own, mode, expected) in [
            ("plan", "auto", Subagent::Harmless),
            ("default", "manual", Subagent::Harmless),
            ("dontAsk", "dontAsk", Subagent::Harmless),
            ("default", "dontAsk", escalates()),
            ("manual", "plan", escalates()),
            ("plan", "dontAsk", escalates()),
        ] {
            let text = format!("---\nname: helper\npermissionMode: {own}\n---\n");
            assert_eq!(read(&text, mode), expected, "{own} of {mode}");
        }
        assert_eq!(read("permissionMode: acceptEdits", "default"), Subagent::Harmless, "no head");
    }

    #[test]
    fn what_is_not_plain_is_refused() {
        for unclear in [
            "name: helper\n<<: {\"permission\\x4dode\": bypassPermissions}",
            "name: helper\nbase: &base {\"permission\\x4dode\": bypassPermissions}\n<< : *base",
            "name: helper\n\"permission\\x4dode\": acceptEdits",
            "{name: helper, permissionMode: acceptEdits}",
            "name: helper\n? \"permission\\\n  Mode\"\n: acceptEdits",
            "name: helper\nx: &key permissionMode\n*key : acceptEdits",
            "name: helper\nname: other\npermissionMode: acceptEdits",
            "name: helper\npermissionMode: plan\npermissionMode: acceptEdits",
            "name: two words\npermissionMode: acceptEdits",
            "permissionMode: acceptEdits",
            "name: evil\ndescription: d\r\"permission\\x4dode\": acceptEdits\r",
            "\u{feff}\"permission\\x4dode\": acceptEdits\nname: evil",
            "name: helper\ndescription: d\r\"n\\x61me\": real\npermissionMode: acceptEdits",
            "name: helper\ndescription: d\u{85}\"permission\\x4dode\": acceptEdits",
            "name : real\nx: |\n  name: helper\npermissionMode: acceptEdits",
            "name: helper\n  tool\npermissionMode: acceptEdits",
            "name: helper # tool\npermissionMode: acceptEdits",
            "name: helper\nPermissionMode: plan\npermission-mode: acceptEdits",
            "name: helper\nx:\n  permissionMode: acceptEdits",
            "name: helper\ndescription: a --- b\npermissionMode: acceptEdits",
        ] {
            assert_eq!(one(unclear), Subagent::Unclear, "{unclear}");
        }
    }

    #[test]
    fn folders_are_searched_up_to_the_repository() {
        let outside = tempfile::tempdir().unwrap();
        let repository = outside.path().join("repository");
        let workspace = repository.join("part");
        let write = |folder: &Path, file: &str, name: &str| {
            let path = folder.join(FOLDER).join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("---\nname: {name}\npermissionMode: acceptEdits\n---\n")).unwrap();
        };
        std::fs::create_dir_all(repository.join(".git")).unwrap();
        write(outside.path(), "a.md", "outside");
        write(&repository, "deep/b.md", "above");
        write(&workspace, "c.md", "here");
        write(&workspace, "c.txt", "text");
        assert_eq!(escalating(&workspace, &[], "default").unwrap(), ["above", "here"]);
        let (given, link) = (outside.path().join("given"), outside.path().join("link"));
        write(&given, "e.md", "given");
        std::os::unix::fs::symlink(&given, &link).unwrap();
        assert_eq!(escalating(&workspace, &[link], "default").unwrap(), ["above", "given", "here"]);
        std::os::unix::fs::symlink(
            outside.path().join(FOLDER).join("a.md"),
            workspace.join(FOLDER).join("d.md"),
        )
        .unwrap();
        escalating(&workspace, &[], "default").unwrap_err();
    }
}
