//! Places on the disk of a worker: every path below its state directory ([`State`]), next to a directory there ([`Sibling`]), below the
//! directory of an attempt ([`Own`]), and below its scratch directory ([`Scratch`]). Creates, reads and removes nothing.
//!
//! Names from outside are checked before they come here (`workspace::is_name`). What is within one of these places is of the module that
//! writes it.

mod attempt;

use std::path::{Path, PathBuf};

pub(crate) use attempt::{
    CHECKPOINT, CONTEXT, COPIES, DELIVER, EVENTS, GIT, HOME, LEFT, OUTPUT, Own, SCRATCH, SCRIPT, SETUP_CACHE,
    Scratch, TMP, WORK,
};

/// Ending of the hidden directory in which a kept workspace is made.
pub(crate) const UNFINISHED: &str = "unfinished";

/// State directory, which workers of one user may share.
///
/// Spill files of outboxes have no names: each is unlinked when it is made, and ends with its process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State<'a>(pub(crate) &'a Path);

impl State<'_> {
    /// Directories of the attempts of all workers that may run, by namespace and worker.
    pub(crate) fn running(self) -> PathBuf {
        self.0.join("running")
    }

    /// Those of the attempts of one worker ([`Own`]). Written by the worker; others remove it once the worker and its programs have
    /// ended, and nothing is left to be stored.
    pub(crate) fn attempts(self, namespace: &str, worker: &str) -> PathBuf {
        self.running().join(namespace).join(worker)
    }

    /// Directory of one worker's attempts in earlier versions, which its next start removes. Nothing writes there.
    pub(crate) fn legacy(self, worker: &str) -> PathBuf {
        self.0.join("attempts").join(worker)
    }

    /// What is removed in the background: moved here by all, emptied after that and at each start.
    pub(crate) fn trash(self) -> PathBuf {
        self.0.join("trash")
    }

    /// Fresh workspaces that outlive their attempts, by namespace.
    pub(crate) fn all_fresh(self) -> PathBuf {
        self.0.join("workspaces")
    }

    /// Fresh workspace that outlives its attempt, named like [`Own`]. Written by its programs; removed after a success if the task wants
    /// that, else when it was not used for long.
    pub(crate) fn fresh(self, namespace: &str, id: &str) -> PathBuf {
        self.all_fresh().join(namespace).join(id)
    }

    /// Returns where kept workspaces are, by namespace.
    pub(crate) fn all_kept(self) -> PathBuf {
        self.0.join("kept")
    }

    /// Workspaces of a namespace that attempts share which continue one another, each under its name. Written by their programs; removed
    /// when they were not used for long.
    pub(crate) fn kept(self, namespace: &str) -> PathBuf {
        self.all_kept().join(namespace)
    }

    /// Returns where set-up caches are, by namespace.
    pub(crate) fn all_setup(self) -> PathBuf {
        self.0.join("setup")
    }

    /// Set-up caches of a namespace, `{agent}.{key}`. Written by the commands of the attempt that fills one; removed when an agent has too
    /// many, or when they were not used for long.
    pub(crate) fn setup(self, namespace: &str) -> PathBuf {
        self.all_setup().join(namespace)
    }

    /// Files that supervisors lock whose programs work in directories of users, one or two for each directory. Empty, and never removed.
    pub(crate) fn in_place(self) -> PathBuf {
        self.0.join("in-place")
    }

    /// Caches of repositories, by namespace.
    pub(crate) fn all_repositories(self) -> PathBuf {
        self.0.join("repositories")
    }

    /// Bare repository that attempts of a namespace borrow from. Written by the worker's git; removed when it was not used for long, and
    /// when it is damaged.
    pub(crate) fn repository(self, namespace: &str, key: &str) -> PathBuf {
        self.all_repositories().join(namespace).join(key)
    }

    /// Home of the worker's own calls of SSH, with what they remember. Never removed.
    pub(crate) fn git_home(self) -> PathBuf {
        self.0.join("git-home")
    }

    /// Keys of hosts that SSH has seen. Written by SSH; a user removes the line of a host whose key has changed.
    pub(crate) fn known_hosts(self) -> PathBuf {
        self.git_home().join("known_hosts")
    }

    /// Lock of the probe of the CLI, with its standard error. Never removed.
    pub(crate) fn probe_lock(self) -> PathBuf {
        self.0.join("claude-probe.lock")
    }

    /// Directories of the probe of the CLI. Written by the CLI, and removed after and before each probe.
    pub(crate) fn probe(self) -> PathBuf {
        self.0.join("claude-probe")
    }

    /// What the last probe of the CLI has found. Written by the worker; replaced when the CLI is another one.
    pub(crate) fn probe_result(self) -> PathBuf {
        self.0.join("claude-probe.json")
    }
}

/// Files that belong to a directory and are next to it, hidden, where no program that works in it may write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sibling<'a>(pub(crate) &'a Path);

