//! Lists of artifacts: what callers may send, and what the store has.

use std::collections::{BTreeSet, HashSet};
use std::path::{Component, Path};

use prost::Message;
use rota_artifacts::{Digest, MAX_PART_BYTES};
use rota_core::task::{State, Task};
use rota_proto::artifact_names::{CHECKPOINT, within};
use rota_proto::v1::{self, Artifact, ArtifactList, Changes, SkippedFile};
use rota_proto::{ARTIFACT_LIST_BYTES, ARTIFACT_NAME_BYTES, names, num};
use rota_store::{ArtifactsKey, ArtifactsRow};
use rota_telemetry::redact;
use tonic::Status;

use crate::store_client::StoreClient;
use crate::wire::status::{self, error, invalid};
use crate::wire::{check as wire, failure};

pub(super) const MAX_ARTIFACTS: usize = 10_000;
const MAX_CONVERSATION: usize = 256;
const MAX_SKIPPED: usize = 100;
/// Attempts of which a call returns the artifacts: the last ones, besides that with the checkpoint.
const MAX_ATTEMPTS: usize = 16;
/// Why files are not listed whose list cannot be read.
const DAMAGED: &str = "its record in the store of the control plane is damaged";

/// Checks the artifacts of a caller, whose names begin with one of these folders.
pub(crate) fn check(field: &str, list: &mut ArtifactList, folders: &[&str]) -> Result<(), Status> {
    wire::count(field, list.artifacts.len(), MAX_ARTIFACTS)?;
    list.skipped.truncate(MAX_SKIPPED);
    for skipped in &mut list.skipped {
        skipped.name = failure::cut(std::mem::take(&mut skipped.name), ARTIFACT_NAME_BYTES);
        skipped.reason = failure::cut(std::mem::take(&mut skipped.reason), 256);
        redact::text(&mut skipped.reason);
    }
    let mut names = HashSet::new();
    for (index, artifact) in list.artifacts.iter().enumerate() {
        let at = |part: &str| format!("{field}[{index}].{part}");
        if !is_name(&artifact.name, folders) {
            let folders: Vec<_> = folders.iter().map(|folder| format!("{folder}/")).collect();
            let folders = folders.join(" or ");
            return Err(invalid(at("name"), format!("must be a plain path below {folders}")));
        }
        if !names.insert(artifact.name.as_str()) {
            return Err(invalid(at("name"), "is there twice"));
        }
        let parts = u64::try_from(artifact.size).map(|size| size.div_ceil(MAX_PART_BYTES as u64));
        if parts != Ok(artifact.parts.len() as u64) {
            return Err(invalid(at("parts"), "must be as many as the size has MiB, rounded up"));
        }
        if artifact.parts.iter().any(|part| part.len() != 32) {
            return Err(invalid(at("parts"), "must be of 32 bytes each"));
        }
        let is_digit = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        if artifact.sha256.len() != 64 || !artifact.sha256.bytes().all(is_digit) {
            return Err(invalid(at("sha256"), "must be 64 hexadecimal digits in lower case"));
        }
    }
    if let Some((file, below)) = file_as_folder(&list.artifacts) {
        return Err(invalid(field, format!("must not have {below:?} below the file {file:?}")));
    }
    if let Some(changes) = &list.changes {
        check_changes(changes, &names).map_err(|reason| invalid(format!("{field}.changes"), reason))?;
    }
    let conversation = list.checkpoint.as_ref().map_or("", |checkpoint| &checkpoint.conversation);
    if conversation.len() > MAX_CONVERSATION || conversation.chars().any(char::is_control) {
        return Err(invalid(format!("{field}.checkpoint"), "must have a short conversation id"));
    }
    // What is not kept must not keep the rest from being kept.
    while list.encoded_len() > ARTIFACT_LIST_BYTES && list.skipped.pop().is_some() {}
    list.artifacts.sort_by(|one, other| one.name.cmp(&other.name));
    let size = list.encoded_len();
    if size > ARTIFACT_LIST_BYTES {
        return Err(invalid(field, format!("takes {size} bytes; at most {ARTIFACT_LIST_BYTES} are allowed")));
    }
    Ok(())
}

