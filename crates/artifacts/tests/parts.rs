//! Parts in a folder: addressing, damage, and the sweep during uploads.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rota_artifacts::{Digest, Error, MAX_PART_BYTES, Parts};
use rota_testkit::s3_server::without_bucket;

/// After everything that a test stores.
fn later() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 36)
}

fn folder() -> (tempfile::TempDir, Parts) {
    let folder = tempfile::tempdir().unwrap();
    let parts = Parts::open(&format!("file://{}/parts", folder.path().display()), Vec::new()).unwrap();
    (folder, parts)
}

fn file(folder: &tempfile::TempDir, namespace: &str, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    folder.path().join("parts").join(namespace).join(&name[..2]).join(name)
}

/// Confirms the owner of the lists.
async fn owned() -> Result<(), Error> {
    Ok(())
}

async fn sweep(parts: &Parts, until: SystemTime, referenced: &[Digest]) -> u64 {
    let referenced: HashSet<_> = referenced.iter().copied().collect();
    parts.sweep(until, async { Ok::<_, Error>(referenced) }, owned).await.unwrap().removed
}

#[tokio::test]
async fn parts_are_found_by_content_within_their_namespace() {
    let (folder, parts) = folder();
    let text = Bytes::from("hello ".repeat(1000));
    let (digest, _) = parts.put("a", text.clone()).await.unwrap();
    assert_eq!(parts.put("a", text.clone()).await.unwrap(), (digest, 0), "it takes no more room");
    assert_eq!(digest.to_string(), "4aeb9f946f7e4159b55497b061be2966e96d61cdf2e4af30c8b4d8840638aa6b");
    assert_eq!(parts.get("a", digest).await.unwrap(), text);
    assert!(fs::metadata(file(&folder, "a", digest)).unwrap().len() < 200, "it is compressed");
    assert!(matches!(parts.get("b", digest).await, Err(Error::NotFound(missing)) if missing == digest));
    let other = Digest::of(b"other");
    assert_eq!(parts.missing("a", &[digest, other, other]).await.unwrap(), [other]);
    for wrong in [0, MAX_PART_BYTES + 1] {
        let stored = parts.put("a", vec![0; wrong].into()).await;
        assert!(matches!(stored, Err(Error::Size(size)) if size == wrong));
    }
    assert!(parts.put("a", vec![7; MAX_PART_BYTES].into()).await.is_ok());
}

#[tokio::test]
async fn parts_that_are_lost_are_found() {
    let (folder, parts) = folder();
    let (kept, _) = parts.put("a", "kept".into()).await.unwrap();
    let (lost, _) = parts.put("a", "lost".into()).await.unwrap();
    assert_eq!(parts.stored().await.unwrap(), [kept, lost].into());
    assert!(parts.absent([kept, lost].into()).await.unwrap().is_empty());
    fs::remove_file(file(&folder, "a", lost)).unwrap();
    assert_eq!(parts.absent([kept, lost].into()).await.unwrap(), [lost].into());
    fs::remove_dir_all(folder.path().join("parts")).unwrap();
    assert_eq!(parts.absent([kept].into()).await.unwrap(), [kept].into(), "the whole folder");
}

/// A folder where a disk was mounted is made again on another one.
#[tokio::test]
async fn folder_in_place_of_another_has_lost_nothing() {
    let (folder, parts) = folder();
    let parts = parts.of("store");
    let none = async || Ok::<_, Error>(HashSet::new());
    parts.recognize(none()).await.unwrap();
    let (digest, _) = parts.put("a", Bytes::from_static(b"kept")).await.unwrap();
    let some = async || Ok::<_, Error>(HashSet::from([digest]));
    let (at, away) = (folder.path().join("parts"), folder.path().join("away"));
    fs::rename(&at, &away).unwrap();
    for made in [false, true] {
        // As each start does.
        let again = match made {
            true => Parts::in_folder(&at).unwrap().of("store"),
            false => parts.clone(),
        };
        let not_known = |error: &Error| {
            assert!(matches!(error, Error::Unavailable(why) if why.contains("is not the one")), "{error}");
        };
        not_known(&again.recognize(some()).await.unwrap_err());
        not_known(&again.get("a", digest).await.unwrap_err());
        not_known(&again.missing("a", &[digest]).await.unwrap_err());
        not_known(&again.absent([digest].into()).await.unwrap_err());
        not_known(&again.sweep(later(), some(), owned).await.unwrap_err());
    }
    fs::remove_dir_all(&at).unwrap();
    fs::rename(away, &at).unwrap();
    assert!(parts.get("a", digest).await.is_ok());
    assert_eq!(parts.missing("a", &[digest]).await.unwrap(), []);
    fs::remove_file(file(&folder, "store/a", digest)).unwrap();
    assert!(matches!(parts.get("a", digest).await, Err(Error::NotFound(_))), "it is lost");
}

