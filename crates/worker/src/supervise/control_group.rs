//! Control groups (version 2), if the worker's own is delegated to it: the programs of each supervisor are in one of their own, so
//! that they leave some memory and processes of the worker's to others, and what the kernel kills there for lack of memory is known.
//! Supervisors stay with the worker.
//!
//! Sources: <https://docs.kernel.org/admin-guide/cgroup-v2.html>, <https://systemd.io/CGROUP_DELEGATION/>

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;

use rota_telemetry::control_groups::{self, number_of};
use serde::{Deserialize, Serialize};

/// Group of the worker itself: a group with controllers for others has no processes.
const WORKER: &str = "worker";
const CONTROLLERS: [&str; 2] = ["memory", "pids"];
/// Processes and threads of one program, whatever the worker's group may have.
const MAX_PROCESSES: u64 = 16_384;

static DELEGATED: OnceLock<Delegated> = OnceLock::new();

/// The control group that this process was started in.
#[derive(Debug)]
struct Delegated(PathBuf);

/// Takes over the control group of this process, from which on programs get groups of their own. For a process that is a worker
/// and nothing else, before it starts any. Returns why not, if the group is not for the worker alone.
pub fn delegate() -> Result<(), String> {
    let own = control_groups::own().into_iter().next().ok_or("there are no control groups of version 2")?;
    let delegated = Delegated::claim(&own, process::id())?;
    let _ = DELEGATED.set(delegated);
    Ok(())
}

/// Returns why a worker that is started like this process would not take over its control group.
pub fn not_delegated() -> Option<String> {
    let own = control_groups::own().into_iter().next();
    own.map_or(Some("there are no control groups of version 2".to_owned()), |own| {
        refusal(&own, process::id()).err()
    })
}

/// Fails with the reason for which a control group is not this worker's.
fn refusal(own: &Path, pid: u32) -> Result<(), String> {
    let shown = own.display();
    let read =
        |file: &str| fs::read_to_string(own.join(file)).map_err(|error| format!("{shown}/{file}: {error}"));
    let controllers = read("cgroup.controllers")?;
    let has = |wanted: &str| controllers.split_whitespace().any(|one| one == wanted);
    if let Some(missing) = CONTROLLERS.into_iter().find(|wanted| !has(wanted)) {
        return Err(format!("the control group {shown} has no controller {missing:?}"));
    }
    if read("cgroup.procs")?.split_whitespace().any(|other| other != pid.to_string()) {
        return Err(format!("other processes are in the control group {shown}, too"));
    }
    match nix::unistd::access(own, nix::unistd::AccessFlags::W_OK) {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("the control group {shown} is not delegated: {}", error.desc())),
    }
}

/// Moves a process, with all of its threads.
fn move_to(group: &Path, pid: u32) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), pid.to_string())
}

impl Delegated {
    fn claim(own: &Path, pid: u32) -> Result<Self, String> {
        refusal(own, pid)?;
        let worker = own.join(WORKER);
        let enable = CONTROLLERS.map(|controller| format!("+{controller}")).join(" ");
        let claim = || {
            fs::create_dir(&worker)?;
            move_to(&worker, pid)?;
            fs::write(own.join("cgroup.subtree_control"), enable)
        };
        claim().map_err(|error| {
            // As it was: a group that is not delegated can have become the worker's in part.
            let _ = move_to(own, pid);
            let _ = fs::remove_dir(&worker);
            format!("the control group {} is not delegated: {error}", own.display())
        })?;
        Ok(Self(own.to_owned()))
    }

    /// Makes the group of one program.
    fn program(&self) -> io::Result<ControlGroup> {
        let limit = |file: &str| fs::read_to_string(self.0.join(file)).ok()?.trim().parse::<u64>().ok();
        let group = self.0.join(format!("program-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&group)?;
        let group = ControlGroup { group, worker: self.0.join(WORKER) };
        let processes = limit("pids.max").map_or(MAX_PROCESSES, |all| MAX_PROCESSES.min(all / 2));
        let limited =
            fs::write(group.group.join("pids.max"), processes.to_string()).and_then(|()| {
                match limit("memory.max") {
                    Some(all) => fs::write(group.group.join("memory.max"), (all / 10 * 9).to_string()),
                    None => Ok(()),
                }
            });
        if limited.is_err() {
            group.close();
        }
        limited.map(|()| group)
    }
}

/// The control group of the programs of one supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ControlGroup {
    group: PathBuf,
    worker: PathBuf,
}

impl ControlGroup {
    /// Makes a group, if the worker's is delegated. A program runs without one if that fails.
    pub(super) fn create() -> Option<Self> {
        let created = DELEGATED.get()?.program();
        let logged =
            |error: &io::Error| tracing::warn!(%error, "failed to make a control group for a program");
        created.inspect_err(logged).ok()
    }

    /// Runs what starts the program from within the group. This process is in it meanwhile, and with the worker afterwards.
    pub(super) fn within<T>(&self, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        move_to(&self.group, process::id())?;
        let started = start();
        // A supervisor that stays is only less safe from its program.
        let _ = move_to(&self.worker, process::id());
        started
    }