/// Returns the names of a file and of another one below it, if there are any.
fn file_as_folder(artifacts: &[Artifact]) -> Option<(&str, &str)> {
    let mut names: Vec<_> = artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    // What is below a name follows it directly: no name has a zero.
    let byte = |byte| if byte == b'/' { 0 } else { byte };
    names.sort_unstable_by(|one, other| one.bytes().map(byte).cmp(other.bytes().map(byte)));
    let is_below = |file: &str, name: &str| name.strip_prefix(file).is_some_and(|rest| rest.starts_with('/'));
    names.windows(2).map(|pair| (pair[0], pair[1])).find(|(file, name)| is_below(file, name))
}

/// Checks what a worker reports of a repository: hashes of commits, and files that it has stored.
fn check_changes(changes: &Changes, stored: &HashSet<&str>) -> Result<(), &'static str> {
    if !names::is_commit(&changes.base_commit) || !names::is_commit(&changes.commit) {
        return Err("must have the hashes of two commits");
    }
    // Whether it is that of this task, its caller checks.
    if !names::is_branch(&changes.branch) {
        return Err("must have the name of the branch of a task, such as rota/TASK");
    }
    if changes.files < 0 || changes.insertions < 0 || changes.deletions < 0 {
        return Err("must have no negative counts");
    }
    let is_stored = |name: &str| name.is_empty() || stored.contains(name);
    if !is_stored(&changes.patch) || !is_stored(&changes.bundle) {
        return Err("must name artifacts of the list");
    }
    Ok(())
}

/// Whether a name is a path that stays below one of these folders wherever it is created.
fn is_name(name: &str, folders: &[&str]) -> bool {
    let path = Path::new(name);
    name.len() <= ARTIFACT_NAME_BYTES
        && !name.chars().any(|letter| letter.is_control() || letter == '\\')
        && folders.iter().any(|folder| within(name, folder).is_some())
        && path.components().all(|part| matches!(part, Component::Normal(_)))
        // No empty parts, and no `.`, which components do not show.
        && path.components().collect::<std::path::PathBuf>().as_os_str() == name
}

/// Returns the parts of checked artifacts, each once.
pub(crate) fn digests(artifacts: &[Artifact]) -> Vec<Digest> {
    let parts = artifacts.iter().flat_map(|artifact| &artifact.parts);
    let distinct: HashSet<_> = parts.filter_map(|part| Digest::try_from(&part[..]).ok()).collect();
    distinct.into_iter().collect()
}

/// Returns the artifacts of a task: of its input, of the last attempt with a checkpoint and of that whose work is to be delivered, however
/// many have ended since, and of its last attempts. A damaged list has the name of nothing, and keeps no other from being read.
pub(crate) async fn of_task(
    store: &StoreClient,
    task: &Task,
    attempts: std::ops::RangeInclusive<u32>,
) -> Result<Vec<v1::AttemptArtifacts>, Status> {
    let rows = rows(store, task, attempts).await?.into_iter();
    let read = rows.map(|row| {
        let attempt = num::to_i32(row.0.attempt);
        let list = decode(&row).unwrap_or_else(|reason| {
            // Any caller may repeat it; users read it in the list.
            tracing::debug!(task = %task.id, attempt, reason, "a stored record cannot be decoded: it is left alone");
            let (name, reason) = ("the list of its files".to_owned(), DAMAGED.to_owned());
            ArtifactList { skipped: vec![SkippedFile { name, reason }], ..ArtifactList::default() }
        });
        v1::AttemptArtifacts { attempt, list: Some(list) }
    });
    Ok(read.collect())
}

/// Returns what is wanted of the newest list of a task that has it. Fails if a newer one is damaged: that may have had it.
pub(crate) async fn newest<T>(
    store: &StoreClient,
    task: &Task,
    wanted: impl Fn(ArtifactList) -> Option<T>,
) -> Result<Option<T>, Status> {
    newest_of(&rows(store, task, 0..=u32::MAX).await?, wanted)
}

