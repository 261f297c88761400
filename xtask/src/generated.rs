//! Generated files: writes them, or compares them with the committed ones. Does not know what is in them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

/// Texts by path from the repository's top.
pub(crate) type Files = BTreeMap<String, String>;

/// Writes what differs; with `check`, reports it instead. `folder`, if any, holds nothing else.
pub(crate) fn sync(
    root: &Path,
    files: &Files,
    folder: Option<&str>,
    check: bool,
) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for (name, text) in files {
        let path = root.join(name);
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        if committed == *text {
            continue;
        }
        if check {
            let same = committed.lines().zip(text.lines()).take_while(|(old, new)| old == new).count();
            problems.push(format!("{name} is out of date (line {}): run `make docs`", same + 1));
        } else {
            std::fs::create_dir_all(path.parent().unwrap_or(root))?;
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
            println!("wrote {name}");
        }
    }
    for entry in folder.map(|folder| std::fs::read_dir(root.join(folder))).into_iter().flatten().flatten() {
        let entry = entry?;
        let name = format!("{}/{}", folder.unwrap_or_default(), entry.file_name().to_string_lossy());
        if files.contains_key(&name) {
            continue;
        }
        if check {
            problems.push(format!("{name} is not generated any more: run `make docs`"));
        } else {
            std::fs::remove_file(entry.path())?;
            println!("removed {name}");
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_reported_and_written() {
        let root = tempfile::tempdir().unwrap();
        let mut files = Files::from([("pages/a.md".to_owned(), "one\ntwo\n".to_owned())]);
        let run = |files: &Files, check| sync(root.path(), files, Some("pages"), check).unwrap();
        assert_eq!(run(&files, true).len(), 1);
        run(&files, false);
        assert_eq!(run(&files, true), Vec::<String>::new());
        files.insert("pages/a.md".to_owned(), "one\n2\n".to_owned());
        assert!(run(&files, true)[0].contains("line 2"));
        std::fs::write(root.path().join("pages/b.md"), "").unwrap();
        assert_eq!(run(&files, true).len(), 2);
        run(&files, false);
        assert_eq!(run(&files, true), Vec::<String>::new());
    }
}
