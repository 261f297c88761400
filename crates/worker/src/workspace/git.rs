//! Fills a workspace from a git repository, by the `git` program: it never asks for anything, never
//! takes an address or a reference for an option, and never runs longer than it may.

use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use rota_proto::v1::{FailureClass, GitSource};
use rota_telemetry::redact::Redactor;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio::time::timeout;

use super::NoPlace;
use crate::runtimes::tail::Tail;
use crate::runtimes::{Environment, Stop, failure, stopped};
use crate::supervise::{self, Program};

/// For each git command.
const TIMEOUT: Duration = Duration::from_secs(900);
/// Between the request to end and the kill.
const GRACE: Duration = Duration::from_secs(3);
/// Bytes told of what git printed last.
const LAST_WORDS: usize = 2 << 10;

/// Clones into an empty directory.
pub(super) async fn clone(
    source: &GitSource,
    into: &Path,
    environment: &Environment,
    redactor: &Redactor,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), NoPlace> {
    for command in commands(source) {
        git(command, into, environment, redactor, stop).await?;
    }
    Ok(())
}

/// The git commands that make the clone. A reference is only ever part of an argument of its own option.
fn commands(source: &GitSource) -> Vec<Vec<String>> {
    let depth = (source.depth > 0).then(|| format!("--depth={}", source.depth));
    let is_commit =
        matches!(source.r#ref.len(), 40 | 64) && source.r#ref.bytes().all(|b| b.is_ascii_hexdigit());
    let command = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    if is_commit {
        // `clone` knows branches and tags only.
        let mut fetch = command(&["fetch", "--quiet"]);
        fetch.extend(depth);
        fetch.extend(command(&["--", "origin", &source.r#ref]));
        return vec![
            command(&["init", "--quiet"]),
            command(&["remote", "add", "--", "origin", &source.url]),
            fetch,
            command(&["checkout", "--quiet", "--detach", "FETCH_HEAD"]),
        ];
    }
    let mut clone = command(&["clone", "--quiet"]);
    clone.extend(depth);
    if !source.r#ref.is_empty() {
        clone.push(format!("--branch={}", source.r#ref));
    }
    clone.extend(command(&["--", &source.url, "."]));
    vec![clone]
}

async fn git(
    args: Vec<String>,
    directory: &Path,
    environment: &Environment,
    redactor: &Redactor,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), NoPlace> {
    let mut environment = environment.clone();
    environment.0.entry("GIT_SSH_COMMAND".to_owned()).or_insert_with(|| "ssh -oBatchMode=yes".to_owned());
    for (name, value) in [
        ("GIT_TERMINAL_PROMPT", "0"),
        // `ext::` would run any program.
        ("GIT_ALLOW_PROTOCOL", "https:http:ssh:git:file"),
        ("LC_ALL", "C"),
    ] {
        environment.0.insert(name.to_owned(), value.to_owned());
    }
    let what = args.first().cloned().unwrap_or_default();
    let failed =
        |text: String| NoPlace::Failed(failure(FailureClass::Environment, format!("git {what}: {text}")));
    let program = Program { program: "git".to_owned(), args, environment, directory: directory.to_owned() };
    let mut running = supervise::start(program).await.map_err(|error| failed(error.to_string()))?;
    running.stdin = None;
    let (stdout, stderr) = (running.stdout.take(), running.stderr.take());
    let (mut ignored, mut words) = (Tail::new(redactor, LAST_WORDS), Tail::new(redactor, LAST_WORDS));
    let run = async { tokio::join!(running.wait(), read(stdout, &mut ignored), read(stderr, &mut words)).0 };
    let ended = tokio::select! {
        ended = timeout(TIMEOUT, run) => ended.ok(),
        _ = stopped(stop) => {
            let _ = running.end(GRACE).await;
            return Err(NoPlace::Stopped);
        }
    };
    match ended {
        Some(Ok(exit)) if exit.code == Some(0) => Ok(()),
        Some(Ok(_)) => Err(failed(words.text().trim().to_owned())),
        Some(Err(error)) => Err(failed(error.to_string())),
        None => {
            let _ = running.end(GRACE).await;
            Err(failed(format!("not done after {} s", TIMEOUT.as_secs())))
        }
    }
}

/// Reads to the end.
async fn read(from: Option<impl AsyncRead + Unpin>, into: &mut Tail) {
    let Some(mut from) = from else { return };
    let mut piece = BytesMut::new();
    while let Ok(1..) = from.read_buf(&mut piece).await {
        into.add(&piece.split());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(url: &str, r#ref: &str, depth: i32) -> Vec<String> {
        let source = GitSource { url: url.to_owned(), r#ref: r#ref.to_owned(), depth };
        commands(&source).into_iter().map(|command| command.join(" ")).collect()
    }

    #[test]
    fn nothing_from_outside_is_taken_for_an_option() {
        assert_eq!(
            lines("--upload-pack=x", "-x", 1),
            ["clone --quiet --depth=1 --branch=-x -- --upload-pack=x ."]
        );
        assert_eq!(lines("u", "", 0), ["clone --quiet -- u ."]);
        let commit = "a".repeat(40);
        assert_eq!(lines("-u", &commit, 0)[1], "remote add -- origin -u");
        assert_eq!(lines("-u", &commit, 2)[2], format!("fetch --quiet --depth=2 -- origin {commit}"));
    }
}
