//! Results of attempts that end while the control plane is away.

use std::fs;

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1::TaskState;
use rota_testkit::tasks;

use crate::{Fixture, Graces, workload};

/// The control plane is away when an attempt ends that has no files, and the worker dies before it is back: the work is done, and is not
/// done again.
#[tokio::test]
async fn results_outlive_their_worker() -> Result<()> {
    let mut fixture = Fixture::bare();
    fixture.graces = Graces::LONG;
    fixture.start_server().await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let mut worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let (gate, runs) = (fixture.dir().join("go-on"), fixture.dir().join("runs"));
    let line = format!(
        "echo once >> {}; echo here; until test -e {}; do sleep 0.05; done; \
         echo '{{\"success\": true, \"summary\": \"paid\"}}' > $ROTA_OUTPUT/result.json",
        runs.display(),
        gate.display()
    );
    let name = tasks::create(&client, workload::shell(&line, &[])).await?.name;
    workload::prints(&client, &name, "here").await?;
    fixture.kill_server().await;
    fs::write(&gate, "")?;
    let running = fixture.state_dir().join("running/default/w");
    tasks::eventually("the result on the disk", async || {
        Ok(fs::read_dir(&running)?.flatten().any(|own| own.path().join("left").exists()))
    })
    .await?;
    worker.signal(Signal::SIGKILL);
    worker.wait().await;
    fixture.start_server().await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    assert_eq!(status.result.unwrap().text, "paid");
    assert_eq!(fs::read_to_string(&runs)?, "once\n");
    tasks::eventually("an empty directory", async || Ok(fs::read_dir(&running)?.next().is_none())).await
}
