//! What an attempt with directories gets before its runtime starts: secrets, environment, workspace, and the walls around its
//! programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rota_proto::notices::{WORKSPACE_BUSY, WORKSPACE_FREE};
use rota_proto::v1::{Failure, FailureClass, Severity, event};
use rota_proto::worker::v1::Assign;
use tokio::sync::mpsc;

use super::attempt::in_place;
use super::clone_progress::with_notices;
use super::confinement::Overlap;
use super::continuing;
use super::declared;
use super::deps::AttemptDeps;
use super::handle::AttemptHandle;
use super::redact::Redaction;
use super::secrets;
use super::start;
use super::undelivered;
use crate::artifacts::Given;
use crate::git::{self, Cloning, GitError, Jails, Request};
use crate::layout::{Own, Scratch};
use crate::report::{failure, notice};
use crate::runtimes::{Attempt, RunOutcome, context};
use crate::workspace::{AttemptDirs, PrepareError};

/// Time for which a delivery of earlier work calls a host that does not respond.
const LATER_DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// An attempt that can start.
pub(super) struct Prepared {
    pub(super) attempt: Attempt,
    /// The folder of the agent's secrets, and those that the attempt got.
    pub(super) secrets: Option<(PathBuf, BTreeMap<String, String>)>,
}

/// Prepares an attempt. Its directories are in `slot` from then on that they exist, whatever becomes of this call.
pub(super) async fn prepare(
    deps: &AttemptDeps,
    mut assign: Box<Assign>,
    given: Given,
    events: &mpsc::Sender<event::Kind>,
    slot: &mut Option<AttemptDirs>,
    handle: &AttemptHandle,
    redaction: &Redaction,
) -> Result<Prepared, RunOutcome> {
    let scratch = deps.root.scratch(&assign);
    deps.root.show_supervisors();
    let secrets =
        secrets::read(deps.secrets_dir.as_deref(), &mut assign).await.map_err(RunOutcome::Failed)?;
    let words = declared::common_words(secrets.selected.iter().chain(&assign.secrets)).join(", ");
    let all = secrets.selected.values().chain(&secrets.withheld).chain(assign.secrets.values());
    let redactor = redaction.declare(&declared::values(&deps.token, all, &assign).await);
    if !words.is_empty() {
        let text = format!("the values of these secrets are ordinary words, which stay in results: {words}");
        let _ = events.send(notice(Severity::Low, "secret_is_common_word", text)).await;
    }
    let used = deps.secrets_dir.clone().map(|folder| (folder, secrets.selected.clone()));
    let secret_names = secrets.selected.keys().chain(assign.secrets.keys()).cloned().collect();
    let environment = super::environment::build(&mut assign, secrets.selected, &scratch);
    let delivers = undelivered::delivers(&assign);
    let found = match delivers {
        true => {
            undelivered::without_workspace(&mut assign);
            start::Found::default()
        }
        false => start::find(&mut assign, &given).map_err(RunOutcome::Failed)?,
    };
    let branch = continuing::branch(&deps.caller, handle, &assign).await?;
    let base = continuing::base(&deps.caller, handle, &assign).await?;
    let of_repository = secrets.of_repository.clone();
    let home = Scratch(&scratch).home();
    let disk = (deps.root.state(), deps.readiness.min_free_disk());
    let cloning = Cloning::of(&assign, disk, home, of_repository, redactor.clone(), branch);
    let cloning = cloning.map(|cloning| cloning.starting_from(base).or_from(found.instead()));
    if let Some(name) = deps.root.busy_workspace(&assign) {
        let how = if in_place(&assign) { "; tasks with `shared: true` work there together" } else { "" };
        let text = format!("waiting for workspace {name:?}, which another attempt uses{how}");
        handle.set_held_up(true);
        let _ = events.send(notice(Severity::Low, WORKSPACE_BUSY, text)).await;
    }
    let of_forge = secrets.of_forge.or(secrets.of_repository);
    let request = Request::of(&assign, of_forge, &redactor).map_err(RunOutcome::Failed)?;
    let dirs = directories(deps, &assign, cloning.as_ref(), request, slot, handle, events).await?;
    if delivers {
        return Ok(Prepared { attempt: Attempt::new(assign, redactor), secrets: None });
    }
    if let Some(text) = dirs.included.take() {
        let _ = events.send(notice(Severity::Low, "files_included", text)).await;
    }
    if let Some(aside) = &dirs.set_aside {
        let text = format!(
            "the kept workspace was behind the newest checkpoint of the task, or incomplete: it is now {}",
            aside.display()
        );
        let _ = events.send(notice(Severity::Medium, "workspace_set_aside", text)).await;
    }
    if let Some((git, _)) = &dirs.repository {
        // Only notices come of it: what fails here may still work for the agent.
        match git::missing(git, &mut handle.stop_signal()).await {
            Ok(missing) => {
                for (code, text) in missing {
                    let _ = events.send(notice(Severity::Medium, code, text)).await;
                }
            }
            Err(stopped @ GitError::Stopped) => return Err(PrepareError::from(stopped).into()),
            Err(GitError::Failed { failure, .. }) => {
                tracing::warn!(error = failure.message, "failed to check what a clone lacks");
            }
        }
    }
    give(deps, given, &assign, &scratch, events, handle).await?;
    confine(deps, &assign, dirs, cloning.as_ref(), handle).map_err(|failed| RunOutcome::Failed(*failed))?;
    if let Some(cloning) = &cloning
        && dirs.repository.is_none()
    {
        // Only now: the settings of this repository are of earlier attempts.
        let git = cloning.git(&dirs.workspace, &Scratch(&scratch).home());
        let base = cloning.base_of(&git, &mut handle.stop_signal()).await.map_err(PrepareError::from)?;
        dirs.repository = base.map(|base| (git, base));
    }
    let base = dirs.repository.as_ref().map(|(_, base)| base.commit.clone());
    if let Some(start) = found.at(base.as_deref()) {
        start.apply(dirs, &mut handle.stop_signal()).await?;
    }
    let workspace = dirs.workspace.clone();
    let attempt = Attempt {
        workspace,
        scratch,
        environment,
        secret_names,
        conversation: uuid::Uuid::new_v4().to_string(),
        ..Attempt::new(assign, redactor)
    };
    Ok(Prepared { attempt, secrets: used })
}

