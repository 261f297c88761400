//! Git: repositories that attempts work on, and what they leave in them. One bare cache per repository and credentials is
//! fetched once for all attempts of a host (`cache`); each attempt has a clone of its own that borrows the cache's objects
//! (`clone`), and what killed calls leave in a cache is removed (`leftovers`); checks can see files as they were (`pinned`), and a
//! later attempt those of an earlier one (`restore`); at its end a snapshot becomes a bundle and a patch (`snapshot`), which is pushed if the
//! task asks for it (`push`).
//!
//! All calls are of the `git` program under a supervisor: its behaviour with credentials, sparse checkouts and bundles is what
//! users know. None of them runs a hook, prompts, or takes variables of a task. Linked worktrees would share hooks, settings
//! and the shallow file between attempts.

mod bundle;
mod cache;
mod checks;
mod clone;
mod credential;
mod failure;
mod identity;
mod include;
mod leftovers;
mod pin_links;
mod pinned;
mod progress;
mod push;
mod request;
mod restore;
mod run;
mod snapshot;
mod workflows;

use rota_proto::worker::v1::Assign;

pub(crate) use cache::Borrowed;
pub(crate) use checks::{branch, local_path};
pub(crate) use clone::{Base, Cloning, missing};
pub(crate) use credential::Credential;
pub(crate) use failure::Cause;
pub(crate) use identity::write as write_identity;
pub(crate) use leftovers::clear_unfinished;
pub(crate) use pinned::Pins;
pub(crate) use progress::MAX_TRANSFER_TIME;
pub(crate) use push::{Delivery, Jails, Undelivered};
pub(crate) use request::{Request, Work};
pub(crate) use restore::{Unrestored, restore_elsewhere, restore_from};
pub(crate) use run::{Git, GitError};
pub(crate) use snapshot::{Snapshot, snapshot};

/// Returns the repository of an attempt's workspace.
pub(crate) fn source(assign: &Assign) -> Option<&rota_proto::v1::GitSource> {
    assign.spec.as_ref()?.workspace.as_ref()?.git.as_ref()
}

/// Returns the names of the secrets for a repository, and for the API of its forge; empty for none.
pub(crate) fn secrets_of(source: &rota_proto::v1::GitSource) -> [String; 2] {
    let asked = source.push.as_ref().and_then(|push| push.pull_request.as_ref());
    let of_api = asked.map_or(String::new(), |asked| asked.token_from.clone());
    [source.credentials_from.clone(), of_api]
}

/// Whether repositories can be cloned. A program that fails is reported by its attempt.
pub(crate) fn is_installed() -> bool {
    let search = rota_telemetry::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&search).any(|entry| entry.join("git").is_file())
}
