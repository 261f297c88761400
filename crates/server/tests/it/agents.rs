//! Agents, their workers, and the demand that scaling sees.

use anyhow::{Context, Result};
use futures::{Stream, StreamExt};
use rota_core::Timestamp;
use rota_proto::v1::{self, TaskState, watch_agents_response::Kind as AgentChange};
use rota_proto::worker::v1::session_response::Kind as Incoming;
use rota_store::{Command, Prune, Reply};
use rota_testkit::client::Client;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, history, tasks};

const PARENT: &str = "namespaces/default";

fn agent_name(agent: &str) -> String {
    rota_proto::names::agent(tasks::NAMESPACE, agent)
}

fn task_with_capabilities(words: &[&str]) -> v1::Task {
    let words = words.iter().map(ToString::to_string).collect();
    let kind = v1::target::Kind::Capabilities(v1::CapabilitySet { capabilities: words });
    v1::Task {
        spec: Some(Box::new(v1::TaskSpec {
            target: Some(v1::Target { kind: Some(kind) }),
            ..Default::default()
        })),
        ..Default::default()
    }
}

async fn get_agent(client: &Client, agent: &str) -> Result<v1::Agent, rota_testkit::client::Error> {
    client.get_agent(v1::GetAgentRequest { name: agent_name(agent) }).await
}

async fn delete_agent(client: &Client, agent: &str) -> Result<(), rota_testkit::client::Error> {
    let request =
        v1::DeleteAgentRequest { name: agent_name(agent), allow_missing: false, ..Default::default() };
    client.delete_agent(request).await.map(|_| ())
}

#[tokio::test]
async fn agent_is_created_updated_and_deleted() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    // The response means that the change is visible, however soon the next call follows.
    for round in 0..20 {
        let spec = v1::AgentSpec { runtime: Some(tasks::script([])), slots: 2, ..Default::default() };
        let agent = v1::Agent { spec: Some(spec), ..Default::default() };
        let request = v1::CreateAgentRequest {
            parent: PARENT.into(),
            agent_id: "echo".into(),
            agent: Some(agent.clone()),
            validate_only: false,
        };
        let made = client.create_agent(request.clone()).await?;
        assert_eq!(made.name.as_str(), agent_name("echo").as_str());
        assert_eq!(made.generation, 1);
        assert_eq!(get_agent(client, "echo").await?.spec, made.spec);
        let again = client.create_agent(request).await.unwrap_err();
        assert_eq!(again.reason.as_deref(), Some("AGENT_EXISTS"));
        for replicas in [3, 4, 3] {
            let mut changed = v1::Agent { name: agent_name("echo"), ..agent.clone() };
            changed.spec.get_or_insert_default().replicas = replicas;
            changed.spec.get_or_insert_default().slots = 9;
            let mask = pbjson_types::FieldMask { paths: vec!["spec.replicas".into()] };
            let request = v1::UpdateAgentRequest {
                agent: Some(changed),
                update_mask: Some(mask),
                ..Default::default()
            };
            let changed = client.update_agent(request).await?;
            let spec = changed.spec.unwrap();
            assert_eq!(spec.replicas, replicas, "round {round}");
            assert_eq!(spec.slots, 2, "round {round}");
            assert_eq!(get_agent(client, "echo").await?.spec.unwrap().replicas, replicas);
        }
        assert_eq!(get_agent(client, "echo").await?.generation, 4);
        delete_agent(client, "echo").await?;
        assert_eq!(get_agent(client, "echo").await.unwrap_err().reason.as_deref(), Some("AGENT_NOT_FOUND"));
        assert_eq!(
            delete_agent(client, "echo").await.unwrap_err().reason.as_deref(),
            Some("AGENT_NOT_FOUND")
        );
    }
    let request =
        v1::DeleteAgentRequest { name: agent_name("echo"), allow_missing: true, ..Default::default() };
    client.delete_agent(request).await?;
    Ok(())
}

#[tokio::test]
async fn disjoint_update_masks_keep_each_others_changes() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let change = async |path: &str, round: i32| {
        let mut agent = v1::Agent { name: agent_name("echo"), ..Default::default() };
        let spec = agent.spec.get_or_insert_default();
        (spec.slots, spec.replicas, spec.spare_workers) = (round, round, round);
        let update_mask = Some(pbjson_types::FieldMask { paths: vec![path.into()] });
        client
            .update_agent(v1::UpdateAgentRequest { agent: Some(agent), update_mask, ..Default::default() })
            .await
    };
    for round in 1..20 {
        futures::try_join!(
            change("spec.slots", round),
            change("spec.replicas", round),
            change("spec.spare_workers", round)
        )?;
        let spec = get_agent(client, "echo").await?.spec.unwrap();
        assert_eq!(spec.slots, round);
        assert_eq!(spec.replicas, round);
        assert_eq!(spec.spare_workers, round);
    }
    Ok(())
}

