//! Runs one attempt, from the assignment to the report: prepares files, starts the CLI, converses with it,
//! ends it, classifies the outcome. Starts the CLI a second time if the session to resume does not exist.

use std::time::Duration;

use rota_proto::claude::Provider;
use rota_proto::v1::{Failure, FailureClass, Severity, TaskResult, Usage};
use tokio::time::Instant;

use super::argv::{self, Session};
use super::classify::{self, Evidence};
use super::conversation::{Conversation, ConversationEnd};
use super::files::Files;
use super::options::Options;
use super::permission::PermissionQueue;
use super::process::{Process, Start};
use super::project::Project;
use super::record::Record;
use super::usage::UsageTotals;
use super::{environment, events, prompt, settings};
use crate::prices::Prices;
use crate::program_dir;
use crate::runtimes::context;
use crate::runtimes::{Attempt, Channels, Continued, Environment, From, RunOutcome, RunReport};
use crate::supervise::{Error, Exit, Program, Stop, stopped};

const NOT_CONTINUED: &str = "Claude Code does not continue the conversation of the other task";
const NOT_CONTINUED_HINT: &str =
    "see the log; create the task without `continueFrom`, with all that it needs in its prompt";
/// Grace period for a CLI that does not exit after its last result.
const EXIT_GRACE: Duration = Duration::from_secs(3);

/// What the CLI is started with, whatever its session.
struct SetUp<'a> {
    options: &'a Options,
    /// That of the repository, if it is loaded.
    project: Option<&'a Project>,
    files: &'a Files,
    environment: &'a Environment,
    /// What earlier processes of the attempt have used.
    used: Option<Usage>,
}

pub(super) async fn run(
    start: &dyn Start,
    attempt: &Attempt,
    channels: &mut Channels,
    root: bool,
    prices: &Prices,
) -> RunReport {
    let used = attempt.round.as_ref().and_then(|round| round.used.clone());
    let options = Options::new(&attempt.assign, &attempt.environment, root);
    let options = match options.and_then(|options| options.without(used.as_ref())) {
        Ok(options) => options,
        Err(failure) => return failed(failure),
    };
    if let Some(missing) = missing_directory(&options).await {
        return failed(missing);
    }
    let project = match read_project(attempt, &options, channels).await {
        Ok(project) => project,
        Err(failure) => return failed(failure),
    };
    let files = Files::new(&options, project.as_ref(), &attempt.workspace, &attempt.scratch);
    let environment = environment::build(&attempt.environment, &attempt.assign, &files);
    let settings =
        match settings::build(&options, project.as_ref(), &files, &environment, &attempt.secret_names) {
            Ok(settings) => settings,
            Err(failure) => return failed(failure),
        };
    if let Err(error) = files.write(&options, settings.as_deref()).await {
        let message = format!("failed to create the directories of the attempt: {error}");
        let class = match program_dir::is_of_machine(&error) {
            true => FailureClass::Environment,
            // Its own programs are in the way.
            false if attempt.round.is_none() => FailureClass::Setup,
            false => FailureClass::Agent,
        };
        return failed(classify::failure(class, &message, ""));
    }
    let (project, files, environment) = (project.as_ref(), &files, &environment);
    let (mut refused, set_up) =
        (None, SetUp { options: &options, project, files, environment, used: used.clone() });
    let continued = attempt.continued.as_ref().map(|continued| &continued.conversation);
    let given = match (&attempt.round, continued.filter(|from| !from.is_empty())) {
        (Some(round), _) => Some(Session::Resumed(round.conversation.clone())),
        (None, Some(from)) => Some(Session::Forked { from: from.clone(), id: attempt.conversation.clone() }),
        (None, None) => options.resume.clone().map(Session::Resumed),
    };
    let mut id = attempt.conversation.clone();
    if let Some(session) = &given {
        match once(start, attempt, &set_up, session, channels, prices).await {
            Ok(report) => return report,
            // Without the conversation, what is asked next has no meaning.
            Err(NotContinued::Missing)
                if attempt.round.is_none()
                    && matches!(attempt.continued, Some(Continued { from: From::Task, .. })) =>
            {
                return failed(super::options::invalid(NOT_CONTINUED, NOT_CONTINUED_HINT));
            }
            Err(why) => {
                let notice = match why {
                    NotContinued::Missing => {
                        let text = format!("session {} does not exist, starting a new one", session.id());
                        events::notice(Severity::Medium, "session_lost", text)
                    }
                    NotContinued::Refused(why, used) => {
                        refused = used;
                        let text = format!(
                            "an earlier attempt's conversation cannot be continued: {why}; starting over"
                        );
                        events::notice(Severity::Medium, "checkpoint_unusable", text)
                    }
                };
                tokio::select! {
                    _ = channels.events.send(notice) => {}
                    _ = stopped(&mut channels.stop) => {}
                }
                id = free_conversation(attempt, session);
            }
        }
    }
    // What it has used is used, and the CLI counts each process from zero.
    let options = match options.without(refused.as_ref()) {
        Ok(options) => options,
        Err(failure) => return RunReport { usage: refused, ..failed(failure) },
    };
    let set_up = SetUp { options: &options, project, files, environment, used: refused.or(used) };
    let fresh = Session::Fresh(id);
    match once(start, attempt, &set_up, &fresh, channels, prices).await {
        Ok(report) => report,
        Err(_) => failed(classify::failure(
            FailureClass::Protocol,
            "Claude Code reported a missing session for a run without one",
            "",
        )),
    }
}