/// Earlier versions made folders without a marker.
#[tokio::test]
async fn folders_with_parts_are_recognized() {
    let (_folder, parts) = folder();
    let parts = parts.of("store");
    let (kept, _) = parts.put("a", Bytes::from_static(b"kept")).await.unwrap();
    assert!(parts.missing("a", &[kept]).await.is_err());
    let lost = Digest::of(b"lost");
    assert!(parts.recognize(async { Ok::<_, Error>([lost].into()) }).await.is_err());
    parts.recognize(async { Ok::<_, Error>([kept, lost].into()) }).await.unwrap();
    assert_eq!(parts.missing("a", &[kept, lost]).await.unwrap(), [lost]);
}

#[tokio::test]
async fn damaged_parts_are_not_returned() {
    let (folder, parts) = folder();
    let (digest, _) = parts.put("a", "content".into()).await.unwrap();
    let (other, _) = parts.put("a", "another".into()).await.unwrap();
    fs::copy(file(&folder, "a", other), file(&folder, "a", digest)).unwrap();
    assert!(matches!(parts.get("a", digest).await, Err(Error::Damaged(_))));
    fs::write(file(&folder, "a", digest), "not compressed").unwrap();
    assert!(matches!(parts.get("a", digest).await, Err(Error::Damaged(_))));
}

#[tokio::test]
async fn sweep_removes_what_nothing_refers_to() {
    let (_folder, parts) = folder();
    let (kept, _) = parts.put("a", "kept".into()).await.unwrap();
    let (unused, _) = parts.put("a", "unused".into()).await.unwrap();
    let (pinned, _) = parts.put("a", "pinned".into()).await.unwrap();
    assert_eq!(sweep(&parts, SystemTime::UNIX_EPOCH, &[]).await, 0, "all are young");
    let pin = parts.pin("a", &[pinned]);
    assert_eq!(sweep(&parts, later(), &[kept]).await, 1);
    assert_eq!(parts.missing("a", &[kept, unused, pinned]).await.unwrap(), [unused]);
    drop(pin);
    assert_eq!(sweep(&parts, later(), &[kept]).await, 1);
    assert_eq!(parts.get("a", kept).await.unwrap(), "kept");
}

#[tokio::test]
async fn part_of_a_list_that_is_committed_during_a_sweep_stays() {
    let (_folder, parts) = folder();
    let (digest, _) = parts.put("a", "late".into()).await.unwrap();
    let during = parts.clone();
    // The list refers to it before the sweep asks, which has listed the part before.
    let swept = parts.sweep(
        later(),
        async {
            let pin = during.pin("a", &[digest]);
            assert_eq!(during.missing("a", &[digest]).await?, []);
            drop(pin);
            Ok::<_, Error>([digest].into())
        },
        owned,
    );
    assert_eq!(swept.await.unwrap().removed, 0);
}

/// A list may be committed after the sweep has read the others.
#[tokio::test]
async fn part_that_was_pinned_during_a_sweep_stays() {
    let (_folder, parts) = folder();
    let (digest, _) = parts.put("a", "late".into()).await.unwrap();
    let (other, _) = parts.put("a", "other".into()).await.unwrap();
    let during = parts.clone();
    let swept = parts.sweep(
        later(),
        async {
            drop(during.pin("a", &[digest]));
            Ok::<_, Error>(HashSet::new())
        },
        owned,
    );
    assert_eq!(swept.await.unwrap().removed, 1);
    assert_eq!(parts.missing("a", &[digest, other]).await.unwrap(), [other]);
    // The next one knows of the list, if there is one.
    assert_eq!(sweep(&parts, later(), &[]).await, 1);
}