#[tokio::test]
async fn agent_list_is_paged() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    for index in 0..7 {
        tasks::agent(client, &format!("agent-{index}"), tasks::script([]), &[]).await?;
    }
    let mut names = Vec::new();
    let mut request = v1::ListAgentsRequest { parent: PARENT.into(), page_size: 3, ..Default::default() };
    loop {
        let page = client.list_agents(request.clone()).await?;
        assert!(page.agents.len() <= 3);
        names.extend(page.agents.into_iter().map(|agent| agent.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(names, (0..7).map(|index| agent_name(&format!("agent-{index}"))).collect::<Vec<_>>());
    let garbage =
        v1::ListAgentsRequest { parent: PARENT.into(), page_token: "?".into(), ..Default::default() };
    assert_eq!(client.list_agents(garbage).await.unwrap_err().fields[0].field, "page_token");
    Ok(())
}

#[tokio::test]
async fn capability_tasks_run_on_least_loaded_agent() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "coder", tasks::script([]), &["code", "test"]).await?;
    tasks::agent(client, "writer", tasks::script([]), &["prose"]).await?;
    let mut busy = RawWorker::join(client, raw::hello("coder", "busy", 4)).await?;
    let first = tasks::create(client, task_with_capabilities(&["code"])).await?;
    let held = busy.take().await?;
    assert_eq!(held.task_id, first.uid);
    let mut idle = RawWorker::join(client, raw::hello("coder", "idle", 4)).await?;
    let _writer = RawWorker::join(client, raw::hello("writer", "writer", 4)).await?;
    let second = tasks::create(client, task_with_capabilities(&["code", "test"])).await?;
    assert_eq!(idle.take().await?.task_id, second.uid);
    // No agent has both capabilities.
    let none = tasks::create(client, task_with_capabilities(&["code", "prose"])).await?;
    assert_eq!(tasks::get(client, &none.name).await?.status.unwrap().state(), TaskState::Queued);
    // A worker with more capabilities than its agent.
    let mut hello = raw::hello("coder", "poet", 1);
    hello.capabilities = vec!["prose".into()];
    let mut poet = RawWorker::join(client, hello).await?;
    assert_eq!(poet.take().await?.task_id, none.uid);
    let listed =
        client.list_capabilities(v1::ListCapabilitiesRequest { parent: PARENT.into() }).await?.capabilities;
    let listed: Vec<_> =
        listed.iter().map(|one| (one.capability.as_str(), one.workers, one.free_slots)).collect();
    assert_eq!(listed, [("code", 3, 6), ("prose", 2, 4), ("test", 3, 6)]);
    history::check(client, false).await?.check()
}

#[tokio::test]
async fn worker_connects_before_its_agent_exists() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let _worker = cluster.worker("coder", "early", 1)?;
    tasks::connected(client, "early").await?;
    let task = tasks::create(client, task_with_capabilities(&["code"])).await?;
    tasks::agent(client, "coder", tasks::script([]), &["code"]).await?;
    tasks::until_state(client, &task.name, TaskState::Succeeded).await?;
    // Capabilities added to the agent later apply to the worker, too.
    let task = tasks::create(client, task_with_capabilities(&["sing"])).await?;
    tasks::agent(client, "coder", tasks::script([]), &["code", "sing"]).await?;
    tasks::until_state(client, &task.name, TaskState::Succeeded).await?;
    // Capabilities removed from the agent are removed from the worker.
    tasks::agent(client, "coder", tasks::script([]), &["sing"]).await?;
    let task = tasks::create(client, task_with_capabilities(&["code"])).await?;
    let why = client.explain_task(v1::ExplainTaskRequest { name: task.name }).await?;
    assert_eq!(why.causes[0].code, "no_worker");
    history::check(client, false).await?.check()
}

async fn drain_worker(client: &Client, worker: &str, only_idle: bool) -> Result<Vec<String>> {
    let request = v1::DrainAgentRequest { name: agent_name("echo"), worker: worker.into(), only_idle };
    Ok(client.drain_agent(request).await?.workers)
}

