//! One call of git: never prompts, runs no hook, takes no variable of a task, and has a time limit.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use rota_proto::v1::Failure;
use rota_telemetry::redact::Redactor;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

use super::checks::{has_credentials, local_path, ssh_host};
use super::credential::{Access, Credential, ssh};
use super::failure::Cause;
use super::progress;
use crate::files::probe_in_time;
use crate::report::failure;
use crate::supervise::{self, Environment, Program, Stop, stopped};
use crate::tail::Tail;

/// Time between the request to end and the kill.
const CANCEL_GRACE: Duration = Duration::from_secs(3);
/// Bytes of the last output that a failure message contains, and of an answer.
const MAX_OUTPUT: usize = 2 << 10;
/// Variables of the worker that lead to hosts, and that name whom to trust.
const INHERITED: [&str; 12] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
];

/// Why a call of git did not succeed.
#[derive(Debug)]
pub(crate) enum GitError {
    Failed {
        cause: Cause,
        failure: Failure,
    },
    /// An end was requested meanwhile.
    Stopped,
}

/// Access to the host of a repository.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) credential: Option<Credential>,
    /// File in which SSH remembers the keys of hosts.
    pub(crate) known_hosts: PathBuf,
    /// Bytes that the running fetch has received.
    pub(crate) received: watch::Sender<u64>,
}

/// How git is called for one attempt and repository.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    /// Directory that it runs in.
    pub(crate) directory: PathBuf,
    /// Home of git. A call that opens the repository has a new one within it, which is removed with what the call wrote.
    pub(crate) home: PathBuf,
    /// URL of the repository, for messages.
    pub(crate) url: String,
    /// What may open the repository; none for calls that stay within directories of the attempt.
    pub(crate) network: Option<Network>,
    /// Variables besides those of every call.
    pub(crate) environment: Environment,
    pub(crate) redactor: Redactor,
}

impl Git {
    /// Returns the same in another directory.
    pub(super) fn within(&self, directory: &Path) -> Self {
        Self { directory: directory.to_owned(), ..self.clone() }
    }

    pub(super) fn failed(&self, cause: Cause, text: String) -> GitError {
        let hint = match cause {
            Cause::HostKey => self.forget_key(),
            _ => None,
        };
        let hint = hint.unwrap_or_else(|| cause.hint().to_owned());
        let failure = Failure { hint, ..failure(cause.class(has_credentials(&self.url)), text) };
        GitError::Failed { cause, failure }
    }

    /// Returns how to let the worker forget the key of the host, unless it is none of SSH.
    fn forget_key(&self) -> Option<String> {
        let (host, file) = (ssh_host(&self.url)?, self.network.as_ref()?.known_hosts.display());
        Some(format!(
            "if the host has a new key: `ssh-keygen -R '{host}' -f '{file}'` on the worker's machine; the next key is \
             remembered"
        ))
    }

    /// Whether its credentials are the agent's, who may replace them.
    pub(super) fn has_credentials_of_agent(&self) -> bool {
        self.credential().is_some_and(Credential::is_of_agent)
    }

    fn credential(&self) -> Option<&Credential> {
        self.network.as_ref()?.credential.as_ref()
    }

