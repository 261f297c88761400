//! Artifacts in an object store: a real control plane and a server that speaks S3, which is away at times.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use rota_proto::v1::TaskState;
use rota_testkit::s3_server::{S3Server, SECRET_KEY};
use rota_testkit::tasks;
use sha2::{Digest, Sha256};

use crate::{Fixture, workload};

/// MiB of the file that crosses a killed control plane and a restarted object store; `make transfers` sets more.
fn size_mib() -> usize {
    rota_telemetry::env::var("ROTA_TEST_TRANSFER_MIB").map_or(64, |size| size.parse().unwrap())
}

async fn start(secret: &str) -> Result<(S3Server, Fixture)> {
    let mut fixture = Fixture::bare();
    let folder = fixture.dir().join("s3");
    fs::create_dir_all(&folder)?;
    let s3 = S3Server::start(&folder).await?;
    s3.bucket("rota")?;
    fixture.server_environment.push(("ROTA_SERVER_ARTIFACTS", "s3://rota/team/artifacts".to_owned()));
    fixture.server_environment.extend(s3.environment());
    fixture.server_environment.push(("AWS_SECRET_ACCESS_KEY", secret.to_owned()));
    fixture.start_server().await?;
    Ok((s3, fixture))
}

/// A transfer continues where it ended, whichever of the two was away.
#[tokio::test]
async fn transfers_survive_a_killed_control_plane_and_an_absent_store() -> Result<()> {
    let (s3, mut fixture) = start(SECRET_KEY).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let size = (size_mib() << 20) + 123;
    let line = format!(
        r#"head -c {size} /dev/urandom > "$ROTA_OUTPUT/big"; sha256sum "$ROTA_OUTPUT/big" | cut -c1-64"#
    );
    let name = tasks::create(&client, workload::shell(&line, &[])).await?.name;
    let bucket = s3.bucket("rota")?;
    let parts = || fs::read_dir(&bucket).into_iter().flatten().count();
    tasks::eventually("the first parts", async || Ok(parts() > 0)).await?;
    fixture.kill_server().await;
    let (address, folder) = (s3.address(), fixture.dir().join("s3"));
    drop(s3);
    fixture.start_server().await?;
    let _s3 = S3Server::start_at(&folder, address).await?;
    let limit = tasks::WAIT_TIMEOUT + Duration::from_secs(size_mib() as u64);
    let status = tasks::ended_within(limit, &client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    let digest = status.result.unwrap().text;
    let id = name.rsplit('/').next().unwrap();
    let done = fixture.rota(&["download", id, "--to", "got"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let got = fs::read(fixture.dir().join("got/output/big"))?;
    assert_eq!((got.len(), hex::encode(Sha256::digest(&got))), (size, digest));
    assert!(!fixture.data.join("artifacts").exists(), "nothing is in the data directory");
    Ok(())
}

/// A key that the store does not accept is named to who uploads, and costs no attempt.
#[tokio::test]
async fn refused_key_is_reported() -> Result<()> {
    let (_s3, fixture) = start("another-password").await?;
    workload::agent(&fixture.client()?).await?;
    fs::write(fixture.dir().join("input"), "text")?;
    let run = ["run", "--agent", workload::AGENT, "--input", "input", "--command", "--", "true"];
    let refused = fixture.rota(&run).await;
    assert!(
        refused.code != 0 && refused.err.contains("the storage of artifacts is unavailable"),
        "{refused:?}"
    );
    assert!(
        refused.err.contains("403 Forbidden") && !refused.err.contains("another-password"),
        "{refused:?}"
    );
    let listed = fixture.rota(&["get", "tasks", "--output", "json"]).await;
    assert!(!listed.out.contains("\"uid\""), "{listed:?}");
    Ok(())
}