impl From<PrepareError> for RunOutcome {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Failed(failed) => Self::Failed(failed),
            PrepareError::Stopped => Self::Stopped { by: "interrupt" },
        }
    }
}

/// Creates the directories. Git may write nothing but them and its caches meanwhile.
async fn directories<'a>(
    deps: &AttemptDeps,
    assign: &Assign,
    cloning: Option<&Cloning>,
    request: Option<Request>,
    slot: &'a mut Option<AttemptDirs>,
    handle: &AttemptHandle,
    events: &mpsc::Sender<event::Kind>,
) -> Result<&'a mut AttemptDirs, RunOutcome> {
    if let Some(confinement) = &deps.confinement {
        let mut directories = deps.root.clone_directories(assign);
        if let Some(cloning) = cloning {
            directories.push(cloning.cache().to_owned());
            directories.extend(cloning.host_keys());
        }
        let directories: Vec<_> = directories.iter().map(PathBuf::as_path).collect();
        let mut jail =
            confinement.jail(&directories, None).map_err(|overlap| RunOutcome::Failed(invalid(&overlap)))?;
        if let Some(path) = git::source(assign).and_then(|source| git::local_path(&source.url)) {
            let path = confinement.in_place(&path);
            jail.read.push(path.map_err(|overlap| RunOutcome::Failed(invalid(&overlap)))?);
        }
        handle.group.confine(jail);
    }
    let delivers = undelivered::delivers(assign);
    let cloned = cloning.filter(|_| !delivers);
    let mut stop = handle.stop_signal();
    let has_turn = async {
        if handle.set_held_up(false) {
            // Its time counts again in the control plane as well.
            let _ = events.send(notice(Severity::Low, WORKSPACE_FREE, "the workspace is free")).await;
        }
    };
    let made = deps.root.prepare(assign, cloned, &mut stop, has_turn);
    let made = match cloned {
        Some(cloning) => with_notices(cloning.received(), events, made).await,
        None => made.await,
    };
    let dirs = slot.insert(made?);
    if let Some(cloning) = cloning {
        let folder = Own(dirs.own()).deliver();
        let jails = delivery_jails(deps, assign, cloning, &folder, &dirs.scratch);
        let jails = jails.map_err(|overlap| RunOutcome::Failed(invalid(&overlap)))?;
        let mut stop = handle.stop_signal();
        let cloned = dirs.repository.as_ref();
        // The host was away before, and the control plane waits without a slot.
        let patience = match delivers {
            true => deps.delivery_timeout.min(LATER_DELIVERY_TIMEOUT),
            false => deps.delivery_timeout,
        };
        let delivery = cloning.delivery(folder, jails, cloned, request, patience, &mut stop).await;
        dirs.delivery = delivery.map_err(PrepareError::from)?;
        if let Some(delivery) = &dirs.delivery {
            continuing::check_branch(&deps.caller, handle, assign, delivery).await?;
        }
    }
    Ok(dirs)
}

