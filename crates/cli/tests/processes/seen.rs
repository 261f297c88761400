//! Processes as /proc shows them: found by a mark in their arguments or environment, and told from
//! later ones of the same id by when they started.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use rota_testkit::tasks;

/// A process, and what tells it from a later one of the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) pid: i32,
    pub(crate) started: u64,
    pub(crate) command: String,
}

impl Seen {
    /// The process of that id; none when it has ended, also when nobody has reaped it.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // A command's name may hold anything; what follows its last parenthesis does not.
        let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
        if matches!(fields.first(), Some(&("Z" | "X"))) {
            return None;
        }
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        Some(Self { pid, started: fields.get(19)?.parse().ok()?, command })
    }

    /// Its session.
    pub(crate) fn session(&self) -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(3)?.parse().ok()
    }

    pub(crate) fn is_there(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.started == self.started)
    }
}

/// All processes but this one that carry a mark.
pub(crate) fn marked(mark: &str) -> Vec<Seen> {
    let own = i32::try_from(std::process::id()).unwrap();
    let carries = |pid: i32| {
        let holds = |what: &str| {
            let text = fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(mark)
        };
        holds("environ") || holds("cmdline")
    };
    let all =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid| *pid != own && carries(*pid)).filter_map(Seen::of).collect()
}

/// Waits until those that carry a mark are in so many sessions.
pub(crate) async fn are_there(mark: &str, sessions: usize) -> Result<Vec<Seen>> {
    tasks::eventually(&format!("processes in {sessions} sessions"), async || {
        let found: BTreeSet<_> = marked(mark).iter().filter_map(Seen::session).collect();
        Ok(found.len() >= sessions)
    })
    .await?;
    Ok(marked(mark))
}

/// Waits until none carries a mark.
pub(crate) async fn none_is_left(mark: &str) -> Result<()> {
    let waited = tasks::eventually("the end of all processes", async || Ok(marked(mark).is_empty())).await;
    let left = marked(mark);
    ensure!(waited.is_ok() && left.is_empty(), "still there: {left:#?}");
    Ok(())
}
