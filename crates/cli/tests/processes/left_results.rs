//! Results of attempts that end while the control plane is away.

use std::fs;
use std::path::Path;

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1::TaskState;
use rota_testkit::tasks;

use crate::{Fixture, Graces, workload};

/// Waits until a worker has described the result of an attempt on its disk. `running` is the directory of its attempts.
pub(crate) async fn until_result_is_on_disk(running: &Path) -> Result<()> {
    let is_left = async || Ok(fs::read_dir(running)?.flatten().any(|own| own.path().join("left").exists()));
    tasks::eventually("the result on the disk", is_left).await
}

/// The control plane is away when an attempt ends, and the worker dies before it is back: the work is done, and is not done again. `last`
/// is the last command of the attempt.
async fn outlives_its_worker(last: &str) -> Result<usize> {
    let mut fixture = Fixture::bare();
    fixture.graces = Graces::LONG;
    // Not for the time that a storage is waited for with a slot.
    fixture.environment = vec![("ROTA_WORKER_STORING_TIMEOUT", "1h".to_owned())];
    fixture.start_server().await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let mut worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let (gate, runs) = (fixture.dir().join("go-on"), fixture.dir().join("runs"));
    let line = format!(
        "echo once >> {}; echo here; until test -e {}; do sleep 0.05; done; \
         echo unsent; echo '{{\"success\": true, \"summary\": \"paid\"}}' > $ROTA_OUTPUT/result.json; {last}",
        runs.display(),
        gate.display()
    );
    let name = tasks::create(&client, workload::shell(&line, &[])).await?.name;
    workload::prints(&client, &name, "here").await?;
    fixture.kill_server().await;
    fs::write(&gate, "")?;
    let running = fixture.state_dir().join("running/default/w");
    until_result_is_on_disk(&running).await?;
    worker.signal(Signal::SIGKILL);
    worker.wait().await;
    fixture.start_server().await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    assert_eq!(status.result.unwrap().text, "paid");
    assert!(tasks::notices(&tasks::log(&client, &name).await?).contains(&"log_cut".to_owned()));
    assert_eq!(fs::read_to_string(&runs)?, "once\n");
    tasks::eventually("an empty directory", async || Ok(fs::read_dir(&running)?.next().is_none())).await?;
    let kept = client.fetch_artifacts(&name).await?.attempts;
    Ok(kept.iter().flat_map(|found| &found.list).map(|list| list.artifacts.len()).sum())
}

#[tokio::test]
async fn results_outlive_their_worker() -> Result<()> {
    assert_eq!(outlives_its_worker("true").await?, 0);
    Ok(())
}

#[tokio::test]
async fn files_outlive_their_worker() -> Result<()> {
    assert_eq!(outlives_its_worker("echo text > $ROTA_OUTPUT/file").await?, 1);
    Ok(())
}
