//! Artifacts in an object store: a real control plane and a server that speaks S3.

use std::fs;

use anyhow::Result;
use rota_testkit::s3_server::S3Server;

use crate::{Fixture, workload};

pub(crate) async fn start(secret: &str) -> Result<(S3Server, Fixture)> {
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
