//! The set-up cache of an attempt's agent: lets the agent's commands fill it before anything of the task runs, and opens it to
//! the attempt, which cannot write it.

use std::path::Path;

use rota_proto::v1::{self, FailureClass, Severity};

use super::commands;
use super::deps::AttemptDeps;
use super::handle::AttemptHandle;
use crate::git;
use crate::layout::{SETUP_CACHE, Scratch};
use crate::program_dir;
use crate::report::{failure, notice};
use crate::runtimes::{Attempt, Channels, RunOutcome};
use crate::workspace::SetupCache;

/// Folder of the cache that is one attempt's alone, in its scratch directory.
/// Variable with the path of the cache.
const VARIABLE: &str = "ROTA_SETUP_CACHE";

/// Opens the cache, after it was filled if need be: only in a workspace that `is_clean`, in which no agent has worked. It is held
/// until the returned value is dropped.
pub(super) async fn open(
    deps: &AttemptDeps,
    attempt: &mut Attempt,
    channels: &mut Channels,
    handle: &AttemptHandle,
    is_clean: bool,
) -> Result<Option<SetupCache>, RunOutcome> {
    let Some(wanted) = attempt.assign.setup_cache.clone() else { return Ok(None) };
    // Without walls, an attempt could change what later ones use: each has its own.
    let Some(jail) = handle.group.jail() else { return fill_own(&wanted, attempt, channels).await };
    let found = deps.root.setup_cache(&attempt.assign, &wanted, &attempt.workspace, &mut channels.stop).await;
    let mut cache = found.map_err(RunOutcome::from)?;
    let is_clean = is_clean && !git::source(&attempt.assign).is_some_and(is_of_agent);
    if !cache.filled && !is_clean {
        drop(cache);
        return fill_own(&wanted, attempt, channels).await;
    }
    set_variable(attempt, &cache.folder);
    if !cache.filled {
        let mut filling = jail.clone();
        filling.write.push(cache.folder.clone());
        handle.group.confine(filling);
        // None of their processes is left afterwards.
        commands::prepare(&wanted.commands, attempt, channels).await?;
        cache = cache
            .complete()
            .await
            .map_err(|error| RunOutcome::Failed(failure(FailureClass::Setup, error.to_string())))?;
        let _ =
            channels.events.send(notice(Severity::Low, "setup_cache_filled", "filled the setup cache")).await;
    }
    let mut using = jail;
    using.read.push(cache.folder.clone());
    handle.group.confine(using);
    Ok(Some(cache))
}

/// Fills a cache that is the attempt's alone, and ends with it.
async fn fill_own(
    wanted: &v1::SetupCache,
    attempt: &mut Attempt,
    channels: &mut Channels,
) -> Result<Option<SetupCache>, RunOutcome> {
    let made = program_dir::open(&attempt.scratch)
        .and_then(|scratch| program_dir::make(&scratch, Path::new(SETUP_CACHE)));
    made.map_err(|error| environment(&error))?;
    let folder = Scratch(&attempt.scratch).setup_cache();
    set_variable(attempt, &folder);
    commands::prepare(&wanted.commands, attempt, channels).await?;
    Ok(None)
}

/// Whether what is cloned is the work of an agent: that of another task, or a branch to which tasks push.
fn is_of_agent(source: &v1::GitSource) -> bool {
    let branch = source.r#ref.strip_prefix("refs/heads/").unwrap_or(&source.r#ref);
    !source.ref_from.is_empty() || branch.starts_with("rota/")
}

fn set_variable(attempt: &mut Attempt, folder: &Path) {
    attempt.environment.0.insert(VARIABLE.to_owned(), folder.display().to_string());
}

fn environment(error: &std::io::Error) -> RunOutcome {
    let text = format!("failed to create the setup cache: {error}");
    RunOutcome::Failed(failure(FailureClass::Environment, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_of_tasks_are_of_agents() {
        let is_of_agent = |name: &str, first: &str| {
            let (r#ref, ref_from) = (name.to_owned(), first.to_owned());
            is_of_agent(&v1::GitSource { r#ref, ref_from, ..v1::GitSource::default() })
        };
        for (name, first) in [("rota/t1", ""), ("refs/heads/rota/t1", ""), ("", "first")] {
            assert!(is_of_agent(name, first), "{name} {first}");
        }
        for name in ["", "main", "rotation/1", "refs/pull/7/head"] {
            assert!(!is_of_agent(name, ""), "{name}");
        }
    }
}
