//! One attempt from its assignment to its outcome: prepares, starts the CLI, lets it talk, ends it, has
//! the end judged. Starts it a second time where the session to go on from is gone.

use std::time::Duration;

use rota_proto::v1::{Failure, FailureClass, Severity, TaskResult};
use tokio::time::Instant;

use super::argv::{self, Session};
use super::classify::{self, Evidence};
use super::conversation::{Conversation, End};
use super::files::Files;
use super::options::Options;
use super::permission::Desk;
use super::process::{Process, Start};
use super::record::Record;
use super::{environment, events, prompt};
use crate::runtimes::{Attempt, Channels, Ending, Outcome, Stop, stopped};
use crate::supervise::{Error, Exit, Program};

/// For a CLI that has said all and does not go.
const LAST_GRACE: Duration = Duration::from_secs(3);

pub(super) async fn run(
    start: &dyn Start,
    attempt: &Attempt,
    channels: &mut Channels,
    root: bool,
) -> Outcome {
    let options = match Options::new(&attempt.assign, &attempt.environment, root) {
        Ok(options) => options,
        Err(failure) => return failed(failure),
    };
    let files = Files::new(&options, &attempt.workspace, &attempt.scratch);
    if let Err(error) = files.write(&options).await {
        let message = format!("the directories of the attempt cannot be made: {error}");
        return failed(classify::failure(FailureClass::Environment, &message, ""));
    }
    let given = options.resume.clone().map(Session::Resumed);
    if let Some(session) = given {
        match once(start, attempt, &options, &files, &session, channels).await {
            Some(outcome) => return outcome,
            None => {
                let text = format!("the session {} is gone; starting anew", session.id());
                let notice = events::notice(Severity::Medium, "session_lost", text);
                tokio::select! {
                    _ = channels.events.send(notice) => {}
                    _ = stopped(&mut channels.stop) => {}
                }
            }
        }
    }
    let fresh = Session::Fresh(uuid::Uuid::new_v4().to_string());
    match once(start, attempt, &options, &files, &fresh, channels).await {
        Some(outcome) => outcome,
        None => failed(classify::failure(
            FailureClass::Protocol,
            "Claude Code misses a session that nobody asked for",
            "",
        )),
    }
}

/// Runs the CLI once. None: the session to go on from is gone.
async fn once(
    start: &dyn Start,
    attempt: &Attempt,
    options: &Options,
    files: &Files,
    session: &Session,
    channels: &mut Channels,
) -> Option<Outcome> {
    let resumed = matches!(session, Session::Resumed(_));
    let program = Program {
        program: if options.claude.program.is_empty() { super::PROGRAM } else { &options.claude.program }
            .to_owned(),
        args: argv::build(options, files, session),
        environment: environment::build(&attempt.environment, &attempt.assign, files),
        directory: attempt.workspace.clone(),
    };
    let mut process = match start.start(program).await {
        Ok(process) => process,
        Err(error) => return Some(failed(classify::lost(&error))),
    };
    let Some(pipes) = process.pipes() else {
        let error = Error::Lost("its pipes are missing".to_owned());
        return Some(failed(classify::lost(&error)));
    };
    let words = prompt::build(&attempt.assign, resumed);
    let (record, desk) = (Record::new(&attempt.workspace), Desk::new(options.policy));
    let mut talk = Conversation::new(record, desk, &words, attempt.redactor.clone());
    let end = talk.run(pipes, channels).await;
    let (exit, stop) = finish(process.as_mut(), end, channels).await;
    drop(process);

    let stderr = talk.stderr.text();
    if stop.is_none() && resumed && classify::lost_session(&talk.record, &stderr) {
        return None;
    }
    while channels.inputs.try_recv().is_ok() {
        let text = "a message came too late: the agent had finished";
        talk.tell([events::notice(Severity::Low, "input_unheard", text)]);
    }
    if stop.is_some() {
        talk.flush_at_once(channels);
    } else {
        talk.flush(channels).await;
    }
    let kept = options.keep && !talk.record.session.is_empty();
    let runtime_session = if kept { talk.record.session.clone() } else { String::new() };
    let evidence =
        |exit| Evidence { record: &talk.record, exit, stderr: &stderr, schema: options.schema.is_some() };
    let verdict = match &exit {
        Ok(exit) => classify::judge(&evidence(*exit)),
        Err(error) => classify::judge(&evidence(Exit { code: None, signal: None, strays: 0 }))
            .map_err(|_| classify::lost(error)),
    };
    let ending = match (verdict, stop) {
        // Done before it could be stopped is done.
        (Ok(result), _) => {
            Ending::Succeeded(TaskResult { runtime_session: runtime_session.clone(), ..result })
        }
        (Err(_), Some(by)) => Ending::Stopped { by },
        (Err(failure), None) => Ending::Failed(failure),
    };
    Some(Outcome { ending, usage: talk.record.tally.usage(), runtime_session })
}

/// Brings the process to its end. Says by what, if it was told to stop.
async fn finish(
    process: &mut dyn Process,
    end: End,
    channels: &mut Channels,
) -> (Result<Exit, Error>, Option<&'static str>) {
    let (stop, since) = match end {
        End::Stopped(stop, since) => (stop, since),
        End::Lingers => return (process.end(LAST_GRACE).await.map(|(exit, _)| exit), None),
        End::Closed => tokio::select! {
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

fn failed(failure: Failure) -> Outcome {
    Outcome::new(Ending::Failed(failure))
}
