//! Processes in /proc, found by a mark in their arguments or environment.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use rota_testkit::tasks;

/// Process, identified by its id and start time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessInfo {
    pub(crate) pid: i32,
    pub(crate) started: u64,
    pub(crate) command: String,
}

impl ProcessInfo {
    /// Returns the process with an id, unless it has exited, even if it is not reaped.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name can contain anything, the fields after its last parenthesis cannot.
        let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
        if matches!(fields.first(), Some(&("Z" | "X"))) {
            return None;
        }
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        Some(Self { pid, started: fields.get(19)?.parse().ok()?, command })
    }

    pub(crate) fn parent(&self) -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    }

    pub(crate) fn session(&self) -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(3)?.parse().ok()
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.started == self.started)
    }
}

/// Returns all processes that carry a mark, except this one.
pub(crate) fn marked(mark: &str) -> Vec<ProcessInfo> {
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
    all.filter(|pid| *pid != own && carries(*pid)).filter_map(ProcessInfo::of).collect()
}

/// Waits until the marked processes are in a number of sessions.
pub(crate) async fn wait_for_sessions(mark: &str, sessions: usize) -> Result<Vec<ProcessInfo>> {
    tasks::eventually(&format!("processes in {sessions} sessions"), async || {
        let found: BTreeSet<_> = marked(mark).iter().filter_map(ProcessInfo::session).collect();
        Ok(found.len() >= sessions)
    })
    .await?;
    Ok(marked(mark))
}

/// Waits until no process carries a mark.
pub(crate) async fn wait_for_none(mark: &str) -> Result<()> {
    let waited = tasks::eventually("the end of all processes", async || Ok(marked(mark).is_empty())).await;
    let left = marked(mark);
    ensure!(waited.is_ok() && left.is_empty(), "left over: {left:#?}");
    Ok(())
}
