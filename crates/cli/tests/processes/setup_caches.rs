//! Setup caches that attempts of one agent share: only the agent's commands fill them, and no work of an agent takes part.

use anyhow::Result;
use rota_client::Client;
use rota_proto::v1::{self, TaskState, Workspace};
use rota_testkit::git_host::{self, GitHost};
use rota_testkit::tasks;

use crate::isolation::{prepared, worker};
use crate::workload;

/// Fills the cache of its agent, with a process that would go on.
const FILL: &str =
    r#"echo filled >> "$ROTA_SETUP_CACHE/made"; (sleep 1000; echo late >> "$ROTA_SETUP_CACHE/made") & "#;
/// Reads the cache, and tries to change it.
const USE: &str = r#"
exec 2>/dev/null
cat "$ROTA_SETUP_CACHE/made"
echo more >> "$ROTA_SETUP_CACHE/made" && echo changed
echo new > "$ROTA_SETUP_CACHE/new" && echo added
rm -r "$ROTA_SETUP_CACHE/made" && echo removed
mv "$ROTA_SETUP_CACHE" "$ROTA_SETUP_CACHE.moved" && echo moved
echo end
"#;

/// A task that starts from what another agent has left runs that agent's scripts.
#[tokio::test]
async fn work_of_agents_fills_no_shared_cache() -> Result<()> {
    let fixture = prepared().await?;
    let client = fixture.client()?;
    set_cache(&client, &["sh", "make-cache"], "lock").await?;
    let _worker = worker(&fixture, "confined", &[]).await?;
    let folder = tempfile::tempdir()?;
    let host = GitHost::start(folder.path()).await?;
    let script = r#"echo good > "$ROTA_SETUP_CACHE/made""#;
    let url = host.repository("project", &[("lock", "1"), ("make-cache", script)]).await?;
    let run = async |alias: &str, line: &str, first: &str| -> Result<String> {
        let mut task = workload::shell(line, &[]);
        let source = v1::GitSource { url: url.clone(), ref_from: first.to_owned(), ..Default::default() };
        let spec = task.spec.get_or_insert_default();
        spec.workspace = Some(Workspace { git: Some(source), ..Default::default() });
        if !first.is_empty() {
            spec.depends_on = vec![v1::Dependency { task: first.to_owned(), ..Default::default() }];
        }
        task.alias = alias.to_owned();
        let task = tasks::create(&client, task).await?.name;
        let status = tasks::ended(&client, &task).await?.status.unwrap();
        assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
        workload::printed(&client, &task).await
    };
    let misled = r#"echo 2 > lock; echo 'echo bad > "$ROTA_SETUP_CACHE/made"' > make-cache"#;
    run("first", misled, "").await?;
    let show = r#"cat "$ROTA_SETUP_CACHE/made""#;
    assert_eq!(run("second", show, "first").await?, "bad\n");
    // Now the branch that people review has the same key.
    let user = fixture.dir().join("user");
    let project = host.path("project");
    git_host::git(fixture.dir(), &["clone", "--quiet", project.to_str().unwrap(), "user"]).await?;
    std::fs::write(user.join("lock"), "2\n")?;
    git_host::git(&user, &["commit", "--quiet", "--all", "--message", "lock"]).await?;
    git_host::git(&user, &["push", "--quiet", "origin", "HEAD"]).await?;
    assert_eq!(run("third", show, "").await?, "good\n");
    Ok(())
}

/// Gives the agent a cache that this command fills.
async fn set_cache(client: &Client, command: &[&str], key_file: &str) -> Result<()> {
    let name = format!("namespaces/default/agents/{}", workload::AGENT);
    let mut agent = client.agents().get_agent(v1::GetAgentRequest { name }).await?.into_inner();
    let argv = command.iter().map(ToString::to_string).collect();
    let commands = vec![v1::WorkspaceCommand { argv, ..Default::default() }];
    let cache = v1::SetupCache { key_files: vec![key_file.to_owned()], commands };
    agent.spec.get_or_insert_default().setup_cache = Some(cache);
    let request = v1::UpdateAgentRequest { agent: Some(agent), ..Default::default() };
    client.agents().update_agent(request).await?;
    Ok(())
}

/// A cache is filled once, and attempts cannot change it. Where they could, each has its own.
#[tokio::test]
async fn setup_cache_is_filled_once_and_then_read() -> Result<()> {
    let fixture = prepared().await?;
    let client = fixture.client()?;
    set_cache(&client, &["sh", "-c", FILL], "package-lock.json").await?;
    let changes = "filled\nchanged\nadded\nremoved\nmoved\nend\n";
    for (name, more, expected) in
        [("confined", &[][..], "filled\nend\n"), ("open", &["--unconfined"][..], changes)]
    {
        let _worker = worker(&fixture, name, more).await?;
        for _ in 0..2 {
            let mut task = workload::shell(USE, &[]);
            let kind = Some(v1::target::Kind::Worker(name.to_owned()));
            task.spec.get_or_insert_default().target = Some(v1::Target { kind });
            let task = tasks::create(&client, task).await?.name;
            let status = tasks::ended(&client, &task).await?.status.unwrap();
            assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
            assert_eq!(workload::printed(&client, &task).await?, expected);
        }
    }
    let kept = fixture.dir().join("workers/setup/default");
    let left: Vec<_> = std::fs::read_dir(kept)?.flatten().filter(|entry| entry.path().is_dir()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(std::fs::read_to_string(left[0].path().join("made"))?, "filled\n");
    Ok(())
}