#[tokio::test]
async fn drained_worker_receives_no_tasks() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut busy = RawWorker::join(client, raw::hello("echo", "busy", 2)).await?;
    let running = tasks::create(client, tasks::task("echo")).await?;
    let assign = busy.take().await?;
    let mut idle = RawWorker::join(client, raw::hello("echo", "idle", 2)).await?;
    // Only workers that run nothing and have nothing assigned.
    assert_eq!(drain_worker(client, "", true).await?, ["namespaces/default/workers/idle"]);
    assert!(matches!(idle.receive().await?, Incoming::Drain(_)));
    assert!(drain_worker(client, "busy", true).await?.is_empty());
    let next = tasks::create(client, tasks::task("echo")).await?;
    let second = busy.take().await?;
    assert_eq!(second.task_id, next.uid);
    assert_eq!(drain_worker(client, "", false).await?.len(), 2);
    let waits = tasks::create(client, tasks::task("echo")).await?;
    let why = client.explain_task(v1::ExplainTaskRequest { name: waits.name.clone() }).await?;
    assert_eq!(why.causes[0].code, "all_draining");
    // The drain survives a reconnect.
    busy.close().await;
    let mut hello = raw::hello("echo", "busy", 2);
    hello.running = vec![raw::running(&assign, 0, 0), raw::running(&second, 0, 0)];
    let mut busy = RawWorker::join(client, hello).await?;
    assert!(matches!(busy.receive().await?, Incoming::Drain(_)));
    // It finishes its task and receives no other.
    busy.succeed(&assign, 0, "done");
    busy.succeed(&second, 0, "done");
    assert!(busy.result_ack().await? && busy.result_ack().await?);
    tasks::until_state(client, &running.name, TaskState::Succeeded).await?;
    assert_eq!(tasks::get(client, &waits.name).await?.status.unwrap().state(), TaskState::Queued);
    let _fresh = cluster.worker("echo", "fresh", 1)?;
    let status = tasks::ended(client, &waits.name).await?.status.unwrap();
    assert_eq!(status.worker, "fresh");
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn tasks_of_deleted_agent_wait() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let running = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    let queued = tasks::create(client, tasks::task("echo")).await?;
    delete_agent(client, "echo").await?;
    assert!(matches!(worker.receive().await?, Incoming::Drain(_)));
    let waits = tasks::until_state(client, &queued.name, TaskState::Pending).await?.status.unwrap();
    assert_eq!(waits.waiting[0].reason(), v1::WaitReason::AgentMissing);
    worker.succeed(&assign, 0, "done");
    tasks::until_state(client, &running.name, TaskState::Succeeded).await?;
    worker.close().await;
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "next", 1)?;
    tasks::until_state(client, &queued.name, TaskState::Succeeded).await?;
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn agent_watch_reports_every_change() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "a", tasks::script([]), &[]).await?;
    let mut watch = client.watch_agents(PARENT);
    let mut next = async || watch.next().await.context("it ended")??.kind.context("nothing in it");
    assert!(matches!(next().await?, AgentChange::Agent(agent) if agent.name == agent_name("a")));
    assert!(matches!(next().await?, AgentChange::Synced(true)));
    tasks::agent(client, "b", tasks::script([]), &[]).await?;
    assert!(matches!(next().await?, AgentChange::Agent(agent) if agent.name == agent_name("b")));
    tasks::agent(client, "b", tasks::script([]), &["new"]).await?;
    assert!(matches!(next().await?, AgentChange::Agent(agent) if agent.generation == 2));
    delete_agent(client, "a").await?;
    assert!(matches!(next().await?, AgentChange::Deleted(deleted) if deleted == agent_name("a")));
    // Deleting and recreating immediately is a change, whether or not the absence was observed.
    delete_agent(client, "b").await?;
    tasks::agent(client, "b", tasks::script([]), &["other"]).await?;
    loop {
        match next().await? {
            AgentChange::Agent(agent) => {
                assert_eq!(agent.spec.unwrap().capabilities, ["other"]);
                return Ok(());
            }
            AgentChange::Deleted(deleted) => assert_eq!(deleted, agent_name("b")),
            AgentChange::Synced(_) => anyhow::bail!("twice"),
        }
    }
}

