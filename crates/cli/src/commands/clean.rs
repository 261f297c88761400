//! `rota clean`: removes workspaces that workers of this machine have kept.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use rota_settings::HumanDuration;
use rota_telemetry::{clock, env};
use rota_worker::Unused;
use serde_json::json;

use crate::exit::Exit;
use crate::globals::Globals;
use crate::output::{Out, Paint, Table, between, duration};

const EXAMPLES: &str = "\
Examples:
  rota clean --dry-run
  rota clean
  rota clean --older-than 1h
  rota clean --state-dir /var/lib/rota/worker

Workspaces are kept with `mode: Keep`, and with `cleanup: Never` or `OnSuccess`. Those that an attempt uses stay. Workers \
remove them by themselves after `--keep-workspaces`.";

/// Remove workspaces that workers of this machine have kept, and that no attempt uses
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Clean {
    /// Time since the last use
    #[arg(long, value_name = "TIME", default_value_t = HumanDuration(Duration::from_hours(7 * 24)), allow_hyphen_values = true)]
    pub older_than: HumanDuration,
    /// Only list what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// State directory of workers; may be repeated [default: those of `rota dev` and `rota worker`]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Vec<PathBuf>,
}

impl Clean {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let out = Out::new(globals.output, globals.color);
        let now = clock::now();
        let before = now.checked_sub(self.older_than.0).unwrap_or(SystemTime::UNIX_EPOCH);
        let state_dirs = if self.state_dir.is_empty() {
            vec![env::rota_home().join("dev").join("workers"), env::rota_home().join("worker")]
        } else {
            self.state_dir
        };
        let dry_run = self.dry_run;
        let found = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            for state in &state_dirs {
                for unused in rota_worker::unused(state, before) {
                    found.push((size(&unused.path), unused));
                }
                if !dry_run {
                    let removed = rota_worker::remove_unused(state, before);
                    found.retain(|(_, one)| !one.path.starts_with(state) || removed.contains(one));
                }
            }
            found
        });
        print(&out, &found.await?, now, dry_run)?;
        Ok(Exit::Ok)
    }
}

fn print(out: &Out, found: &[(u64, Unused)], now: SystemTime, dry_run: bool) -> anyhow::Result<()> {
    if !out.is_human() {
        let items: Vec<_> = found
            .iter()
            .map(|(bytes, unused)| {
                let unused_seconds = between(unused.last_used, now).as_secs();
                json!({"path": unused.path, "bytes": bytes, "unusedSeconds": unused_seconds, "removed": !dry_run})
            })
            .collect();
        return out.list("workspaces", &items);
    }
    let mut table = Table::new(&["WORKSPACE", "SIZE", "LAST USED"]);
    for (bytes, unused) in found {
        table.row([
            (unused.path.display().to_string(), Paint::Plain),
            (format!("{} MiB", bytes.div_ceil(1 << 20)), Paint::Plain),
            (format!("{} ago", duration(between(unused.last_used, now))), Paint::Plain),
        ]);
    }
    if !table.is_empty() {
        out.table(&table)?;
    }
    let total = found.iter().map(|(bytes, _)| bytes).sum::<u64>().div_ceil(1 << 20);
    let verb = if dry_run { "would remove" } else { "removed" };
    Ok(out.line(&format!("{verb} {} workspaces, {total} MiB", found.len()))?)
}

/// Returns the bytes of the files in a directory. Links are not followed, and what cannot be read does not count.
fn size(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