    /// Removes the group, whose processes have ended. Returns whether the kernel has killed any for lack of memory.
    pub(super) fn close(&self) -> bool {
        let killed = number_of(&self.group.join("memory.events"), "oom_kill").is_some_and(|kills| kills > 0);
        if let Err(error) = fs::remove_dir(&self.group) {
            tracing::warn!(%error, group = %self.group.display(), "failed to remove a control group");
        }
        killed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a directory with the files of a control group that has this process alone.
    fn group(controllers: &str, processes: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("cgroup.controllers", controllers),
            ("cgroup.procs", processes),
            ("memory.max", "1000\n"),
            ("pids.max", "500\n"),
        ] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        folder
    }

    fn text(group: &Path, file: &str) -> String {
        fs::read_to_string(group.join(file)).unwrap()
    }

    #[test]
    fn programs_leave_some_of_what_the_worker_has() {
        let folder = group("cpu memory pids\n", "7\n");
        let delegated = Delegated::claim(folder.path(), 7).unwrap();
        assert_eq!(text(folder.path(), "cgroup.subtree_control"), "+memory +pids");
        assert_eq!(text(&folder.path().join(WORKER), "cgroup.procs"), "7");
        let program = delegated.program().unwrap();
        assert_eq!(
            (text(&program.group, "memory.max"), text(&program.group, "pids.max")),
            ("900".into(), "250".into())
        );
        let inside = program.within(|| Ok(text(&program.group, "cgroup.procs"))).unwrap();
        assert_eq!(inside, process::id().to_string());
        assert_eq!(
            text(&program.worker, "cgroup.procs"),
            process::id().to_string(),
            "the supervisor stays inside"
        );
        fs::write(folder.path().join("memory.max"), "max\n").unwrap();
        fs::write(folder.path().join("pids.max"), "max\n").unwrap();
        let unlimited = delegated.program().unwrap();
        assert!(!unlimited.group.join("memory.max").exists());
        assert_eq!(text(&unlimited.group, "pids.max"), MAX_PROCESSES.to_string());
    }

    #[test]
    fn kills_for_lack_of_memory_are_those_of_the_group() {
        let folder = group("memory pids\n", "7\n");
        let delegated = Delegated::claim(folder.path(), 7).unwrap();
        for (events, killed) in [("oom 0\noom_kill 0\n", false), ("oom 2\noom_kill 1\n", true)] {
            let program = delegated.program().unwrap();
            fs::write(program.group.join("memory.events"), events).unwrap();
            assert_eq!(program.close(), killed);
        }
    }

    #[test]
    fn group_that_is_not_the_workers_stays_as_it_is() {
        for (controllers, processes, why) in [
            ("cpu memory\n", "7\n", "no controller \"pids\""),
            ("memory pids\n", "7\n8\n", "other processes"),
        ] {
            let folder = group(controllers, processes);
            let refused = Delegated::claim(folder.path(), 7).unwrap_err();
            assert!(refused.contains(why), "{refused}");
            assert!(!folder.path().join(WORKER).exists());
        }
        // Others may not be enabled: the kernel refuses that.
        let folder = group("memory pids\n", "7\n");
        fs::create_dir(folder.path().join("cgroup.subtree_control")).unwrap();
        let refused = Delegated::claim(folder.path(), 7).unwrap_err();
        assert!(refused.contains("is not delegated"), "{refused}");
        assert_eq!(text(folder.path(), "cgroup.procs"), "7");
    }

    /// Moves every process of a group, and removes it.
    fn dissolve(group: &Path, into: &Path) {
        for process in text(group, "cgroup.procs").split_whitespace() {
            let _ = move_to(into, process.parse().unwrap());
        }
        let _ = fs::remove_dir(group);
    }

    /// Reports it also where the output of tests that pass is not shown.
    fn skipped(why: &str) {
        use std::io::Write;
        let _ = writeln!(io::stderr(), "kernel_starts_programs_within_their_group was skipped: {why}");
    }

    #[test]
    fn kernel_starts_programs_within_their_group() {
        let mounts = [control_groups::MOUNT, "/sys/fs/cgroup/unified"].map(Path::new);
        let path = || fs::read_to_string("/proc/self/cgroup").unwrap().lines().last().unwrap().to_owned();
        let before = path();
        let before = before.strip_prefix("0::/").unwrap_or_default();
        let mount = mounts.into_iter().find(|mount| mount.join("cgroup.controllers").exists());
        let Some(own) = mount.map(|mount| mount.join(before)) else {
            return skipped("no control groups of version 2");
        };
        let name = format!("rota-test-{}", process::id());
        let parent = own.join(&name);
        if let Err(error) = fs::create_dir(&parent) {
            return skipped(&format!("{}: {error}", parent.display()));
        }
        let places = ControlGroup { group: parent.join("program"), worker: parent.join(WORKER) };
        for folder in [&places.group, &places.worker] {
            fs::create_dir(folder).unwrap();
        }
        let program =
            places.within(|| process::Command::new("cat").arg("/proc/self/cgroup").output()).unwrap();
        let supervisor = path();
        for group in [&places.group, &places.worker, &parent] {
            dissolve(group, &own);
        }
        let program = String::from_utf8(program.stdout).unwrap();
        assert!(program.contains(&format!("/{name}/program")), "{program}");
        assert!(supervisor.ends_with(&format!("/{name}/{WORKER}")), "{supervisor}");
    }
}
