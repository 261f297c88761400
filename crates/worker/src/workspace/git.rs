//! Clones a git repository into a workspace with the `git` program: never prompts, never takes a URL
//! or a reference for an option, and has a time limit.

use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use rota_proto::v1::{Failure, GitSource};
use rota_telemetry::redact::Redactor;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio::time::timeout;

use super::PrepareError;
use super::git_failure::Cause;
use super::probe::probe_in_time;
use crate::runtimes::tail::Tail;
use crate::runtimes::{Environment, Stop, failure, stopped};
use crate::supervise::{self, Program};

/// How git connects over SSH: it never prompts, and notices a silent host within two minutes.
const SSH: &str = "ssh -oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=30 -oServerAliveCountMax=3";
/// Limit for each git command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(900);
/// Time between the request to end and the kill.
const CANCEL_GRACE: Duration = Duration::from_secs(3);
/// Bytes of git's last output that a failure message contains.
const MAX_EXCERPT_BYTES: usize = 2 << 10;

/// Clones a repository into an empty directory.
pub(super) async fn clone(
    source: &GitSource,
    into: &Path,
    environment: &Environment,
    redactor: &Redactor,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), PrepareError> {
    for command in commands(source) {
        git(command, &source.url, into, environment, redactor, stop).await?;
    }
    Ok(())
}

/// Builds the git commands of a clone. A reference is only ever part of an argument of its own option.
fn commands(source: &GitSource) -> Vec<Vec<String>> {
    let depth = (source.depth > 0).then(|| format!("--depth={}", source.depth));
    let is_commit =
        matches!(source.r#ref.len(), 40 | 64) && source.r#ref.bytes().all(|b| b.is_ascii_hexdigit());
    let command = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    if is_commit {
        // `clone` accepts only branches and tags.
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
    url: &str,
    directory: &Path,
    environment: &Environment,
    redactor: &Redactor,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), PrepareError> {
    let mut environment = environment.clone();
    environment.0.entry("GIT_SSH_COMMAND".to_owned()).or_insert_with(|| SSH.to_owned());
    for (name, value) in [
        // A host that sends less is as good as silent. Over SSH, a connection ends by its own limits.
        ("GIT_HTTP_LOW_SPEED_LIMIT", "1000"),
        ("GIT_HTTP_LOW_SPEED_TIME", "60"),
        ("GIT_TERMINAL_PROMPT", "0"),
        // `ext::` would run any program.
        ("GIT_ALLOW_PROTOCOL", "https:http:ssh:git:file"),
        ("LC_ALL", "C"),
    ] {
        environment.0.insert(name.to_owned(), value.to_owned());
    }
    let what = args.first().cloned().unwrap_or_default();
    let failed = |cause: Cause, text: String| {
        let class = cause.class(has_credentials(url));
        let hint = cause.hint().to_owned();
        PrepareError::Failed(Failure { hint, ..failure(class, format!("git {what}: {text}")) })
    };
    let program = Program { program: "git".to_owned(), args, environment, directory: directory.to_owned() };
    let mut running =
        supervise::start(program).await.map_err(|error| failed(Cause::Machine, error.to_string()))?;
    running.stdin = None;
    let (stdout, stderr) = (running.stdout.take(), running.stderr.take());
    let (mut stdout_tail, mut stderr_tail) =
        (Tail::new(redactor, MAX_EXCERPT_BYTES), Tail::new(redactor, MAX_EXCERPT_BYTES));
    let run = async {
        tokio::join!(running.wait(), read(stdout, &mut stdout_tail), read(stderr, &mut stderr_tail)).0
    };
    let ended = tokio::select! {
        ended = timeout(COMMAND_TIMEOUT, run) => ended.ok(),
        _ = stopped(stop) => {
            let _ = running.end(CANCEL_GRACE).await;
            return Err(PrepareError::Stopped);
        }
    };
    match ended {
        Some(Ok(exit)) if exit.code == Some(0) => Ok(()),
        Some(Ok(exit)) => {
            let output = stderr_tail.text().trim().to_owned();
            // A signal is the kernel's, for lack of memory, or a person's.
            if exit.code.is_none() {
                return Err(failed(Cause::Machine, output));
            }
            match probe_in_time(directory.to_owned()).await {
                Ok(()) => Err(failed(Cause::of(&output), output)),
                Err(error) => {
                    Err(failed(Cause::Machine, format!("{output}; failed to write its directory: {error}")))
                }
            }
        }
        Some(Err(error)) => Err(failed(Cause::Machine, error.to_string())),
        None => {
            let _ = running.end(CANCEL_GRACE).await;
            Err(failed(Cause::Host, format!("timed out after {} s", COMMAND_TIMEOUT.as_secs())))
        }
    }
}

/// Returns whether a URL has credentials. The user of an SSH URL is none.
fn has_credentials(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.and_then(|rest| rest.split('/').next()).is_some_and(|authority| authority.contains('@'))
}

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
    fn url_and_ref_are_never_options() {
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
