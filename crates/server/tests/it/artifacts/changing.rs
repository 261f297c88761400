//! Uploads of files that change while they are read.

use std::fs::{self, File};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use rota_proto::PART_BYTES;
use rota_testkit::client::artifacts::Source;

use super::start_cluster;

/// A file that is opened twice has other contents the second time. Nothing is kept that no file had when it was described.
#[tokio::test]
async fn files_that_change_meanwhile_are_skipped() -> Result<()> {
    let cluster = start_cluster().await?;
    let folder = tempfile::tempdir()?;
    let source = |name: &str, first: &[u8], second: Option<&[u8]>| {
        let paths = [0, 1].map(|version| folder.path().join(format!("{name}-{version}")));
        fs::write(&paths[0], first).unwrap();
        second.into_iter().for_each(|second| fs::write(&paths[1], second).unwrap());
        let (size, opened) = (first.len() as u64, AtomicUsize::new(0));
        let open = move || File::open(&paths[opened.fetch_add(1, Ordering::Relaxed).min(1)]);
        Source { name: name.to_owned(), executable: false, size, open: Box::new(open) }
    };
    let large = vec![1; PART_BYTES + 5];
    let mut late = large.clone();
    late[PART_BYTES] = 2;
    let sources = vec![
        source("same", b"same", Some(b"same")),
        source("changed", b"one", Some(b"two")),
        source("shorter", b"short", Some(b"sho")),
        source("longer", b"long", Some(b"long and longer")),
        source("late", &large, Some(&late)),
        source("lost", b"lost", None),
    ];
    let artifacts = cluster.client().artifacts("default");
    let uploaded = artifacts.upload(sources, |_, _| ()).await?;
    let skipped: Vec<_> =
        uploaded.skipped.iter().map(|(name, reason)| (name.as_str(), reason.as_str())).collect();
    let (changed, shorter) = ("it changed while it was read", "it became shorter while it was read");
    assert_eq!(skipped[..3], [("changed", changed), ("shorter", shorter), ("late", changed)]);
    assert!(skipped.len() == 4 && skipped[3].0 == "lost", "{skipped:?}");
    for (artifact, content) in uploaded.artifacts.iter().zip(["same", "long"]) {
        let at = folder.path().join("got");
        artifacts.download(artifact, &mut tokio::fs::File::create(&at).await?, |_| ()).await?;
        assert_eq!((artifact.name.contains(content), fs::read_to_string(at)?.as_str()), (true, content));
    }
    assert_eq!(uploaded.artifacts.len(), 2);
    Ok(())
}

/// Files that have the same part, of which one changes before that is uploaded.
#[tokio::test]
async fn part_of_a_changed_file_is_read_from_another() -> Result<()> {
    let cluster = start_cluster().await?;
    let folder = tempfile::tempdir()?;
    for changed in [0, 1] {
        let common = format!("in both, and {changed} changes");
        let sources = [0, 1].map(|number| {
            let paths = [0, 1].map(|version| folder.path().join(format!("{changed}-{number}-{version}")));
            fs::write(&paths[0], &common).unwrap();
            let second = if number == changed { common.replace("both", "none") } else { common.clone() };
            fs::write(&paths[1], second).unwrap();
            let opened = AtomicUsize::new(0);
            let open = move || File::open(&paths[opened.fetch_add(1, Ordering::Relaxed).min(1)]);
            let (name, size) = (number.to_string(), common.len() as u64);
            Source { name, executable: false, size, open: Box::new(open) }
        });
        let artifacts = cluster.client().artifacts("default");
        let uploaded = artifacts.upload(sources.into(), |_, _| ()).await?;
        let mut seen: Vec<_> = uploaded.skipped.iter().map(|(name, _)| name.clone()).collect();
        seen.extend(uploaded.artifacts.iter().map(|artifact| artifact.name.clone()));
        seen.sort();
        assert_eq!(seen, ["0", "1"], "{uploaded:?}");
        assert!(uploaded.artifacts.iter().any(|artifact| artifact.name != changed.to_string()));
        for artifact in &uploaded.artifacts {
            let at = folder.path().join("got");
            artifacts.download(artifact, &mut tokio::fs::File::create(&at).await?, |_| ()).await?;
            assert_eq!(fs::read_to_string(at)?, common);
        }
    }
    Ok(())
}