fn newest_of<T>(
    rows: &[ArtifactsRow],
    wanted: impl Fn(ArtifactList) -> Option<T>,
) -> Result<Option<T>, Status> {
    for row in rows.iter().rev() {
        let list = decode(row).map_err(|reason| error("STORE_CORRUPT", reason))?;
        if let Some(found) = wanted(list) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Returns the artifacts of one attempt of a task, or of its input (0), if it has any. Fails if their list is damaged.
pub(crate) async fn of_attempt(
    store: &StoreClient,
    task: &Task,
    attempt: u32,
) -> Result<Option<ArtifactList>, Status> {
    let row = rows(store, task, attempt..=attempt).await?.into_iter().next();
    row.map(|row| decode(&row).map_err(|reason| error("STORE_CORRUPT", reason))).transpose()
}

async fn rows(
    store: &StoreClient,
    task: &Task,
    attempts: std::ops::RangeInclusive<u32>,
) -> Result<Vec<ArtifactsRow>, Status> {
    if !task.has_artifacts {
        return Ok(Vec::new());
    }
    let key = |attempt| ArtifactsKey { task: task.key, attempt };
    let read = |from, to| store.reads().artifacts(key(from)..=key(to), MAX_ATTEMPTS);
    let last = (*attempts.end()).min(task.attempt());
    let first = (*attempts.start()).max(last.saturating_sub(MAX_ATTEMPTS as u32 - 1));
    let mut rows = Vec::new();
    if first > 0 && attempts.contains(&0) {
        rows = read(0, 0).await.map_err(status::store)?;
    }
    let kept = BTreeSet::from([task.checkpointed, task.undelivered.map_or(0, |left| left.attempt)]);
    for kept in kept.into_iter().filter(|kept| (1..first).contains(kept) && attempts.contains(kept)) {
        rows.extend(read(kept, kept).await.map_err(status::store)?);
    }
    rows.extend(read(first, last).await.map_err(status::store)?);
    Ok(rows)
}

/// Returns what a task that has succeeded has left, to those that continue with its result.
pub(crate) async fn left_by(store: &StoreClient, task: &Task) -> Result<Option<ArtifactList>, Status> {
    let last = task.attempt();
    if task.state != State::Succeeded || last == 0 {
        return Ok(None);
    }
    let mut list = of_attempt(store, task, last).await?;
    // A conversation, which is nothing to build on.
    if let Some(list) = &mut list {
        list.artifacts.retain(|artifact| within(&artifact.name, CHECKPOINT).is_none());
    }
    Ok(list)
}

pub(crate) fn decode((key, list): &ArtifactsRow) -> Result<ArtifactList, String> {
    ArtifactList::decode(&list[..])
        .map_err(|error| format!("the artifacts of record {} cannot be decoded: {error}", key.task.0))
}

#[cfg(test)]
mod tests {
    use rota_core::TaskKey;
    use rota_proto::artifact_names::OUTPUT;
    use rota_proto::v1::Checkpoint;
    use tonic::Code;

    use super::*;

    fn artifact(name: &str) -> Artifact {
        let sha256 = "0".repeat(64);
        Artifact { name: name.to_owned(), size: 5, sha256, parts: vec![vec![0; 32]], executable: false }
    }

    fn checked(artifacts: Vec<Artifact>) -> Result<ArtifactList, String> {
        let mut list = ArtifactList { artifacts, ..ArtifactList::default() };
        check("artifacts", &mut list, &[OUTPUT]).map(|()| list).map_err(|bad| bad.message().to_owned())
    }

    #[test]
    fn damaged_list_may_have_had_the_checkpoint() {
        let row = |attempt, conversation: Option<&str>| -> ArtifactsRow {
            let conversation = conversation.map(str::to_owned);
            let checkpoint =
                conversation.map(|conversation| Checkpoint { conversation, ..Checkpoint::default() });
            let list = ArtifactList { checkpoint, ..ArtifactList::default() };
            (ArtifactsKey { task: TaskKey(1), attempt }, list.encode_to_vec().into())
        };
        let damaged =
            |attempt| -> ArtifactsRow { (ArtifactsKey { task: TaskKey(1), attempt }, vec![0xff].into()) };
        let found = |rows: &[ArtifactsRow]| {
            let found = newest_of(rows, |list| list.checkpoint);
            found.map(|found| found.map(|found| found.conversation)).map_err(|failed| failed.code())
        };
        let corrupt = || Err(Code::DataLoss);
        assert_eq!(found(&[damaged(1), row(2, Some("two")), row(3, None)]), Ok(Some("two".to_owned())));
        assert_eq!(found(&[row(1, Some("one")), damaged(2), row(3, None)]), corrupt());
        assert_eq!(found(&[damaged(1), row(2, None)]), corrupt(), "it may have been the only one");
        assert_eq!(found(&[row(1, None)]), Ok(None));
    }

    #[test]
    fn changes_are_of_the_branch_of_a_task() {
        let commit = "0".repeat(40);
        let checked = |branch: &str| {
            let changes = Changes {
                base_commit: commit.clone(),
                commit: commit.clone(),
                branch: branch.to_owned(),
                ..Changes::default()
            };
            check_changes(&changes, &HashSet::new())
        };
        assert_eq!(checked("rota/t1"), Ok(()));
        for branch in ["", "release/1", "rota/a/b", "rota/a:b"] {
            assert!(checked(branch).is_err_and(|reason| reason.contains("branch")), "{branch}");
        }
    }

    #[test]
    fn names_stay_below_their_folder() {
        for name in ["output/a", "output/a/b.txt", "output/..a", "output/ü"] {
            assert!(checked(vec![artifact(name)]).is_ok(), "{name}");
        }
        for name in [
            "",
            "a",
            "output",
            "output/",
            "/output/a",
            "output/../a",
            "output/./a",
            "output//a",
            "output/a/",
            "output/a\nb",
            "output/a\0",
            "input/a",
            "output\\a",
            "output/a\\..\\b",
        ] {
            assert!(checked(vec![artifact(name)]).is_err(), "{name:?}");
        }
        assert!(checked(vec![artifact(&format!("output/{}", "x".repeat(ARTIFACT_NAME_BYTES)))]).is_err());
        assert!(checked(vec![artifact("output/a"), artifact("output/a")]).is_err());
        assert!(
            checked(vec![artifact("output/a/b/c"), artifact("output/a-b"), artifact("output/a")]).is_err()
        );
        assert!(
            checked(vec![artifact("output/a/b"), artifact("output/a/c"), artifact("output/a-b")]).is_ok()
        );
        let found = checked(vec![artifact("output/a/b/c/d"), artifact("output/a b"), artifact("output/a/b")]);
        assert!(found.unwrap_err().contains("\"output/a/b/c/d\" below the file \"output/a/b\""));
    }

    #[test]
    fn lists_are_bounded() {
        let many =
            |count: usize| checked((0..count).map(|index| artifact(&format!("output/{index}"))).collect());
        assert!(many(3000).is_ok());
        assert!(many(6000).unwrap_err().contains("takes"), "their names and digests");
        assert!(many(10_001).unwrap_err().contains("10000"));
    }

    #[test]
    fn parts_fit_the_size() {
        for (size, parts, fits) in [
            (0, 0, true),
            (1, 1, true),
            (1 << 20, 1, true),
            (1 << 20, 2, false),
            ((1 << 20) + 1, 2, true),
            (-1, 0, false),
            (5, 0, false),
        ] {
            let one = Artifact { size, parts: vec![vec![0; 32]; parts], ..artifact("output/a") };
            assert_eq!(checked(vec![one]).is_ok(), fits, "{size} {parts}");
        }
        assert!(checked(vec![Artifact { parts: vec![vec![0; 31]], ..artifact("output/a") }]).is_err());
        assert!(checked(vec![Artifact { sha256: "Z".repeat(64), ..artifact("output/a") }]).is_err());
        let many = (0..MAX_ARTIFACTS).map(|number| artifact(&format!("output/{number}"))).collect();
        assert!(checked(many).unwrap_err().contains("bytes"));
    }

    #[test]
    fn lists_are_sorted_by_name() {
        let list = checked(vec![artifact("output/b"), artifact("output/a")]).unwrap();
        assert_eq!(list.artifacts[0].name, "output/a");
        assert_eq!(digests(&list.artifacts).len(), 1, "each part once");
    }
}
