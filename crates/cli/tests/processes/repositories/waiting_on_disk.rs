//! Work that waits on the disk of its worker while the storage is away, and the worker ends at the worst moment.

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1::{FailureClass, TaskState, event};
use rota_testkit::tasks;

use super::site_of;
use crate::{storing, workload};

/// A disk that has lost a part of the work: the rest of it is not deleted.
#[tokio::test]
async fn damaged_work_stays_on_the_disk() -> Result<()> {
    let mut fixture = storing::impatient();
    fixture.start_server().await?;
    let mut site = site_of(fixture, 1).await?;
    let client = site.fixture.client()?;
    let gate = site.fixture.dir().join("go-on");
    let line = format!("echo once; echo a > a; until test -e {}; do sleep 0.1; done", gate.display());
    let task = tasks::create(&client, site.task("kept", &line)).await?;
    workload::prints(&client, &task.name, "once").await?;
    let storage = storing::Folder::of(&site.fixture);
    storage.take_away()?;
    std::fs::write(&gate, "")?;
    storing::waits_for_storage(&client, &task.name).await?;
    site._worker.signal(Signal::SIGKILL);
    site._worker.wait().await;
    let own = site.fixture.state_dir().join("running/default/w");
    let own = std::fs::read_dir(own)?.next().unwrap()?.path();
    let bundle = own.join("scratch/git/changes.bundle");
    std::fs::remove_file(&bundle)?;
    storage.bring_back()?;
    site.start_worker("w").await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{:?}", status.failure);
    let log = tasks::log(&client, &task.name).await?;
    let failure = log.iter().find_map(|event| match &event.kind {
        Some(event::Kind::State(change)) => change.failure.as_ref(),
        _ => None,
    });
    let failure = failure.unwrap();
    assert_eq!(failure.class(), FailureClass::Environment, "{failure:?}");
    assert!(failure.message.contains(bundle.to_str().unwrap()), "{failure:?}");
    assert!(failure.hint.contains(own.to_str().unwrap()), "{failure:?}");
    assert_eq!(std::fs::read_to_string(own.join("work/a"))?, "a\n");
    Ok(())
}
