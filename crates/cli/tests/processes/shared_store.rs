//! Settings of a control plane on PostgreSQL: `rota dev`, and what is refused.

use anyhow::Result;
use rota_testkit::postgres::PostgresServer;

use crate::Fixture;
use crate::process::Process;

#[tokio::test]
async fn development_server_keeps_tasks_in_a_database() -> Result<()> {
    let fixture = Fixture::bare();
    let url = PostgresServer::shared().database()?;
    let start = |fixture: &Fixture| {
        let listen = ["dev", "--listen", "127.0.0.1:0", "--data-dir", "data", "--store", &url];
        Process::start("dev", fixture.command(&listen))
    };
    let mut dev = start(&fixture);
    dev.prints("rota dev is running at http://").await;
    let agent = "apiVersion: rota.dev/v1alpha1\nkind: Agent\nmetadata: {name: shell}\n\
        spec: {runtime: {command: {}}, maxReplicas: 1}\n";
    fixture.apply("agent.yaml", agent).await.success();
    let run = ["run", "--agent", "shell", "--name", "kept", "--command", "--", "echo", "kept"];
    assert_eq!(fixture.rota(&run).await.success().trim(), "kept");
    dev.kill().await;
    // It ended without a word: the next one waits for its lease.
    let mut dev = start(&fixture);
    dev.prints("rota dev is running at http://").await;
    assert_eq!(fixture.rota(&["result", "kept"]).await.success().trim(), "kept");
    assert!(!fixture.dir().join("data/rota.sqlite").exists());
    Ok(())
}

#[tokio::test]
async fn contradictory_settings_are_refused() -> Result<()> {
    let fixture = Fixture::bare();
    fixture.write_key("key", &[7; 32])?;
    fixture.write_key("short", &[7; 5])?;
    let store = "postgres://rota@127.0.0.1:1/rota";
    for (flags, why) in [
        (&["--key-file", "key"][..], "requires artifacts"),
        (&["--artifacts", "file:///tmp"][..], "requires key_file"),
        (&["--artifacts", "file:///tmp", "--key-file", "other"][..], "is missing"),
        (
            &["--key-file", "key", "--artifacts", "file:///tmp", "--listen", "0.0.0.0:7420"][..],
            "requires advertise",
        ),
        // Found out before the database is reached, not after it was taken over.
        (&["--artifacts", "file:///tmp", "--key-file", "short"][..], "has 5 bytes"),
        (&["--artifacts", "nonsense://a", "--key-file", "key"][..], "artifacts"),
        (
            &["--artifacts", "file:///tmp", "--key-file", "key", "--notifications", "absent"][..],
            "failed to read absent",
        ),
        (
            &[
                "--artifacts",
                "file:///tmp",
                "--key-file",
                "key",
                "--tls-certificate",
                "key",
                "--tls-key",
                "key",
            ][..],
            "no certificate",
        ),
    ] {
        let command = ["server", "--insecure", "--data-dir", "data", "--store", store];
        let refused = fixture.rota(&[&command, flags].concat()).await;
        refused.failed(2, &[why]);
    }
    let flags = ["--key-file", "key", "--artifacts", "file:///tmp"];
    let command = ["server", "--insecure", "--data-dir", "data", "--store", store];
    let soon = ["--store-connect-timeout", "300ms"];
    let unreachable = fixture.rota(&[&command[..], &flags, &soon].concat()).await;
    unreachable.failed(1, &["not reached, retrying", "no connection to the database"]);
    // Other machines do not reach this one at a loopback address.
    let remote = ["server", "--insecure", "--data-dir", "data", "--store", "postgres://rota@db.invalid/rota"];
    for advertise in [&[][..], &["--advertise", "localhost:7420"]] {
        let refused = fixture.rota(&[&remote[..], &flags, advertise].concat()).await;
        refused.failed(2, &["other replicas do not reach this one at", "--advertise"]);
    }
    fixture
        .rota(&[&command[..], &flags, &["--advertise", "0.0.0.0:7420"]].concat())
        .await
        .failed(2, &["do not reach"]);
    Ok(())
}