/// Returns the walls for git while it delivers: it reads the bundle, and writes its own folders. Once it pushes, programs of a
/// repository on this machine may run, which get at nothing that others trust.
fn delivery_jails(
    deps: &AttemptDeps,
    assign: &Assign,
    cloning: &Cloning,
    folder: &Path,
    scratch: &Path,
) -> Result<Option<Jails>, Overlap> {
    let Some(confinement) = &deps.confinement else { return Ok(None) };
    let host_keys = cloning.host_keys();
    let own: Vec<_> = [folder].into_iter().chain(host_keys.as_deref()).collect();
    let mut push = confinement.jail(&own, None)?;
    let mut prepare = push.clone();
    prepare.write.push(cloning.cache().to_owned());
    prepare.read.push(Scratch(scratch).git());
    push.read.push(cloning.cache().to_owned());
    if let Some(path) = git::source(assign).and_then(|source| git::local_path(&source.url)) {
        let path = confinement.in_place(&path)?;
        prepare.read.push(path.clone());
        push.write.push(path);
    }
    Ok(Some(Jails { prepare, push }))
}

/// Writes what the attempt is given into its scratch directory, until a request to stop.
async fn give(
    deps: &AttemptDeps,
    given: Given,
    assign: &Assign,
    scratch: &Path,
    events: &mpsc::Sender<event::Kind>,
    handle: &AttemptHandle,
) -> Result<(), RunOutcome> {
    let written = match git::source(assign) {
        Some(_) => git::write_identity(&Scratch(scratch).home(), assign).await,
        None => Ok(()),
    };
    let written = match written {
        Ok(()) => context::write(scratch, assign).await,
        failed => failed,
    };
    let written = match written {
        Ok(()) if assign.has_step_results => context::write_steps(scratch, &given.steps).await,
        written => written,
    };
    if let Err(error) = written {
        let text = format!("failed to prepare the scratch directory: {error}");
        return Err(RunOutcome::Failed(failure(FailureClass::Environment, text)));
    }
    deps.fetching(handle, events).fetch(given, &assign.namespace, &Scratch(scratch).context()).await
}

/// Confines the programs of the attempt from now on.
fn confine(
    deps: &AttemptDeps,
    assign: &Assign,
    dirs: &AttemptDirs,
    cloning: Option<&Cloning>,
    handle: &AttemptHandle,
) -> Result<(), Box<Failure>> {
    let Some(confinement) = &deps.confinement else { return Ok(()) };
    let (own, in_place): (Vec<&Path>, _) = if in_place(assign) {
        (vec![&dirs.scratch], Some(dirs.workspace.as_path()))
    } else {
        (vec![&dirs.scratch, &dirs.workspace], None)
    };
    let config = dirs.cli_config();
    let own: Vec<_> = own.into_iter().chain(config.as_deref()).collect();
    let mut jail = confinement.jail(&own, in_place).map_err(|overlap| Box::new(invalid(&overlap)))?;
    jail.read.push(Scratch(&dirs.scratch).settings());
    // Its clone borrows objects from there.
    jail.read.extend(cloning.map(|cloning| cloning.cache().to_owned()));
    handle.group.confine(jail);
    Ok(())
}

fn invalid(overlap: &Overlap) -> Failure {
    failure(FailureClass::Invalid, overlap.to_string())
}