#[tokio::test]
async fn demand_counts_each_task_once() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "narrow", tasks::script([]), &["code"]).await?;
    tasks::agent(client, "wide", tasks::script([]), &["code", "prose"]).await?;
    let mut watch = client.watch_demand(PARENT);
    for _ in 0..3 {
        tasks::create(client, tasks::task("wide")).await?;
    }
    for _ in 0..2 {
        tasks::create(client, task_with_capabilities(&["code"])).await?;
    }
    let mut until = async |wanted: &[(&str, i64, i64, usize)]| {
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(agent, queued, running, workers)| (agent_name(agent), *queued, *running, *workers))
            .collect();
        let read = async {
            loop {
                let response = watch.next().await.context("it ended")??.demands;
                let demand: Vec<_> =
                    response.into_iter().map(|d| (d.agent, d.queued, d.running, d.workers.len())).collect();
                if demand == wanted {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(tasks::WAIT_TIMEOUT, read).await.with_context(|| format!("never {wanted:?}"))?
    };
    until(&[("narrow", 2, 0, 0), ("wide", 3, 0, 0)]).await?;
    // One slot takes one task; the others still count as demand, whatever the capacity.
    let mut worker = RawWorker::join(client, raw::hello("wide", "hand", 1)).await?;
    let assign = worker.take().await?;
    let left = if assign
        .spec
        .as_ref()
        .and_then(|spec| spec.target.as_ref()?.kind.as_ref())
        .is_some_and(|kind| matches!(kind, v1::target::Kind::Agent(_)))
    {
        (2, 2)
    } else {
        (1, 3)
    };
    until(&[("narrow", left.0, 0, 0), ("wide", left.1, 1, 1)]).await?;
    let request = v1::ReportWorkerDeathRequest {
        name: "namespaces/default/workers/hand".into(),
        instance: "another process".into(),
        message: "exited".into(),
        disrupted: false,
        node_pressure: false,
    };
    // The report is about another process and has no effect.
    assert_eq!(client.report_worker_death(request.clone()).await?.freed_tasks, 0);
    let request = v1::ReportWorkerDeathRequest { instance: "hand-process".into(), ..request };
    assert_eq!(client.report_worker_death(request.clone()).await?.freed_tasks, 1);
    assert_eq!(client.report_worker_death(request).await?.freed_tasks, 0);
    until(&[("narrow", 2, 0, 0), ("wide", 3, 0, 0)]).await?;
    history::check(client, false).await?.check()
}

#[tokio::test]
async fn removed_route_is_created_again() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let steps = [v1::script_step::Kind::Succeed("done".into())];
    tasks::agent(client, "echo", tasks::script(steps), &["code"]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    tasks::connected(client, "one").await?;
    let store = cluster.store().context("no store")?;
    for _ in 0..3 {
        let task = tasks::create(client, task_with_capabilities(&["code"])).await?;
        let status = tasks::ended(client, &task.name).await?.status.unwrap();
        assert_eq!(status.state(), TaskState::Succeeded);
        let prune = Prune { ended_before: None, left_before: Timestamp(0), limit: 10 };
        let replies = store.apply(vec![Command::Prune(prune)]).await?;
        assert!(matches!(replies[0], Ok(Reply::Pruned { count: 1, .. })), "{replies:?}");
    }
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn demand_travels_as_differences() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    for agent in ["one", "two"] {
        tasks::agent(client, agent, tasks::script([]), &[]).await?;
        tasks::create(client, tasks::task(agent)).await?;
    }
    let mut watch = client.watch_demand_differences(PARENT);
    let first = next_demand(&mut watch).await?;
    assert!(!first.difference && !first.more && first.demands.len() == 2, "{first:?}");
    assert_eq!(next_demand(&mut watch).await?.waits.len(), 2);
    tasks::create(client, tasks::task("two")).await?;
    let second = next_demand(&mut watch).await?;
    assert!(second.difference, "{second:?}");
    let [demand] = &second.demands[..] else { anyhow::bail!("more than what changed: {second:?}") };
    assert_eq!((demand.agent.clone(), demand.queued), (agent_name("two"), 2));
    Ok(())
}

async fn next_demand<E: Into<anyhow::Error>>(
    mut watch: impl Stream<Item = Result<v1::WatchDemandResponse, E>> + Unpin,
) -> Result<v1::WatchDemandResponse> {
    let next = tokio::time::timeout(tasks::WAIT_TIMEOUT, watch.next()).await?;
    next.context("it ended")?.map_err(Into::into)
}
