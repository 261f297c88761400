//! Files of attempts up to the limits of what is kept.

use std::fs;

use anyhow::Result;
use rota_proto::v1::{self, ArtifactList, TaskState};
use rota_testkit::tasks;

use crate::{Fixture, Graces, workload};

/// Files of a checkpoint, and of `output/`: more than one list takes.
const CHECKPOINT: usize = 990;
const OUTPUT: usize = 4000;

fn of_checkpoint(list: &ArtifactList) -> usize {
    list.artifacts.iter().filter(|artifact| artifact.name.starts_with("checkpoint/")).count()
}

/// The checkpoint before the last one, which cannot be made, has its place in the list next to as many files as have room.
#[tokio::test]
async fn earlier_checkpoint_has_room_in_a_full_list() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    fixture.environment = vec![("ROTA_WORKER_CHECKPOINT_INTERVAL", "200ms".to_owned())];
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let gate = fixture.dir().join("go-on");
    let line = format!(
        "write() {{ for i in $(seq $1 $2); do echo $i > $3-$i; done; }}; write 1 {CHECKPOINT} $ROTA_CHECKPOINT/step; \
         until test -e {}; do sleep 0.05; done; write 1001 1020 $ROTA_CHECKPOINT/step; \
         write 1 {OUTPUT} $ROTA_OUTPUT/one-of-many-files-of-an-attempt; echo done",
        gate.display()
    );
    let mut task = workload::shell(&line, &[]);
    task.spec.get_or_insert_default().retry = Some(v1::RetryPolicy { max_attempts: 2, ..Default::default() });
    let task = tasks::create(&client, task).await?;
    let kept = async || -> Result<ArtifactList> {
        let attempts = client.fetch_artifacts(&task.name).await?.attempts;
        Ok(attempts.into_iter().find_map(|attempt| attempt.list).unwrap_or_default())
    };
    tasks::eventually("a checkpoint", async || Ok(of_checkpoint(&kept().await?) == CHECKPOINT)).await?;
    fs::write(&gate, "")?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    let list = kept().await?;
    assert_eq!(of_checkpoint(&list), CHECKPOINT);
    let of_output = list.artifacts.len() - CHECKPOINT;
    assert!(of_output > 1000 && of_output < OUTPUT, "{of_output}");
    assert!(list.skipped.iter().all(|skipped| skipped.reason.contains("too many artifacts")));
    assert!(!list.skipped.is_empty());
    Ok(())
}
