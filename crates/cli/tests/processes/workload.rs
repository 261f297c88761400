//! Tasks for tests: shell commands, some of which leave processes behind.

use std::collections::HashMap;

use anyhow::Result;
use rota_client::Client;
use rota_proto::v1;
use rota_testkit::git_host::GitHost;
use rota_testkit::tasks;

/// Agent that runs shell commands.
pub(crate) const AGENT: &str = "shell";

/// Starts processes that are hard to find and to end: in another session; orphaned and ignoring signals; and the same
/// with another environment. Each carries `$MARK`.
pub(crate) const ORPHANS: &str = r#"
setsid sleep 1000 &
( setsid sh -c 'trap "" INT TERM HUP; while :; do sleep 1000; done' & )
( env -i PATH="$PATH" CARRIED="$MARK" setsid sh -c 'trap "" INT TERM HUP; while :; do sleep 1000; done' & )
"#;
/// Number of sessions of these processes and the command itself.
pub(crate) const SESSIONS: usize = 4;
/// Never exits, and ignores signals.
pub(crate) const HANG: &str = "\ntrap '' INT TERM HUP\nwhile :; do sleep 1000; done\n";

/// Creates the agent.
pub(crate) async fn agent(client: &Client) -> Result<()> {
    let kind = v1::runtime::Kind::Command(v1::CommandRuntime::default());
    tasks::agent(client, AGENT, v1::Runtime { kind: Some(kind) }, &[]).await?;
    Ok(())
}

/// Returns a task that runs a shell command.
pub(crate) fn shell(line: &str, environment: &[(&str, &str)]) -> v1::Task {
    let mut task = tasks::task(AGENT);
    let spec = task.spec.get_or_insert_default();
    let command = v1::CommandRuntime { shell: line.to_owned(), ..Default::default() };
    spec.runtime = Some(v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) });
    let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    spec.environment = pairs.collect::<HashMap<_, _>>().into_iter().collect();
    task
}

/// Returns a unique mark.
pub(crate) fn mark() -> String {
    format!("mark-{}", uuid::Uuid::new_v4().simple())
}

/// Returns the output of a task so far.
pub(crate) async fn printed(client: &Client, name: &str) -> Result<String> {
    Ok(tasks::outputs(&tasks::log(client, name).await?).concat())
}

/// Waits for output of a task.
pub(crate) async fn prints(client: &Client, name: &str, what: &str) -> Result<()> {
    tasks::eventually(&format!("the output {what:?}"), async || {
        Ok(printed(client, name).await?.contains(what))
    })
    .await
}

/// Holds programs of tasks until each of them has come. Confined ones can ask for it, too: it is a host of repositories that is away.
pub(crate) struct Gate {
    host: GitHost,
    url: String,
    _folder: tempfile::TempDir,
}

impl Gate {
    pub(crate) async fn closed() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let host = GitHost::start(folder.path()).await?;
        let url = host.repository("gate", &[("open", "")]).await?;
        host.set_away(true);
        Ok(Self { host, url, _folder: folder })
    }

    /// Returns the line of a program that waits, for a bounded time.
    pub(crate) fn line(&self) -> String {
        format!(
            "echo here; tries=0; until git ls-remote -q {} >/dev/null 2>&1; do \
             tries=$((tries + 1)); test $tries -lt 600 || exit 9; sleep 0.2; done",
            self.url
        )
    }

    /// Opens once the programs of all these tasks wait.
    pub(crate) async fn open(&self, client: &Client, tasks: &[v1::Task]) -> Result<()> {
        for task in tasks {
            prints(client, &task.name, "here").await?;
        }
        self.host.set_away(false);
        Ok(())
    }
}