    /// Returns the variables of a call, and the directory with the files that they name, which lives as long as what is returned.
    /// `refused` is whether the host has refused the credentials of the call before.
    async fn environment(&self, refused: bool) -> std::io::Result<(Environment, Option<TempDir>)> {
        let private = Permissions::from_mode(0o700);
        let own = || tempfile::Builder::new().prefix("call").permissions(private).tempdir_in(&self.home);
        let own = self.network.as_ref().map(|_| own()).transpose()?;
        let home = own.as_ref().map_or(self.home.as_path(), TempDir::path);
        let access = match self.credential() {
            Some(credential) => credential.access(&self.url, refused, home, &self.redactor).await?,
            None => Access::default(),
        };
        // Git starts programs of a repository on this machine with the variables of the call.
        let remote = self.network.as_ref().filter(|_| local_path(&self.url).is_none());
        let mut environment = Environment::default();
        let mut set = |name: &str, value: String| environment.0.insert(name.to_owned(), value);
        // Settings of a repository can run programs of its agent, which would see them.
        let inherited = INHERITED.iter().filter(|_| remote.is_some()).chain(&["PATH"]);
        let inherited = inherited.filter_map(|name| Some((*name, rota_telemetry::env::var(name)?)));
        inherited.for_each(|(name, value)| drop(set(name, value)));
        let home_text = home.to_string_lossy();
        for (name, value) in [
            ("HOME", &*home_text),
            ("TMPDIR", &home_text),
            ("LC_ALL", "C"),
            ("GIT_TERMINAL_PROMPT", "0"),
            // Contents of LFS stay pointers.
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            // `ext::` would run any program.
            ("GIT_ALLOW_PROTOCOL", "https:http:ssh:git:file"),
            // A host that sends less is as good as silent. Over SSH, a connection ends by its own limits.
            ("GIT_HTTP_LOW_SPEED_LIMIT", "1000"),
            ("GIT_HTTP_LOW_SPEED_TIME", "60"),
        ] {
            set(name, value.to_owned());
        }
        if let Some(network) = remote {
            set("GIT_SSH_COMMAND", ssh(home, &network.known_hosts, access.key.as_deref())?);
        } else if self.network.is_some() {
            // It would run the program that a partial clone names for its own host.
            set("GIT_NO_LAZY_FETCH", "1".to_owned());
        }
        let fixed = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            // Those of the machine: the task chooses the host.
            ("credential.helper", ""),
        ];
        let fixed = fixed.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let configured = fixed.into_iter().chain(access.settings.iter().cloned());
        let mut count = 0;
        for (index, (name, value)) in configured.enumerate() {
            set(&format!("GIT_CONFIG_KEY_{index}"), name);
            set(&format!("GIT_CONFIG_VALUE_{index}"), value);
            count = index + 1;
        }
        set("GIT_CONFIG_COUNT", count.to_string());
        for (name, value) in self.environment.0.iter().chain(&access.environment.0) {
            set(name, value.clone());
        }
        Ok((environment, own))
    }

    /// Runs git, once more if the host refuses credentials that may have been replaced, or have expired, meanwhile. Returns the end of
    /// its output.
    pub(super) async fn run(
        &self,
        args: &[&str],
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<String, GitError> {
        match self.run_once(args, false, stop).await {
            Err(GitError::Failed { cause: Cause::Credentials, .. }) if self.credential().is_some() => {
                self.run_once(args, true, stop).await
            }
            ended => ended,
        }
    }

    async fn run_once(
        &self,
        args: &[&str],
        refused: bool,
        stop: &mut watch::Receiver<Option<Stop>>,
    ) -> Result<String, GitError> {
        // Neither options nor settings.
        let what = args.iter().find(|arg| !arg.starts_with('-') && !arg.contains('='));
        let what = what.copied().unwrap_or_default();
        let failed = |cause, text: String| self.failed(cause, format!("git {what}: {text}"));
        let (environment, _home) = self.environment(refused).await.map_err(|error| {
            let text = format!("failed to use the credentials of the repository: {error}");
            let cause = match error.kind() {
                std::io::ErrorKind::InvalidInput => Cause::Task,
                std::io::ErrorKind::ConnectionRefused => Cause::Host,
                _ => Cause::Machine,
            };
            failed(cause, text)
        })?;
        let program = Program {
            program: "git".to_owned(),
            args: args.iter().map(ToString::to_string).collect(),
            environment,
            directory: self.directory.clone(),
        };
        let mut running =
            supervise::start(program).await.map_err(|error| failed(Cause::Machine, error.to_string()))?;
        running.stdin = None;
        let (stdout, stderr) = (running.stdout.take(), running.stderr.take());
        // Hashes and counts, in which nothing is redacted.
        let mut answer = Tail::new(&Redactor::default(), MAX_OUTPUT);
        let mut errors = Tail::new(&self.redactor, MAX_OUTPUT);
        let pid = running.pid();
        let run =
            async { tokio::join!(running.wait(), read(stdout, &mut answer), read(stderr, &mut errors)).0 };
        let late = async {
            match (what, &self.network) {
                ("fetch", Some(network)) => {
                    let stored = || progress::stored(self.directory.clone());
                    progress::fetch_expired(&network.received, stored).await
                }
                ("push", Some(_)) => progress::push_expired(|| progress::moved(pid)).await,
                _ => progress::expired().await,
            }
        };
        let ended = tokio::select! {
            ended = run => ended,
            late = late => {
                let _ = running.end(CANCEL_GRACE).await;
                return Err(failed(Cause::Host, late));
            }
            _ = stopped(stop) => {
                let _ = running.end(CANCEL_GRACE).await;
                return Err(GitError::Stopped);
            }
        };
        match ended {
            Ok(exit) if exit.code == Some(0) => Ok(answer.text().trim_end().to_owned()),
            Ok(exit) => {
                let output = errors.text().trim().to_owned();
                // A signal is the kernel's, for lack of memory, or a person's.
                if exit.code.is_none() {
                    return Err(failed(Cause::Machine, output));
                }
                match probe_in_time(self.directory.clone()).await {
                    Ok(()) => Err(failed(Cause::of(&output), output)),
                    Err(error) => {
                        let text = format!("{output}; failed to write its directory: {error}");
                        Err(failed(Cause::Machine, text))
                    }
                }
            }
            Err(error) => Err(failed(Cause::Machine, error.to_string())),
        }
    }
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

    #[test]
    fn changed_key_of_a_host_waits_for_being_forgotten() {
        let network = Network {
            credential: None,
            known_hosts: "/state/known_hosts".into(),
            received: watch::Sender::default(),
        };
        let git = Git {
            directory: "/".into(),
            home: "/".into(),
            url: "ssh://git@git.example:2222/x.git".to_owned(),
            network: Some(network),
            environment: Environment::default(),
            redactor: Redactor::default(),
        };
        let cause = Cause::of("Host key verification failed.\nfatal: Could not read from remote repository.");
        let GitError::Failed { failure, .. } = git.failed(cause, String::new()) else { panic!("no failure") };
        assert_eq!(failure.class(), rota_proto::v1::FailureClass::Source);
        let command = "ssh-keygen -R '[git.example]:2222' -f '/state/known_hosts'";
        assert!(failure.hint.contains(command), "{}", failure.hint);
    }

    /// What it runs must not find what other calls trust or leave something for them.
    #[tokio::test]
    async fn each_call_that_opens_a_repository_has_a_new_home() {
        let home = tempfile::tempdir().unwrap();
        let network = Network {
            credential: None,
            known_hosts: "/state/known_hosts".into(),
            received: watch::Sender::default(),
        };
        let git = |url: &str| Git {
            directory: home.path().to_owned(),
            home: home.path().to_owned(),
            url: url.to_owned(),
            network: Some(network.clone()),
            environment: Environment::default(),
            redactor: Redactor::default(),
        };
        let mut homes = Vec::new();
        for (url, is_local) in [("/srv/x.git", true), ("file:///srv/x.git", true), ("git@host:x.git", false)]
        {
            let (environment, own) = git(url).environment(false).await.unwrap();
            let variable = |name: &str| environment.0.get(name).map(String::as_str);
            let own = own.unwrap();
            assert_eq!((variable("HOME"), variable("TMPDIR")), (own.path().to_str(), own.path().to_str()));
            assert_eq!(variable("GIT_SSH_COMMAND").is_none(), is_local, "{url}");
            assert_eq!(variable("GIT_NO_LAZY_FETCH").is_some(), is_local, "{url}");
            assert!(own.path().starts_with(home.path()) && !homes.contains(&own.path().to_owned()));
            homes.push(own.path().to_owned());
        }
        assert!(homes.iter().all(|home| !home.exists()), "they are removed with what was written there");
    }
}
