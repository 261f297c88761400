//! Backups into a directory, and restores onto volumes of their own.

use std::fs::{self, File};
use std::time::Duration;

use anyhow::Result;
use rota_telemetry::clock;
use serde_json::json;

use crate::{Fixture, Graces};

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
