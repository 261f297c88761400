//! The disk of a worker: a large repository is fetched once, and ended attempts leave nothing. `make disk` asks for more of both.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;
use rota_proto::v1::{self, TaskState};
use rota_testkit::git_host::git;
use rota_testkit::tasks;

use super::restoring::site_with_git;
use super::site;

/// Agents that work at the same time.
const SLOTS: usize = 10;

fn setting(name: &str, default: usize) -> usize {
    rota_telemetry::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Returns how many files and folders are below a folder, and their bytes.
fn usage(folder: &Path) -> Result<(usize, u64)> {
    let (mut entries, mut bytes) = (0, 0);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (below, size) = match entry.file_type()?.is_dir() {
            true => usage(&entry.path())?,
            false => (0, entry.metadata()?.len()),
        };
        (entries, bytes) = (entries + 1 + below, bytes + size);
    }
    Ok((entries, bytes))
}

/// Waits until the workers have removed, in the background, what ended attempts have left.
async fn emptied(trash: &Path) -> Result<()> {
    tasks::eventually("an empty trash", async || Ok(fs::read_dir(trash)?.next().is_none())).await
}

#[tokio::test]
async fn large_repositories_are_fetched_once() -> Result<()> {
    let mib = setting("ROTA_TEST_REPOSITORY_MIB", 16) as u64;
    let site = site(SLOTS).await?;
    let client = site.fixture.client()?;
    // Random bytes: git cannot make them smaller.
    let (user, random) = (site.clone("user").await?, fs::File::open("/dev/urandom")?);
    for number in 0..mib {
        let mut file = fs::File::create(user.join(format!("large-{number}")))?;
        std::io::copy(&mut std::io::Read::take(&random, 1 << 20), &mut file)?;
        file.flush()?;
    }
    git(&user, &["add", "."]).await?;
    git(&user, &["commit", "--quiet", "-m", "large"]).await?;
    git(&user, &["push", "--quiet"]).await?;
    fs::remove_dir_all(&user)?;

    let before = site.host.served();
    let line = "ls large-* | wc -l; echo mine > mine";
    let created = (0..SLOTS).map(|number| tasks::create(&client, site.task(&format!("t{number}"), line)));
    for (number, task) in try_join_all(created).await?.iter().enumerate() {
        let limit = tasks::WAIT_TIMEOUT + Duration::from_secs(mib);
        let status = tasks::ended_within(limit, &client, &task.name).await?.status.unwrap();
        assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
        assert_eq!(status.result.unwrap().text.trim(), mib.to_string());
        assert_eq!(site.paths(&format!("t{number}")).await?, ["mine"]);
    }
    let fetched = site.host.served() - before;
    assert!(fetched >= mib << 20, "the worker has fetched it: {fetched} bytes");
    assert!(fetched < (mib << 20) * 3 / 2, "once: {fetched} bytes");
    emptied(&site.fixture.state_dir().join("trash")).await?;
    let (_, bytes) = usage(&site.fixture.state_dir())?;
    assert!(bytes < (mib << 20) * 3 / 2, "only the cache is left: {bytes} bytes");
    Ok(())
}

#[tokio::test]
async fn attempts_leave_nothing() -> Result<()> {
    let attempts = setting("ROTA_TEST_ATTEMPTS", 20);
    let site = site(SLOTS).await?;
    let client = site.fixture.client()?;
    let state = site.fixture.state_dir();
    let mut left = Vec::new();
    for half in 0..2 {
        // Every second one fails.
        let line = "head -c 1048576 /dev/urandom > committed; git add .; git commit -qm work; \
             head -c 1048576 /dev/urandom > uncommitted; echo kept > \"$ROTA_OUTPUT/kept\"; mkfifo pipe; exit ";
        // By tens, as many as run at the same time.
        for ten in 0..attempts.div_ceil(2 * SLOTS) {
            let created = (0..SLOTS).map(|number| {
                let line = format!("{line}{}", number % 2);
                let mut task = site.task(&format!("t{half}-{ten}-{number}"), &line);
                task.spec.get_or_insert_default().retry =
                    Some(v1::RetryPolicy { max_attempts: 1, ..v1::RetryPolicy::default() });
                tasks::create(&client, task)
            });
            for (number, task) in try_join_all(created).await?.iter().enumerate() {
                let state = tasks::ended(&client, &task.name).await?.status.unwrap().state();
                let wanted = [TaskState::Succeeded, TaskState::Failed][number % 2];
                assert_eq!(state, wanted);
            }
        }
        emptied(&state.join("trash")).await?;
        left.push(usage(&state)?);
    }
    let [(entries, bytes), (later_entries, later_bytes)] = left[..] else { unreachable!("two halves") };
    assert_eq!(later_entries, entries, "files and folders");
    assert!(later_bytes < bytes + (1 << 20), "{bytes} bytes, then {later_bytes}");
    Ok(())
}

