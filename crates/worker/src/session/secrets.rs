//! The agent's secrets: files of a directory, each named like the variable that it becomes. Read for every
//! attempt, since they are rotated in place.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rota_proto::v1::{Failure, FailureClass};
use rota_proto::worker::v1::Assign;
use secrecy::ExposeSecret;
use tokio::io::AsyncReadExt;

use crate::git::{self, Credential};
use crate::report::failure;
use crate::runtimes::{RunOutcome, RunReport};

/// Maximum number of files considered.
const MAX_FILES: usize = 64;
/// Maximum size of a value; Linux limits an environment variable to the same size.
const MAX_VALUE_BYTES: u64 = 128 << 10;

/// Secrets of an attempt. No `Debug`, so that they are not printed.
pub(super) struct Secrets {
    /// Those that the task selects, or all.
    pub(super) selected: BTreeMap<String, String>,
    /// The others, which are redacted as well: an attempt that is not isolated can read their files.
    pub(super) withheld: Vec<String>,
    /// The one that opens the repository, which is among those withheld.
    pub(super) of_repository: Option<Credential>,
    /// The one for the API of its forge, likewise.
    pub(super) of_forge: Option<Credential>,
}

/// Reads the agent's secrets, and separates those that the task selects from the others, and the one of its repository from
/// all: programs do not get it.
pub(super) async fn read(folder: Option<&Path>, assign: &mut Assign) -> Result<Secrets, Failure> {
    let available = match folder {
        Some(folder) => names(folder).await.map_err(|error| unreadable("directory", &error))?,
        None => Vec::new(),
    };
    let [name, of_api] = git::source(assign).map(git::secrets_of).unwrap_or_default();
    let of_repository = credential(folder, &available, &name, assign)?;
    let of_forge = match of_api == name {
        true => of_repository.clone(),
        false => credential(folder, &available, &of_api, assign)?,
    };
    for name in [&name, &of_api] {
        assign.secrets.remove(name);
    }
    let chosen = assign.spec.as_ref().and_then(|spec| spec.agent_secrets.as_ref());
    let wanted = chosen.map_or(&available, |chosen| &chosen.names);
    let mut values = BTreeMap::new();
    for name in wanted.iter().filter(|wanted| **wanted != name && **wanted != of_api) {
        match folder.filter(|_| available.contains(name)) {
            Some(folder) => {
                let value = value(&folder.join(name)).await.map_err(|error| unreadable(name, &error))?;
                values.insert(name.clone(), value);
            }
            // Without a secrets directory, on a user's machine, they come with the task.
            None if assign.secrets.contains_key(name) => {}
            None => return Err(unknown(name, &available)),
        }
    }
    let mut withheld = Vec::new();
    if let Some(folder) = folder {
        for name in available.iter().filter(|name| !values.contains_key(*name)) {
            // One that the worker cannot read, the attempt cannot either.
            withheld.extend(value(&folder.join(name)).await);
        }
    }
    for credential in [&of_repository, &of_forge].into_iter().flatten() {
        withheld.extend(credential.given().map(|value| value.expose_secret().to_owned()));
    }
    Ok(Secrets { selected: values, withheld, of_repository, of_forge })
}

/// Returns the credentials of this name: from the task's secrets, or among the agent's.
fn credential(
    folder: Option<&Path>,
    available: &[String],
    name: &String,
    assign: &Assign,
) -> Result<Option<Credential>, Failure> {
    if name.is_empty() {
        return Ok(None);
    }
    if let Some(value) = assign.secrets.get(name) {
        return Ok(Some(Credential::value(value.clone().into())));
    }
    match folder.filter(|_| available.contains(name)) {
        Some(folder) => Ok(Some(Credential::file(folder.join(name)))),
        None => Err(unknown(name, available)),
    }
}

/// Reads all secrets that can be read, whether a task selects them or not.
pub(super) async fn readable(folder: Option<&Path>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let Some(folder) = folder else { return values };
    for name in names(folder).await.unwrap_or_default() {
        if let Ok(value) = value(&folder.join(&name)).await {
            values.insert(name, value);
        }
    }
    values
}

/// Lists the files, without the kubelet's own dot files.
async fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut entries = tokio::fs::read_dir(folder).await?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
            && names.len() < MAX_FILES
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
    let size = file.take(MAX_VALUE_BYTES + 1).read_to_string(&mut value).await?;
    let invalid = |reason| Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    if size as u64 > MAX_VALUE_BYTES {
        invalid("larger than 128 KiB")
    } else if value.contains('\0') {
        invalid("contains a zero byte")
    } else {
        Ok(value)
    }
}

fn unreadable(what: &str, error: &io::Error) -> Failure {
    let message = format!("failed to read the agent's secrets: {what}: {error}");
    failure(FailureClass::Start, message)
}

fn unknown(name: &str, available: &[String]) -> Failure {
    let known = if available.is_empty() { "none".to_owned() } else { available.join(", ") };
    let mut failed = failure(
        FailureClass::Invalid,
        format!("the task selects the secret {name}, but the worker has {known}"),
    );
    "add it to the agent's spec.secrets, or remove it from the task's spec.secretNames"
        .clone_into(&mut failed.hint);
    failed
}

