//! Files of attempts up to the limits of what is kept.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rota_proto::v1::{self, ArtifactList, TaskState};
use rota_testkit::tasks;
use sha2::{Digest, Sha256};

use crate::responses::Response;
use crate::small_disk::SmallDisk;
use crate::storing::{impatient, waits_for_storage};
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

/// Size of a file that attempts leave, and of a volume on which it has room, or none.
const FILE: usize = 3 << 20;

#[tokio::test]
async fn full_volume_of_the_storage_delays_the_work() -> Result<()> {
    let mut fixture = impatient();
    let disk = SmallDisk::mount(&fixture.dir().join("storage"), "8m", fixture.mark()).await?;
    let folder = disk.path().join("artifacts");
    fixture.server_environment.push(("ROTA_SERVER_ARTIFACTS", format!("file://{}", folder.display())));
    fixture.disk = Some(disk);
    fixture.start_server().await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let disk = fixture.disk.as_ref().unwrap();
    disk.fill()?;
    let line = format!(
        "echo once; head -c {FILE} /dev/urandom > $ROTA_OUTPUT/file; sha256sum $ROTA_OUTPUT/file | cut -c1-64 > $ROTA_OUTPUT/sum"
    );
    let name = tasks::create(&client, workload::shell(&line, &[])).await?.name;
    waits_for_storage(&client, &name).await?;
    let status = client.get_system_status(v1::GetSystemStatusRequest {}).await?;
    let cause = status.causes.iter().find(|cause| cause.code == "artifacts_unavailable");
    assert!(cause.is_some_and(|cause| cause.message.contains("No space left on device")), "{status:?}");
    let other = tasks::create(&client, workload::shell("echo other", &[])).await?.name;
    assert_eq!(tasks::ended(&client, &other).await?.status.unwrap().state(), TaskState::Succeeded);

    disk.free()?;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &name).await?, "once\n");
    // Three parts and the sum: nothing is left of the calls that failed.
    assert_eq!(parts(&disk.inside().join("artifacts"))?, 4);
    let id = name.rsplit('/').next().unwrap();
    fixture.rota(&["download", id, "--to", "got"]).await.success();
    let output = fixture.dir().join("got/output");
    let sum = hex::encode(Sha256::digest(fs::read(output.join("file"))?));
    assert_eq!(fs::read_to_string(output.join("sum"))?.trim(), sum);
    Ok(())
}

#[tokio::test]
async fn download_to_a_full_volume_leaves_nothing() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let line = format!("head -c {FILE} /dev/urandom > $ROTA_OUTPUT/file");
    let name = tasks::create(&client, workload::shell(&line, &[])).await?.name;
    assert_eq!(tasks::ended(&client, &name).await?.status.unwrap().state(), TaskState::Succeeded);
    let disk = SmallDisk::mount(&fixture.dir().join("disk"), "6m", fixture.mark()).await?;
    let to = disk.path().join("got");
    let command = ["download", name.rsplit('/').next().unwrap(), "--to", to.to_str().unwrap()];
    let download = async || Response::of(disk.command(&fixture.command(&command)), "").await;
    // Some of it has room.
    fs::write(disk.inside().join("other"), vec![1; FILE + (1 << 20)])?;
    download().await.failed(1, &["output/file", "No space left on device"]);
    disk.fill()?;
    download().await.failed(1, &["output/file", "No space left on device"]);
    assert_eq!(files(&disk.inside().join("got"))?, [""; 0]);
    disk.free()?;
    fs::remove_file(disk.inside().join("other"))?;
    download().await.success();
    assert_eq!(fs::metadata(disk.inside().join("got/output/file"))?.len(), FILE as u64);
    Ok(())
}
