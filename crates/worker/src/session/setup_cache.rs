//! The set-up cache of an attempt's agent: lets the agent's commands fill it before anything of the task runs, and opens it to
//! the attempt, which cannot write it.

use rota_proto::v1::{FailureClass, Severity};

use super::commands;
use super::deps::AttemptDeps;
use super::handle::AttemptHandle;
use crate::runtimes::{Attempt, Channels, RunOutcome, failure, notice};
use crate::workspace::SetupCache;

/// Variable with the path of the cache.
const VARIABLE: &str = "ROTA_SETUP_CACHE";

/// Opens the cache, after it was filled if need be. It is held until the returned value is dropped.
pub(super) async fn open(
    deps: &AttemptDeps,
    attempt: &mut Attempt,
    channels: &mut Channels,
    handle: &AttemptHandle,
) -> Result<Option<SetupCache>, RunOutcome> {
    let Some(wanted) = attempt.assign.setup_cache.clone() else { return Ok(None) };
    let Some(jail) = handle.group.jail() else {
        // Without walls, an attempt could change what later ones use: each has its own.
        let folder = attempt.scratch.join("setup-cache");
        tokio::fs::create_dir_all(&folder).await.map_err(|error| environment(&error))?;
        set_variable(attempt, &folder);
        commands::prepare(&wanted.commands, attempt, channels).await?;
        return Ok(None);
    };
    let found = deps.root.setup_cache(&attempt.assign, &wanted, &attempt.workspace, &mut channels.stop).await;
    let mut cache = found.map_err(RunOutcome::from)?;
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

fn set_variable(attempt: &mut Attempt, folder: &std::path::Path) {
    attempt.environment.0.insert(VARIABLE.to_owned(), folder.display().to_string());
}

fn environment(error: &std::io::Error) -> RunOutcome {
    let text = format!("failed to create the setup cache: {error}");
    RunOutcome::Failed(failure(FailureClass::Environment, text))
}
