//! What agents are given to do: lines for a shell, some of which leave processes behind.

use std::collections::HashMap;

use anyhow::Result;
use rota_client::Client;
use rota_proto::v1;
use rota_testkit::tasks;

/// The agent that runs lines.
pub(crate) const AGENT: &str = "shell";

/// Starts processes that are hard to find and to end: in a session of its own; without a parent and deaf; and
/// the same without the environment of the rest. Every one carries `$MARK`.
pub(crate) const STRAYS: &str = r#"
setsid sleep 1000 &
( setsid sh -c 'trap "" INT TERM HUP; while :; do sleep 1000; done' & )
( env -i PATH="$PATH" CARRIED="$MARK" setsid sh -c 'trap "" INT TERM HUP; while :; do sleep 1000; done' & )
"#;
/// Sessions of those, and of the line itself.
pub(crate) const SESSIONS: usize = 4;
/// Never ends, whatever it is asked.
pub(crate) const HANG: &str = "\ntrap '' INT TERM HUP\nwhile :; do sleep 1000; done\n";

/// Makes the agent.
pub(crate) async fn agent(client: &Client) -> Result<()> {
    let kind = v1::runtime::Kind::Command(v1::CommandRuntime::default());
    tasks::agent(client, AGENT, v1::Runtime { kind: Some(kind) }, &[]).await?;
    Ok(())
}

/// A task that runs a line.
pub(crate) fn shell(line: &str, environment: &[(&str, &str)]) -> v1::Task {
    let mut task = tasks::task(AGENT);
    let spec = task.spec.get_or_insert_default();
    let command = v1::CommandRuntime { shell: line.to_owned(), ..Default::default() };
    spec.runtime = Some(v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) });
    let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    spec.environment = pairs.collect::<HashMap<_, _>>().into_iter().collect();
    task
}

/// A word that nobody else has.
pub(crate) fn mark() -> String {
    format!("mark-{}", uuid::Uuid::new_v4().simple())
}

/// All that a task has printed so far.
pub(crate) async fn printed(client: &Client, name: &str) -> Result<String> {
    Ok(tasks::outputs(&tasks::log(client, name).await?).concat())
}

/// Waits until a task has printed this.
pub(crate) async fn prints(client: &Client, name: &str, what: &str) -> Result<()> {
    tasks::eventually(&format!("the output {what:?}"), async || {
        Ok(printed(client, name).await?.contains(what))
    })
    .await
}