/// Reads the set-up of the repository, if it is loaded, and reports what of it is left out, and what it chooses.
async fn read_project(
    attempt: &Attempt,
    options: &Options,
    channels: &mut Channels,
) -> Result<Option<Project>, Failure> {
    let claude = &options.claude;
    if !claude.loads_project() {
        return Ok(None);
    }
    let project = Project::read(&attempt.workspace, &attempt.scratch, options).await?;
    let left_out = project.left_out(claude.project_hooks, claude.project_mcp_servers);
    for text in left_out.into_iter().chain(project.chosen(claude)).filter(|_| attempt.round.is_none()) {
        let notice = events::notice(Severity::Low, "project_setup", text);
        tokio::select! {
            _ = channels.events.send(notice) => {}
            _ = stopped(&mut channels.stop) => {}
        }
    }
    Ok(Some(project))
}

/// Returns the failure for a directory of the agent that this machine does not have: the CLI would ignore that.
async fn missing_directory(options: &Options) -> Option<Failure> {
    for directory in options.claude.add_dirs.iter().chain(&options.claude.plugin_dirs) {
        if !tokio::fs::metadata(directory).await.is_ok_and(|found| found.is_dir()) {
            let text = format!("the agent's directory {directory} does not exist on this machine");
            let hint = "create it where the worker runs, or remove it from the agent's addDirs or pluginDirs";
            return Some(classify::failure(FailureClass::Start, &text, hint));
        }
    }
    None
}

/// Why a conversation was not continued.
enum NotContinued {
    /// The CLI does not have it.
    Missing,
    /// The CLI or the model ended before the first answer, for this reason, and after this usage.
    Refused(String, Option<Usage>),
}

/// Returns the id of a conversation that does not exist yet, after one that was not continued.
fn free_conversation(attempt: &Attempt, session: &Session) -> String {
    let second = second_conversation(&attempt.conversation);
    match session {
        Session::Fresh(_) => attempt.conversation.clone(),
        Session::Resumed(lost) if *lost == attempt.conversation => second,
        // It was begun with what was not continued.
        Session::Forked { .. } => second,
        Session::Resumed(lost) if *lost == second => uuid::Uuid::new_v4().to_string(),
        Session::Resumed(_) => attempt.conversation.clone(),
    }
}

/// Returns the id of the conversation of an attempt that does not continue its first one, whose checkpoints are kept as well.
pub(super) fn second_conversation(first: &str) -> String {
    let first = uuid::Uuid::parse_str(first).unwrap_or_else(|_| uuid::Uuid::new_v4());
    uuid::Uuid::from_u128(first.as_u128() ^ 1).to_string()
}

/// Whether a failure before the first answer may be due to the conversation that was continued. A CLI that ends without a line counts
/// as not started.
fn may_be_of_conversation(class: FailureClass) -> bool {
    use FailureClass as Class;
    matches!(
        class,
        Class::Agent
            | Class::Crash
            | Class::Hang
            | Class::Invalid
            | Class::Protocol
            | Class::Refusal
            | Class::Start
    )
}

