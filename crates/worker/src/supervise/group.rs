//! The programs of one attempt, paused and resumed together. Runtimes need not know of it: programs
//! started within the attempt's own task join its group.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender};
use tokio::sync::watch;

use super::Jail;
use super::link::End;
use super::protocol::Request;

tokio::task_local! {
    static CURRENT: Group;
}

/// Set of an attempt's programs.
#[derive(Clone, Default)]
pub struct Group(Arc<Mutex<Members>>);

#[derive(Default)]
struct Members {
    paused: bool,
    /// Confines programs that are started from now on.
    jail: Option<Jail>,
    locks: Vec<PathBuf>,
    /// Whether the kernel has killed any process for lack of memory; `None` if that is not known of these programs alone.
    out_of_memory: Option<bool>,
    // Weak: the group must not keep a program alive after its runtime has dropped it.
    requests: Vec<WeakUnboundedSender<Request>>,
    ends: Vec<watch::Receiver<Option<End>>>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("paused", &self.0.lock().paused).finish_non_exhaustive()
    }
}

impl Group {
    /// Runs a future whose programs join this group.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), future)
    }

    /// Confines every program that is started from now on.
    pub fn confine(&self, jail: Jail) {
        self.0.lock().jail = Some(jail);
    }

    /// Returns what programs that are started now are confined to.
    pub fn jail(&self) -> Option<Jail> {
        self.0.lock().jail.clone()
    }

    /// Confines every program of the current task that is started from now on.
    pub fn confine_current(jail: Jail) {
        let _ = CURRENT.try_with(|group| group.confine(jail));
    }

    /// Lets the supervisors of the current task's programs that are started from now on hold a shared lock on a file.
    /// A process that gets the exclusive lock knows that none of these programs runs, even if this worker was killed.
    pub fn lock_current(file: PathBuf) {
        let _ = CURRENT.try_with(|group| group.0.lock().locks.push(file));
    }

    /// Returns the group of the current task.
    pub(super) fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Notes whether the kernel has killed processes of one program for lack of memory.
    pub(super) fn note_memory(&self, killed: bool) {
        let mut members = self.0.lock();
        members.out_of_memory = Some(members.out_of_memory.unwrap_or_default() || killed);
    }

    /// Returns whether the kernel has killed processes of the current task's programs for lack of memory; `None` if that is not
    /// known of them alone.
    pub(crate) fn current_out_of_memory() -> Option<bool> {
        Self::current()?.0.lock().out_of_memory
    }

    pub(super) fn current_locks() -> Vec<PathBuf> {
        CURRENT.try_with(|group| group.0.lock().locks.clone()).unwrap_or_default()
    }

    /// Returns the jail of the current task's group.
    pub(super) fn current_jail() -> Option<Jail> {
        CURRENT.try_with(|group| group.0.lock().jail.clone()).ok().flatten()
    }

    /// Freezes or thaws every process of every program, including programs started later.
    pub fn set_paused(&self, paused: bool) {
        let mut members = self.0.lock();
        if members.paused == paused {
            return;
        }
        members.paused = paused;
        members.requests.retain(|member| match member.upgrade() {
            Some(member) => member.send(if paused { Request::Pause } else { Request::Resume }).is_ok(),
            None => false,
        });
    }

    /// Waits until no process of any program is left, including programs that their runtime has dropped.
    pub async fn ended(&self) {
        let ends = std::mem::take(&mut self.0.lock().ends);
        for mut end in ends {
            // Fails only when the whole worker exits, and its supervisors with it.
            let _ = end.wait_for(Option::is_some).await;
        }
    }

    /// Adds a program to the group of the current task, if it has one.
    pub(super) fn join_current(requests: &UnboundedSender<Request>, end: &watch::Receiver<Option<End>>) {
        let _ = CURRENT.try_with(|group| {
            let mut members = group.0.lock();
            members.requests.retain(|member| member.strong_count() > 0);
            members.requests.push(requests.downgrade());
            members.ends.retain(|end| end.borrow().is_none());
            members.ends.push(end.clone());
            if members.paused {
                let _ = requests.send(Request::Pause);
            }
        });
    }
}
