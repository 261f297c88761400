//! Work that waits on the disk of its worker while the storage is away, and the worker ends at the worst moment.

use std::path::PathBuf;

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1::{self, FailureClass, TaskState, event};
use rota_testkit::tasks;

use super::restoring::call_git_through;
use super::{Site, site_of};
use crate::{storing, workload};

/// A task whose work waits on the disk of the worker of a site, since its namespace has no room.
struct Waiting {
    site: Site,
    task: v1::Task,
    /// While this is there, a bundle is never complete.
    endless: PathBuf,
    /// Made by the next bundle that is begun.
    begun: PathBuf,
}

impl Waiting {
    async fn start() -> Result<Self> {
        let mut fixture = storing::impatient();
        let (endless, begun) = (fixture.dir().join("endless"), fixture.dir().join("begun"));
        call_git_through(&mut fixture, |_| {
            let (endless, begun) = (endless.display(), begun.display());
            format!(
                "case \"$*\" in *'bundle create'*) if test -e {endless}; then touch {begun}; sleep 600; fi;; esac"
            )
        })?;
        fixture.server_environment = vec![("ROTA_SERVER_ARTIFACTS_QUOTA_MIB", "1".to_owned())];
        fixture.start_server().await?;
        let site = site_of(fixture, 1).await?;
        let client = site.fixture.client()?;
        let line = "echo once; head -c 3145728 /dev/urandom > a";
        let task = tasks::create(&client, site.task("kept", line)).await?;
        storing::waits_for_storage(&client, &task.name).await?;
        Ok(Self { site, task, endless, begun })
    }

    /// Makes room for the work.
    async fn make_room(&mut self) -> Result<()> {
        let fixture = &mut self.site.fixture;
        fixture.stop_server().await;
        fixture.server_environment = vec![("ROTA_SERVER_ARTIFACTS_QUOTA_MIB", "64".to_owned())];
        fixture.start_server().await
    }

    /// Waits for another upload, or for what comes before it.
    async fn is_repeated(&self) -> Result<()> {
        let failed = || self.site._worker.count("the storage does not take what an attempt left");
        // The one that was described may not have ended.
        let enough = failed() + 2;
        tasks::eventually("another upload", async || Ok(failed() >= enough || self.begun.exists())).await
    }

    async fn end_worker(&mut self, signal: Signal) {
        self.site._worker.signal(signal);
        self.site._worker.wait().await;
    }
}

/// Whenever the worker ends: what is described is not made again.
#[tokio::test]
async fn described_work_survives_each_end_of_the_worker() -> Result<()> {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut waiting = Waiting::start().await?;
        std::fs::write(&waiting.endless, "")?;
        waiting.is_repeated().await?;
        waiting.end_worker(signal).await;
        std::fs::remove_file(&waiting.endless)?;
        waiting.site.start_worker("w").await?;
        let client = waiting.site.fixture.client()?;
        storing::waits_for_storage(&client, &waiting.task.name).await?;
        waiting.make_room().await?;
        let Waiting { site, task, .. } = waiting;
        let client = site.fixture.client()?;
        let status = tasks::ended(&client, &task.name).await?.status.unwrap();
        assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
        assert_eq!(workload::printed(&client, &task.name).await?, "once\n");
        assert_eq!(site.paths("kept").await?, ["a"]);
    }
    Ok(())
}

/// A disk that has lost a part of the work: the rest of it is not deleted.
#[tokio::test]
async fn damaged_work_stays_on_the_disk() -> Result<()> {
    let mut waiting = Waiting::start().await?;
    waiting.end_worker(Signal::SIGKILL).await;
    let own = waiting.site.fixture.state_dir().join("running/default/w");
    let own = std::fs::read_dir(own)?.next().unwrap()?.path();
    let bundle = own.join("scratch/git/changes.bundle");
    std::fs::remove_file(&bundle)?;
    waiting.make_room().await?;
    waiting.site.start_worker("w").await?;
    let client = waiting.site.fixture.client()?;
    let status = tasks::ended(&client, &waiting.task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{:?}", status.failure);
    let log = tasks::log(&client, &waiting.task.name).await?;
    let failure = log.iter().find_map(|event| match &event.kind {
        Some(event::Kind::State(change)) => change.failure.as_ref(),
        _ => None,
    });
    let failure = failure.unwrap();
    assert_eq!(failure.class(), FailureClass::Environment, "{failure:?}");
    assert!(failure.message.contains(bundle.to_str().unwrap()), "{failure:?}");
    assert!(failure.hint.contains(own.to_str().unwrap()), "{failure:?}");
    assert_eq!(std::fs::metadata(own.join("work/a"))?.len(), 3_145_728);
    Ok(())
}