/// The new owner may have committed lists that name the parts.
#[tokio::test]
async fn replaced_owner_removes_nothing() {
    let (_folder, parts) = folder();
    let (digest, _) = parts.put("a", "named since".into()).await.unwrap();
    let asked = AtomicUsize::new(0);
    let replaced = || {
        asked.fetch_add(1, Ordering::Relaxed);
        async { Err(Error::Unavailable("another owner".to_owned())) }
    };
    let nothing = async { Ok::<_, Error>(HashSet::new()) };
    let refused = parts.sweep(later(), nothing, replaced).await.unwrap_err();
    assert!(refused.to_string().contains("another owner"), "{refused}");
    assert_eq!((parts.missing("a", &[digest]).await.unwrap(), asked.into_inner()), (vec![], 1));
    assert_eq!(sweep(&parts, later(), &[]).await, 1);
}

/// A restored copy of a store has its id, and none of the later lists.
#[tokio::test]
async fn copies_of_a_control_plane_remove_nothing() {
    let (folder, shared) = folder();
    let of = |owner: &str| shared.clone().owned_by(owner).of("store");
    let (original, copy) = (of("original"), of("copy"));
    original.recognize(async { Ok::<_, Error>(HashSet::new()) }).await.unwrap();
    let (digest, _) = original.put("a", "text".into()).await.unwrap();
    let now = fs::metadata(folder.path()).unwrap().modified().unwrap();
    let all = || async { Ok::<_, Error>([digest].into()) };
    original.sweep(now, all(), owned).await.unwrap();
    let refused = copy.sweep(now, async { Ok::<_, Error>(HashSet::new()) }, owned).await.unwrap_err();
    assert!(matches!(refused, Error::Shared(_)), "{refused}");
    original.sweep(now, all(), owned).await.unwrap();
    assert_eq!(copy.missing("a", &[digest]).await.unwrap(), []);
    // Once the original has not been there for a day.
    let tomorrow = now + Duration::from_secs(25 * 3600);
    copy.sweep(tomorrow, all(), owned).await.unwrap();
    assert!(original.sweep(now, all(), owned).await.is_err());
}

#[tokio::test]
async fn control_planes_that_share_a_location_remove_only_their_own() {
    let (_folder, shared) = folder();
    let (one, other) = (shared.of("one"), shared.of("other"));
    one.recognize(async { Ok::<_, Error>(HashSet::new()) }).await.unwrap();
    let (digest, size) = one.put("a", "text".into()).await.unwrap();
    assert_eq!(other.missing("a", &[digest]).await.unwrap(), [digest]);
    assert_eq!(sweep(&other, later(), &[]).await, 0);
    let swept = one.sweep(later(), async { Ok::<_, Error>([digest].into()) }, owned).await.unwrap();
    assert_eq!(swept.bytes, [("a".into(), size as u64)].into());
}

#[tokio::test]
async fn unusable_urls_are_refused() {
    for (url, word) in [("parts", "relative"), ("ftp://host/parts", "ftp"), ("file://host/parts", "absolute")]
    {
        let error = Parts::open(url, Vec::new()).unwrap_err().to_string();
        assert!(error.contains(url) && error.to_lowercase().contains(word), "{error}");
    }
}

#[tokio::test]
async fn absent_bucket_is_an_outage() {
    let parts = Parts::open("s3://mistyped", without_bucket().await.unwrap()).unwrap();
    let absent = |failed: Error| {
        assert!(
            matches!(&failed, Error::Unavailable(why) if why.contains("bucket does not exist")),
            "{failed}"
        );
    };
    absent(parts.put("a", "text".into()).await.unwrap_err());
    let nothing = || async { Ok::<_, Error>(HashSet::new()) };
    absent(parts.clone().owned_by("one").sweep(later(), nothing(), owned).await.unwrap_err());
    // As a list that fails shows.
    for failed in [
        parts.get("a", Digest::of(b"text")).await.map(drop),
        parts.stored().await.map(drop),
        parts.sweep(later(), nothing(), owned).await.map(drop),
    ] {
        assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    }
}
