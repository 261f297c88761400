//! Files of attempts up to the limits of what is kept.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rota_proto::v1::{self, ArtifactList, TaskState};
use rota_testkit::tasks;
use sha2::{Digest, Sha256};

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

/// Bytes of a sparse file, most of which no disk has.
const SPARSE: u64 = 64 << 20;

#[tokio::test]
async fn sparse_files_are_kept_whole() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let line = format!(
        "cd $ROTA_OUTPUT; truncate -s {SPARSE} sparse; printf middle | dd of=sparse bs=1 seek=40000000 conv=notrunc status=none; \
         sha256sum sparse | cut -c1-64"
    );
    let name = tasks::create(&client, workload::shell(&line, &[])).await?.name;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    // The part with the text, and that without.
    assert_eq!(parts(&fixture.data.join("artifacts"))?, 2);
    let id = name.rsplit('/').next().unwrap();
    fixture.rota(&["download", id, "--to", "got"]).await.success();
    let mut got = fs::File::open(fixture.dir().join("got/output/sparse"))?;
    assert_eq!(got.metadata()?.len(), SPARSE);
    let mut digest = Sha256::new();
    std::io::copy(&mut got, &mut digest)?;
    assert_eq!(hex::encode(digest.finalize()), status.result.unwrap().text);
    Ok(())
}

/// Returns the names of the files below a folder.
fn files(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => found.extend(files(&entry.path())?),
            false => found.push(entry.file_name().into_string().unwrap()),
        }
    }
    Ok(found)
}

/// Counts the parts in a folder of artifacts, with those that are not complete.
fn parts(folder: &Path) -> Result<usize> {
    Ok(files(folder)?.iter().filter(|name| name.len() >= 64).count())
}
