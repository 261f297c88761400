//! Phases of tasks as `kubectl` sees them, with each change in between.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rota_e2e::Space;
use tokio::process::{Child, Command};

/// `kubectl get tasks --watch`, until this is dropped.
pub(super) struct PhaseWatch {
    output: PathBuf,
    _kubectl: Child,
}

impl PhaseWatch {
    /// Starts the watch, whose output is in `folder`.
    pub(super) fn start(space: &Space, folder: &Path) -> Self {
        let output = folder.join("phases");
        let line = "jsonpath={.metadata.name} {.status.phase}{\"\\n\"}";
        let kubectl = Command::new("kubectl")
            .args(["--namespace", &space.name, "get", "tasks.rota.dev", "--watch", "-o", line])
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { output, _kubectl: kubectl }
    }

    /// Returns the phases of each task so far, in their order.
    pub(super) fn seen(&self) -> BTreeMap<String, Vec<String>> {
        let text = std::fs::read_to_string(&self.output).unwrap();
        let mut seen = BTreeMap::<String, Vec<String>>::new();
        // The last line may be incomplete.
        for line in text.rsplit_once('\n').unwrap_or_default().0.lines() {
            let (task, phase) = line.split_once(' ').unwrap_or_else(|| panic!("unexpected line {line:?}"));
            let phases = seen.entry(task.to_owned()).or_default();
            if phases.last().is_none_or(|last| last != phase) {
                phases.push(phase.to_owned());
            }
        }
        seen
    }
}