#[tokio::test]
async fn kept_workspaces_outlive_the_cache() -> Result<()> {
    let site = site(1).await?;
    let keep = |workspace: &mut v1::Workspace| {
        workspace.set_mode(v1::WorkspaceMode::Keep);
        workspace.path = "shared".to_owned();
    };
    let line = |name: &str| format!("echo {name} > {name}; git add .; git commit -qm {name}");
    let source = site.source();
    site.succeed(site.task_with("one", &line("one"), source.clone(), keep)).await?;
    assert_eq!(site.paths("one").await?, ["one"]);
    let caches = site.fixture.state_dir().join("repositories/default");
    std::fs::remove_dir_all(&caches)?;
    // Only what this task has changed.
    site.succeed(site.task_with("two", &line("two"), source, keep)).await?;
    assert_eq!(site.paths("two").await?, ["two"]);
    Ok(())
}

/// A clean-up of a cache that fails leaves nothing of the copy that it was making.
#[tokio::test]
async fn failed_clean_ups_leave_nothing() -> Result<()> {
    let fails = "case \"$*\" in *'gc --auto'*) touch called objects/pack/tmp_pack_x; exit 128;; esac";
    let site = site_with_git(|_| fails.to_owned()).await?;
    site.succeed(site.task("one", "true")).await?;
    let cache = site.only_cache()?;
    assert!(cache.join("called").exists());
    assert!(!cache.join("objects/pack/tmp_pack_x").exists());
    assert!(!cache.with_extension("unfinished").exists());
    Ok(())
}

/// A worker that is killed during a fetch leaves locks of git in the cache.
#[tokio::test]
async fn caches_heal() -> Result<()> {
    let site = site(1).await?;
    let user = site.clone("user").await?;
    for branch in ["HEAD:refs/heads/first", "HEAD:refs/heads/second"] {
        git(&user, &["push", "-q", "origin", branch]).await?;
    }
    site.succeed(site.task("one", "true")).await?;
    let cache = site.only_cache()?;
    git(&cache, &["pack-refs", "--all"]).await?;
    for line in [
        &["commit", "-q", "--allow-empty", "-m", "second"][..],
        &["push", "-q", "origin", "main"],
        &["push", "-q", "origin", "--delete", "first"],
    ] {
        git(&user, line).await?;
    }
    std::fs::create_dir_all(cache.join("refs/remotes/origin"))?;
    for lock in
        ["packed-refs.lock", "packed-refs.new", "refs/remotes/origin/main.lock", "refs/rota/head.lock"]
    {
        std::fs::write(cache.join(lock), "")?;
    }
    std::fs::write(cache.with_extension("unfinished"), "")?;
    assert_eq!(site.succeed(site.task("two", "git log -1 --format=%s")).await?, "second\n");
    // One that no fetch has left, and that git would make to remove a branch.
    std::fs::write(cache.join("packed-refs.new"), "")?;
    git(&user, &["push", "-q", "origin", "--delete", "second"]).await?;
    assert_eq!(site.succeed(site.task("three", "git branch -r")).await?, "  origin/main\n");
    // After a power cut, files can be empty.
    std::fs::write(cache.join("HEAD"), "")?;
    assert_eq!(site.succeed(site.task("four", "git log -1 --format=%s")).await?, "second\n");
    Ok(())
}