/// Runs the CLI once. Fails if it does not continue the session.
async fn once(
    start: &dyn Start,
    attempt: &Attempt,
    &SetUp { options, project, files, environment, ref used }: &SetUp<'_>,
    session: &Session,
    channels: &mut Channels,
    prices: &Prices,
) -> Result<RunReport, NotContinued> {
    let resumed = !matches!(session, Session::Fresh(_));
    let program = Program {
        program: if options.claude.program.is_empty() {
            super::DEFAULT_PROGRAM
        } else {
            &options.claude.program
        }
        .to_owned(),
        args: argv::build(options, project, files, session),
        environment: environment.clone(),
        directory: attempt.workspace.clone(),
    };
    let mut process = match start.start(program).await {
        Ok(process) => process,
        Err(error) => return Ok(failed(classify::supervision_failure(&error))),
    };
    let Some(pipes) = process.pipes() else {
        let error = Error::Lost("the program's pipes are missing".to_owned());
        return Ok(failed(classify::supervision_failure(&error)));
    };
    let prompt = prompt::build(attempt, resumed);
    let mut record = Record::new(&attempt.workspace);
    record.usage_totals = UsageTotals::after(used.clone().unwrap_or_default(), prices.clone());
    let keep_set_up = project.is_some() && !options.claude.project_hooks;
    let mut permissions = PermissionQueue::new(options.policy);
    if attempt.round.is_none() {
        permissions.answered_before(&attempt.assign.answers);
    }
    let mut conversation =
        Conversation::new(record, permissions, &prompt, keep_set_up, attempt.redactor.clone())
            .streaming(channels.deltas.clone());
    let end = conversation.run(pipes, channels).await;
    let (exit, stop) = finish(process.as_mut(), end, channels).await;
    drop(process);

    let stderr = conversation.stderr.text();
    if stop.is_none() && resumed && classify::is_session_lost(&conversation.record, &stderr) {
        return Err(NotContinued::Missing);
    }
    if stop.is_some() {
        conversation.flush_now(channels);
    } else {
        conversation.flush(channels).await;
    }
    let kept = options.keep && !conversation.record.session.is_empty();
    let runtime_session = if kept { conversation.record.session.clone() } else { String::new() };
    let evidence = |exit| Evidence {
        record: &conversation.record,
        exit,
        stderr: &stderr,
        schema: options.schema.is_some(),
        fail_on_denied: options.claude.fail_on_denied_tools,
        provider: Provider::of(|name| environment.0.get(name).map(String::as_str)),
        now: rota_telemetry::clock::unix_micros() as f64 / 1e6,
    };
    let classified = match &exit {
        Ok(exit) => classify::classify(&evidence(*exit)),
        Err(error) => classify::classify(&evidence(Exit { code: None, signal: None, orphans: 0 }))
            .map_err(|_| classify::supervision_failure(error)),
    };
    let classified = match classified {
        Ok(result) => context::complete(&attempt.scratch, result).await,
        failed => failed,
    };
    let outcome = match (classified, stop) {
        // A result that precedes the stop stands.
        (Ok(result), _) => {
            RunOutcome::Succeeded(TaskResult { runtime_session: runtime_session.clone(), ..result })
        }
        (Err(_), Some(by)) => RunOutcome::Stopped { by },
        (Err(failure), None) => RunOutcome::Failed(failure),
    };
    let is_continued = attempt.round.is_none()
        && match session {
            Session::Fresh(_) => false,
            Session::Resumed(_) => attempt.assign.attempt > 1,
            Session::Forked { .. } => {
                attempt.continued.as_ref().is_some_and(|continued| continued.from != From::Task)
            }
        };
    let unanswered = is_continued && !conversation.record.answered;
    let usage = conversation.record.usage_totals.usage();
    if let RunOutcome::Failed(failure) = &outcome
        && unanswered
        && may_be_of_conversation(failure.class())
    {
        return Err(NotContinued::Refused(failure.message.clone(), usage));
    }
    Ok(RunReport { outcome, usage, runtime_session, unanswered, conversation: conversation.record.session })
}

/// Waits for the process to end, or ends it. Returns by what means, if it was stopped.
async fn finish(
    process: &mut dyn Process,
    end: ConversationEnd,
    channels: &mut Channels,
) -> (Result<Exit, Error>, Option<&'static str>) {
    let (stop, since) = match end {
        ConversationEnd::Stopped(stop, since) => (stop, since),
        ConversationEnd::StillRunning => return (process.end(EXIT_GRACE).await.map(|(exit, _)| exit), None),
        ConversationEnd::Closed => tokio::select! {
            exit = process.wait() => return (exit, None),
            stop = stopped(&mut channels.stop) => (stop, Instant::now()),
        },
    };
    end_within(process, &stop, since).await
}

async fn end_within(
    process: &mut dyn Process,
    stop: &Stop,
    since: Instant,
) -> (Result<Exit, Error>, Option<&'static str>) {
    match process.end(stop.grace.saturating_sub(since.elapsed())).await {
        Ok((exit, by)) => (Ok(exit), Some(by.as_str())),
        Err(error) => (Err(error), Some("kill")),
    }
}

fn failed(failure: Failure) -> RunReport {
    RunReport::new(RunOutcome::Failed(failure))
}
