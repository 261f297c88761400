//! Subagents that a repository brings along: one with a permission mode of its own may do what the agent may not. Knows files, and
//! nothing of the CLI's options.
//!
//! No option takes the mode away, so such a subagent is denied by its name. The name is read as simply as possible, and a file that
//! is not as simple is refused, since the CLI would read more into it.

use std::io;
use std::path::Path;

use cap_std::fs::Dir;

use super::project::text;
use crate::program_dir;

/// Where a repository has its subagents.
const FOLDER: &str = ".claude/agents";
/// Limit of files and folders.
const MAX_ENTRIES: usize = 2000;
const MAX_DEPTH: usize = 16;
/// Modes that only deny more than others.
const HARMLESS: [&str; 4] = ["default", "manual", "plan", "dontAsk"];

/// Returns the names of the subagents that would have more permissions than an agent with the permission mode `mode`. The CLI loads
/// those of the folders above the workspace too, up to the root of the repository.
pub(super) fn escalating(workspace: &Path, mode: &str) -> io::Result<Vec<String>> {
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
    let Some(rest) = text.strip_prefix("---") else { return Subagent::Harmless };
    let head: Vec<_> = rest.lines().skip(1).take_while(|line| line.trim_end() != "---").collect();
    // Keys in quotes, or of several lines, and what refers to another place: only with one of these, a word can be hidden.
    let odd = |line: &&str| line.trim_start().starts_with(['"', '\'', '?', '*', '&', '!', '{', '[']);
    let odd = head.iter().any(odd);
    // Brings in keys of another place, which can be hidden in a value.
    let merges = |line: &&str| {
        line.trim_start().strip_prefix("<<").is_some_and(|rest| rest.trim_start().starts_with(':'))
    };
    if head.iter().any(merges) {
        return Subagent::Unclear;
    }
    let mentions: usize = head.iter().map(|line| line.matches("permissionMode").count()).sum();
    if mentions == 0 {
        let hides = odd && head.iter().any(|line| line.contains('\\'));
        return if hides { Subagent::Unclear } else { Subagent::Harmless };
    }
    let values = |key: &str| -> Vec<&str> {
        let rests = head.iter().filter_map(|line| line.trim_start().strip_prefix(key)?.strip_prefix(':'));
        rests.map(|rest| unquoted(rest.trim())).collect()
    };
    let (names, modes) = (values("name"), values("permissionMode"));
    let is_word = |text: &str| {
        !text.is_empty() && text.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_'))
    };
    match (&names[..], &modes[..]) {
        _ if odd || mentions > 1 => Subagent::Unclear,
        (_, [own]) if HARMLESS.contains(own) || *own == mode => Subagent::Harmless,
        ([name], [_]) if is_word(name) => Subagent::Escalates((*name).to_owned()),
        _ => Subagent::Unclear,
    }
}

fn unquoted(text: &str) -> &str {
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
        for harmless in [
            "name: helper\npermissionMode: plan",
            "name: helper\ndescription: Use it.\\n\\n<example>\"x\": y</example>",
            "name: helper",
        ] {
            assert_eq!(one(harmless), Subagent::Harmless, "{harmless}");
        }
        let text = "\u{feff}\n---\nname: helper\npermissionMode: acceptEdits\n---\n";
        assert_eq!(read(text, "acceptEdits"), Subagent::Harmless, "no more than the agent");
        assert_eq!(read(text, "dontAsk"), escalates());
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
        assert_eq!(escalating(&workspace, "default").unwrap(), ["above", "here"]);
        std::os::unix::fs::symlink(
            outside.path().join(FOLDER).join("a.md"),
            workspace.join(FOLDER).join("d.md"),
        )
        .unwrap();
        escalating(&workspace, "default").unwrap_err();
    }
}
