//! Directory of one attempt, and its scratch directory.

use std::path::{Path, PathBuf};

/// Names of folders and files within [`Own`].
pub(crate) const SCRATCH: &str = "scratch";
pub(crate) const WORK: &str = "work";
pub(crate) const COPIES: &str = "copies";
pub(crate) const DELIVER: &str = "deliver";
pub(crate) const LEFT: &str = "left";
/// Names within [`Scratch`], for those who open it without following links.
pub(crate) const HOME: &str = "home";
pub(crate) const TMP: &str = "tmp";
pub(crate) const CONTEXT: &str = "context";
pub(crate) const OUTPUT: &str = "output";
pub(crate) const CHECKPOINT: &str = "checkpoint";
pub(crate) const SETUP_CACHE: &str = "setup-cache";
/// Conversation of the runtime `scripted`, which the next attempt continues.
pub(crate) const SCRIPT: &str = "script";
pub(crate) const EVENTS: &str = "events";
/// Folder of the scratch directory, and of the artifacts.
pub(crate) use rota_proto::artifact_names::GIT;
/// Name of a folder within both, each with other files.
const RESTORED: &str = "restored";

/// Directory of one attempt, `{task}.{fence}`, which is removed with it. Its programs may only write the scratch directory and the
/// workspace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own<'a>(pub(crate) &'a Path);

impl Own<'_> {
    /// Directory of what is exchanged with the programs ([`Scratch`]).
    pub(crate) fn scratch(self) -> PathBuf {
        self.0.join(SCRATCH)
    }

    /// Workspace that does not outlive the attempt. Written by its programs.
    pub(crate) fn work(self) -> PathBuf {
        self.0.join(WORK)
    }

    /// Copies of what a later attempt continues from. Written by the worker, and read by its uploads.
    pub(crate) fn copies(self) -> PathBuf {
        self.0.join(COPIES)
    }

    /// Clean repository from which changes are pushed, and what came from their bundle. Written by the worker's git.
    pub(crate) fn deliver(self) -> PathBuf {
        self.0.join(DELIVER)
    }

    /// What is downloaded of an earlier attempt. Written by the worker, and removed once it is in place.
    pub(crate) fn restored(self) -> PathBuf {
        self.0.join(RESTORED)
    }

    /// Description of what is still to be stored. Written by the worker when it releases the slot before that.
    pub(crate) fn left(self) -> PathBuf {
        self.0.join(LEFT)
    }
}

/// Scratch directory of an attempt, which its programs may write. It is removed with the attempt; of what waits for a storage only
/// [`output`](Self::output) and [`git`](Self::git) stay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scratch<'a>(pub(crate) &'a Path);

impl Scratch<'_> {
    /// Home of the programs, with the identity of git.
    pub(crate) fn home(self) -> PathBuf {
        self.0.join(HOME)
    }

    /// Temporary files of the programs, removed when the disk needs room for what is kept.
    pub(crate) fn tmp(self) -> PathBuf {
        self.0.join(TMP)
    }

    /// Input of the programs, and files of tasks before. Written by the worker.
    pub(crate) fn context(self) -> PathBuf {
        self.0.join(CONTEXT)
    }

    /// Output of the programs, kept as artifacts.
    pub(crate) fn output(self) -> PathBuf {
        self.0.join(OUTPUT)
    }

    /// Files of the program that the next attempt has, if this one is cut off.
    pub(crate) fn checkpoint(self) -> PathBuf {
        self.0.join(CHECKPOINT)
    }

    /// Snapshot of the repository: bundles, patch and index. Written by git in the attempt's jail, and again at each snapshot.
    pub(crate) fn git(self) -> PathBuf {
        self.0.join(GIT)
    }

    /// Copy of a bundle while git restores from it. Removed after that.
    pub(crate) fn restored(self) -> PathBuf {
        self.0.join(RESTORED)
    }

    /// Lists and repository of checks that see files as they were. Removed after each check.
    pub(crate) fn pins(self) -> PathBuf {
        self.0.join("pins")
    }

    /// Set-up cache of an attempt that shares none.
    pub(crate) fn setup_cache(self) -> PathBuf {
        self.0.join(SETUP_CACHE)
    }

    /// Pipe on which the program of the runtime `command` reports events.
    pub(crate) fn events(self) -> PathBuf {
        self.0.join(EVENTS)
    }

    /// Settings and transcripts of a CLI in a workspace that does not outlive the attempt.
    pub(crate) fn claude(self) -> PathBuf {
        self.0.join("claude")
    }

    /// Settings for the program of a runtime, next to this directory: it reads them and cannot write. Written by the worker. May have
    /// secrets: removed when the slot is released.
    pub(crate) fn settings(self) -> PathBuf {
        self.0.with_file_name("settings")
    }
}