/// Makes a rejected credential that was replaced while the attempt ran a reason to wait instead of a final failure: the
/// next attempt reads the new one.
pub(super) async fn retry_after_rotation(
    mut report: RunReport,
    folder: &Path,
    used: &BTreeMap<String, String>,
) -> RunReport {
    if let RunOutcome::Failed(failed) = &mut report.outcome
        && failed.class() == FailureClass::Auth
    {
        let now = readable(Some(folder)).await;
        if used.iter().any(|(name, value)| now.get(name).is_some_and(|new| new != value)) {
            let message = format!("{} (the agent's secrets have been replaced since)", failed.message);
            *failed = failure(FailureClass::Overload, message);
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{GitSource, SecretSelection, TaskSpec, Workspace};

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
        read(folder, &mut assign.clone())
            .await
            .unwrap()
            .selected
            .into_iter()
            .map(|(name, value)| name + "=" + &value)
            .collect()
    }

    #[tokio::test]
    async fn selection_limits_secrets() {
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
    async fn withheld_secrets_are_returned_apart() {
        let folder = folder();
        let secrets = read(Some(folder.path()), &mut choosing(&["TOKEN"])).await.ok().unwrap();
        assert_eq!(secrets.withheld, ["k\n"]);
    }

    #[tokio::test]
    async fn credentials_of_the_repository_are_for_the_worker_alone() {
        let folder = folder();
        let git = GitSource { credentials_from: "TOKEN".to_owned(), ..GitSource::default() };
        let workspace = Some(Workspace { git: Some(git), ..Workspace::default() });
        let spec = TaskSpec { workspace, ..TaskSpec::default() };
        let mut assign = Assign { spec: Some(spec), ..Assign::default() };
        let secrets = read(Some(folder.path()), &mut assign).await.ok().unwrap();
        assert_eq!(secrets.selected.keys().collect::<Vec<_>>(), ["KEY"]);
        assert_eq!(secrets.withheld, ["t"]);
        assert!(secrets.of_repository.is_some_and(|credential| credential.given().is_none()));

        // The task's own comes first.
        assign.secrets = [("TOKEN".to_owned(), "own".to_owned())].into();
        let secrets = read(Some(folder.path()), &mut assign).await.ok().unwrap();
        assert!(assign.secrets.is_empty());
        assert!(secrets.withheld.contains(&"own".to_owned()));
        assert!(secrets.of_repository.is_some_and(|credential| credential.given().is_some()));
        assert!(read(None, &mut assign).await.err().unwrap().message.contains("TOKEN"));
    }

    #[tokio::test]
    async fn missing_secret_is_named_without_values() {
        let folder = folder();
        for name in ["OTHER", "../KEY", "..data"] {
            let failed = read(Some(folder.path()), &mut choosing(&["KEY", name])).await.err().unwrap();
            assert_eq!(failed.class(), FailureClass::Invalid);
            assert!(failed.message.contains(name) && failed.message.contains("KEY, TOKEN"), "{failed:?}");
            assert!(failed.hint.contains("spec.secrets"));
        }
        assert!(read(None, &mut choosing(&["KEY"])).await.err().unwrap().message.contains("none"));
        let given = Assign { secrets: [("KEY".to_owned(), "own".to_owned())].into(), ..choosing(&["KEY"]) };
        assert_eq!(seen(None, &given).await, [""; 0]);
    }

    #[tokio::test]
    async fn invalid_values_are_rejected() {
        let folder = folder();
        for (bytes, part) in
            [(&b"\xff"[..], "utf-8"), (b"a\0b", "zero"), (&vec![b'x'; 128 * 1024 + 1][..], "128 KiB")]
        {
            std::fs::write(folder.path().join("KEY"), bytes).unwrap();
            let failed = read(Some(folder.path()), &mut choosing(&["KEY"])).await.err().unwrap();
            assert!(failed.message.contains("KEY") && failed.message.contains(part), "{failed:?}");
        }
        let missing = folder.path().join("missing");
        assert!(
            read(Some(&missing), &mut Assign::default()).await.err().unwrap().message.contains("directory")
        );
    }

    #[tokio::test]
    async fn rotated_credential_is_no_final_failure() {
        let folder = tempfile::tempdir().unwrap();
        let used = BTreeMap::from([("KEY".to_owned(), "old".to_owned())]);
        let ended = async |value: &str, class| {
            std::fs::write(folder.path().join("KEY"), value).unwrap();
            let report = RunReport::failed(class, "invalid API key");
            match retry_after_rotation(report, folder.path(), &used).await.outcome {
                RunOutcome::Failed(failed) => failed.class(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(ended("old", FailureClass::Auth).await, FailureClass::Auth);
        assert_eq!(ended("new", FailureClass::Auth).await, FailureClass::Overload);
        assert_eq!(ended("new", FailureClass::Agent).await, FailureClass::Agent);
    }
}
