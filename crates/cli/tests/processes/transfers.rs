//! Large files that are carried over a killed control plane, and an object store that was away. `make transfers` asks for 1 GiB.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1::TaskState;
use rota_testkit::s3_server::{S3Server, SECRET_KEY};
use rota_testkit::tasks;
use sha2::{Digest, Sha256};

use crate::artifacts::{files, stored};
use crate::process::Process;
use crate::{Fixture, Graces, object_store, workload};

/// Bytes of the file, which is no whole number of parts.
fn size(default_mib: u64) -> u64 {
    let mib =
        rota_telemetry::env::var("ROTA_TEST_TRANSFER_MIB").map_or(default_mib, |mib| mib.parse().unwrap());
    (mib << 20) + 123
}

/// Returns how long a transfer may take: a second more for each MiB.
fn limit(size: u64) -> Duration {
    tasks::WAIT_TIMEOUT + Duration::from_secs(size >> 20)
}

/// Returns a command that leaves a file of random bytes, and prints its digest.
fn leaves(size: u64) -> String {
    format!(r#"head -c {size} /dev/urandom > "$ROTA_OUTPUT/big"; sha256sum "$ROTA_OUTPUT/big" | cut -c1-64"#)
}

/// Returns size and digest of a file.
fn sum(path: &Path) -> Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let size = std::io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok((size, hex::encode(hasher.finalize())))
}

/// An upload continues where it ended, whichever of the two was away.
#[tokio::test]
async fn uploads_survive_a_killed_control_plane_and_an_absent_store() -> Result<()> {
    let (s3, mut fixture) = object_store::start(SECRET_KEY).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let size = size(64);
    let name = tasks::create(&client, workload::shell(&leaves(size), &[])).await?.name;
    let bucket = s3.bucket("rota")?;
    let parts = || fs::read_dir(&bucket).into_iter().flatten().count();
    tasks::eventually("the first parts", async || Ok(parts() > 0)).await?;
    fixture.kill_server().await;
    let (address, folder) = (s3.address(), fixture.dir().join("s3"));
    drop(s3);
    fixture.start_server().await?;
    let _s3 = S3Server::start_at(&folder, address).await?;
    let status = tasks::ended_within(limit(size), &client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    let digest = status.result.unwrap().text;
    let id = name.rsplit('/').next().unwrap();
    let download = Process::start("download", fixture.command(&["download", id, "--to", "got"]));
    let ended = download.ended_within(limit(size)).await;
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(sum(&fixture.dir().join("got/output/big"))?, (size, digest));
    assert!(!fixture.data.join("artifacts").exists(), "nothing is in the data directory");
    Ok(())
}

/// A download continues with the next part: the first one is not there any more.
#[tokio::test]
async fn downloads_survive_a_killed_control_plane() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let size = size(200);
    let name = tasks::create(&client, workload::shell(&leaves(size), &[])).await?.name;
    let status = tasks::ended_within(limit(size), &client, &name).await?.status.unwrap();
    let digest = status.result.unwrap().text;
    let list = client.fetch_artifacts(&name).await?.attempts.remove(0).list.unwrap();
    let first = hex::encode(&list.artifacts[0].parts[0]);
    let id = name.rsplit('/').next().unwrap();
    let mut tries = 0;
    let (download, folder) = loop {
        tries += 1;
        assert!(tries < 6, "each download was over before the kill");
        let folder = fixture.dir().join(format!("got-{tries}"));
        let mut command = fixture.command(&["download", id, "--to"]);
        command.arg(&folder);
        let download = Process::start("download", command);
        let received = || {
            let sizes = files(&folder).into_iter().filter_map(|file| folder.join(file).metadata().ok());
            sizes.map(|found| found.len()).sum::<u64>()
        };
        tasks::eventually("the first parts", async || Ok(received() > 2 << 20)).await?;
        download.signal(Signal::SIGSTOP);
        if received() < size {
            break (download, folder);
        }
        // A stalled machine may stop it too late.
        download.kill().await;
    };
    fixture.kill_server().await;
    let part = stored(&fixture).into_iter().find(|path| path.ends_with(&first)).unwrap();
    fs::remove_file(fixture.data.join("artifacts").join(part))?;
    fixture.start_server().await?;
    download.signal(Signal::SIGCONT);
    let ended = download.ended_within(limit(size)).await;
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(sum(&folder.join("output/big"))?, (size, digest));
    Ok(())
}
