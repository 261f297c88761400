//! Backups into a directory, and restores onto volumes of their own.

use std::fs::{self, File};
use std::time::Duration;

use anyhow::Result;
use rota_telemetry::clock;
use rota_testkit::tasks;
use serde_json::json;

use crate::responses::Response;
use crate::small_disk::SmallDisk;
use crate::{Fixture, Graces, workload};

#[tokio::test]
async fn files_of_killed_backups_are_removed() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let directory = fixture.dir().join("backups");
    fs::create_dir(&directory)?;
    let place = |name: &str, hours: u64| -> Result<_> {
        let path = directory.join(name);
        let file = File::create(&path)?;
        file.set_modified(clock::now() - Duration::from_secs(hours * 3600))?;
        Ok(path)
    };
    let left = place("rota-20300101T000000Z.sqlite.partial", 13)?;
    // One that another command may still write, and one of another program.
    let kept = [place("rota-20300102T000000Z.sqlite.partial", 11)?, place("other.sqlite.partial", 13)?];
    let command = ["admin", "backup", "--directory", directory.to_str().unwrap(), "-o", "json"];
    let made = fixture.rota(&command).await.json();
    assert_eq!(made["removed"], json!([left]));
    assert!(!left.exists() && kept.iter().all(|path| path.exists()));
    Ok(())
}

#[tokio::test]
async fn restore_without_room_leaves_nothing() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    for _ in 0..12 {
        let mut task = workload::shell("true", &[]);
        task.spec.get_or_insert_default().prompt = "x".repeat(256 * 1024);
        tasks::create(&client, task).await?;
    }
    let backup = fixture.dir().join("backup.sqlite");
    fixture.rota(&["admin", "backup", backup.to_str().unwrap()]).await.success();
    let disk = SmallDisk::mount(&fixture.dir().join("disk"), "2m", fixture.mark()).await?;
    let data = disk.path().join("data");
    let command = ["restore", backup.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    let restored = Response::of(disk.command(&fixture.command(&command)), "").await;
    restored.failed(1, &["No space left on device", "enlarge the volume"]);
    for left in fs::read_dir(disk.inside().join("data"))? {
        let left = left?;
        assert_eq!(left.metadata()?.len(), 0, "{:?}", left.path());
    }
    Ok(())
}
