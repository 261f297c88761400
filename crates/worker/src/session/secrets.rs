//! The agent's secrets: files of a directory that whoever started the worker filled, each named like the
//! variable that it becomes. Read anew for each attempt, since they are rotated in place.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rota_proto::v1::{Failure, FailureClass};
use rota_proto::worker::v1::Assign;
use tokio::io::AsyncReadExt;

use crate::runtimes::failure;

/// Most files that are looked at.
const MOST: usize = 64;
/// Longest value; what is longer is no variable's.
const LONGEST: u64 = 128 << 10;

/// What an attempt sees of them: those that its task names, or all.
pub(super) async fn read(
    folder: Option<&Path>,
    assign: &Assign,
) -> Result<BTreeMap<String, String>, Failure> {
    let there = match folder {
        Some(folder) => names(folder).await.map_err(|error| unreadable("their directory", &error))?,
        None => Vec::new(),
    };
    let chosen = assign.spec.as_ref().and_then(|spec| spec.agent_secrets.as_ref());
    let wanted = chosen.map_or(&there, |chosen| &chosen.names);
    let mut values = BTreeMap::new();
    for name in wanted {
        match folder.filter(|_| there.contains(name)) {
            Some(folder) => {
                let value = value(&folder.join(name)).await.map_err(|error| unreadable(name, &error))?;
                values.insert(name.clone(), value);
            }
            // On a machine without such a directory its user gives them with the task.
            None if assign.secrets.contains_key(name) => {}
            None => return Err(unknown(name, &there)),
        }
    }
    Ok(values)
}

/// Names of files, without those that a kubelet uses for itself.
async fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut entries = tokio::fs::read_dir(folder).await?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
            && names.len() < MOST
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

async fn value(path: &Path) -> io::Result<String> {
    let mut value = String::new();
    let file = tokio::fs::File::open(path).await?;
    let size = file.take(LONGEST + 1).read_to_string(&mut value).await?;
    let wrong = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    if size as u64 > LONGEST {
        wrong("it has more than 128 KiB")
    } else if value.contains('\0') {
        wrong("it holds a zero byte")
    } else {
        Ok(value)
    }
}

fn unreadable(what: &str, error: &io::Error) -> Failure {
    let message = format!("the agent's secrets cannot be read: {what}: {error}");
    failure(FailureClass::Start, message)
}

fn unknown(name: &str, there: &[String]) -> Failure {
    let known = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    let mut failed = failure(
        FailureClass::Invalid,
        format!("the task asks for the secret {name}, and its worker has {known}"),
    );
    "name it in the agent's spec.secrets, or leave it out of the task's spec.secretNames"
        .clone_into(&mut failed.hint);
    failed
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{SecretSelection, TaskSpec};

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in [("KEY", "k\n"), ("TOKEN", "t"), ("..data", "x")] {
            std::fs::write(folder.path().join(name), value).unwrap();
        }
        folder
    }

    fn choosing(names: &[&str]) -> Assign {
        let chosen = SecretSelection { names: names.iter().map(ToString::to_string).collect() };
        let spec = TaskSpec { agent_secrets: Some(chosen), ..TaskSpec::default() };
        Assign { spec: Some(spec), ..Assign::default() }
    }

    async fn seen(folder: Option<&Path>, assign: &Assign) -> Vec<String> {
        read(folder, assign).await.unwrap().into_iter().map(|(name, value)| name + "=" + &value).collect()
    }

    #[tokio::test]
    async fn all_some_or_none() {
        let folder = folder();
        let at = Some(folder.path());
        assert_eq!(seen(at, &Assign::default()).await, ["KEY=k\n", "TOKEN=t"]);
        assert_eq!(seen(at, &choosing(&["TOKEN"])).await, ["TOKEN=t"]);
        assert_eq!(seen(at, &choosing(&[])).await, [""; 0]);
        assert_eq!(seen(None, &Assign::default()).await, [""; 0]);
        // Rotated in place.
        std::fs::write(folder.path().join("TOKEN"), "new").unwrap();
        assert_eq!(seen(at, &choosing(&["TOKEN"])).await, ["TOKEN=new"]);
    }

    #[tokio::test]
    async fn what_is_not_there_is_named_and_no_value_told() {
        let folder = folder();
        for name in ["OTHER", "../KEY", "..data"] {
            let failed = read(Some(folder.path()), &choosing(&["KEY", name])).await.unwrap_err();
            assert_eq!(failed.class(), FailureClass::Invalid);
            assert!(failed.message.contains(name) && failed.message.contains("KEY, TOKEN"), "{failed:?}");
            assert!(failed.hint.contains("spec.secrets"));
        }
        assert!(read(None, &choosing(&["KEY"])).await.unwrap_err().message.contains("none"));
        let given = Assign { secrets: [("KEY".to_owned(), "own".to_owned())].into(), ..choosing(&["KEY"]) };
        assert_eq!(seen(None, &given).await, [""; 0]);
    }

    #[tokio::test]
    async fn what_is_no_text_is_refused() {
        let folder = folder();
        for (bytes, word) in
            [(&b"\xff"[..], "utf-8"), (b"a\0b", "zero"), (&vec![b'x'; 128 * 1024 + 1][..], "128 KiB")]
        {
            std::fs::write(folder.path().join("KEY"), bytes).unwrap();
            let failed = read(Some(folder.path()), &choosing(&["KEY"])).await.unwrap_err();
            assert!(failed.message.contains("KEY") && failed.message.contains(word), "{failed:?}");
        }
        let gone = folder.path().join("gone");
        assert!(read(Some(&gone), &Assign::default()).await.unwrap_err().message.contains("directory"));
    }
}