impl Sibling<'_> {
    fn hidden(self, ending: &str) -> PathBuf {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        self.0.with_file_name(format!(".{name}.{ending}"))
    }

    /// Lock of a workspace or a cache, with the time of its last use. Written by workers; that of a fresh workspace is removed with it,
    /// others stay, since an attempt may wait for them.
    pub(crate) fn lock(self) -> PathBuf {
        self.hidden("lock")
    }

    /// Lock that supervisors hold whose programs work in a kept workspace, or are of a worker. Empty, and never removed.
    pub(crate) fn supervisors(self) -> PathBuf {
        self.hidden("supervisors")
    }

    /// Lock of the process of a worker, with the path of what its supervisors lock. Removed with the directory of its attempts.
    pub(crate) fn owner(self) -> PathBuf {
        self.hidden("owner")
    }

    /// Directory in which a kept workspace is made, and which becomes it. Removed if the attempt or its worker ends before that.
    pub(crate) fn unfinished(self) -> PathBuf {
        self.hidden(UNFINISHED)
    }

    /// Which attempt a kept workspace has the work of. Written by workers. Never removed.
    pub(crate) fn attempt(self) -> PathBuf {
        self.hidden("attempt")
    }

    /// Same file while it is written.
    pub(crate) fn attempt_unfinished(self) -> PathBuf {
        self.hidden("attempt-unfinished")
    }

    /// What a CLI keeps of the sessions in a kept workspace. Not within: a repository could bring settings and transcripts of its own.
    /// Written by the CLI, and removed with the workspace. None without a name.
    pub(crate) fn config(self) -> Option<PathBuf> {
        self.0.file_name()?;
        Some(self.hidden("claude"))
    }

    /// Empty file that shows that a set-up cache is filled. Removed before the cache is filled again.
    pub(crate) fn filled(self) -> PathBuf {
        self.hidden("filled")
    }

    /// Where a kept workspace is moved that is behind the newest checkpoint. Removed like other kept ones; not hidden, as they are not.
    pub(crate) fn set_aside(self) -> PathBuf {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        self.0.with_file_name(format!("{name}.behind"))
    }

    /// Lock of who fetches into the cache of a repository. Empty, and never removed. Not hidden.
    pub(crate) fn fetching(self) -> PathBuf {
        self.0.with_extension("fetch")
    }

    /// Empty file that is there while a fetch into a cache runs, or was killed. Not hidden.
    pub(crate) fn unfinished_fetch(self) -> PathBuf {
        self.0.with_extension("unfinished")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn are_distinct(root: &Path, all: &[PathBuf]) {
        let distinct: BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "{all:?}");
        for path in all {
            assert!(path.starts_with(root) && path != root, "{path:?} is not below {root:?}");
        }
    }

    #[test]
    fn places_of_a_state_are_distinct() {
        let root = Path::new("/state");
        let state = State(root);
        let attempts = state.attempts("n", "w");
        are_distinct(
            root,
            &[
                state.running(),
                attempts.clone(),
                Sibling(&attempts).owner(),
                Sibling(&attempts).supervisors(),
                state.legacy("w"),
                state.trash(),
                state.all_fresh(),
                state.fresh("n", "t.1"),
                state.all_kept(),
                state.kept("n"),
                state.all_setup(),
                state.setup("n"),
                state.in_place(),
                state.all_repositories(),
                state.repository("n", "k"),
                state.git_home(),
                state.known_hosts(),
                state.probe_lock(),
                state.probe(),
                state.probe_result(),
            ],
        );
    }

    #[test]
    fn files_next_to_a_directory_are_distinct() {
        let place = Path::new("/state/kept/n/w");
        let sibling = Sibling(place);
        let all = [
            place.to_owned(),
            sibling.lock(),
            sibling.supervisors(),
            sibling.owner(),
            sibling.unfinished(),
            sibling.attempt(),
            sibling.attempt_unfinished(),
            sibling.config().unwrap(),
            sibling.filled(),
            sibling.set_aside(),
            sibling.fetching(),
            sibling.unfinished_fetch(),
        ];
        are_distinct(Path::new("/state/kept/n"), &all);
        assert_eq!(Sibling(Path::new("/")).config(), None);
    }

    #[test]
    fn places_of_an_attempt_are_distinct() {
        let root = State(Path::new("/state")).attempts("n", "w").join("t.1");
        let (own, scratch) = (Own(&root), Own(&root).scratch());
        let all = [
            scratch.clone(),
            own.work(),
            own.copies(),
            own.deliver(),
            own.restored(),
            own.left(),
            Scratch(&scratch).settings(),
        ];
        are_distinct(&root, &all);
        let of = Scratch(&scratch);
        let all = [
            of.home(),
            of.tmp(),
            of.context(),
            of.output(),
            of.checkpoint(),
            of.git(),
            of.restored(),
            of.pins(),
            of.setup_cache(),
            scratch.join(SCRIPT),
            of.events(),
            of.claude(),
        ];
        are_distinct(&scratch, &all);
    }
}
