//! Work that is done while its host, or its forge, is away: it is delivered later, and not done again.

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1::{self, DeliveryOutcome, TaskState, WaitReason};
use rota_testkit::forge::{Fault, Kind, Method};
use rota_testkit::git_host::git;
use rota_testkit::{history, tasks};
use serde_json::json;

use super::continuing::site_with;
use super::conversations::bash;
use super::requests::Place;
use super::{Site, TOKEN, site_of};
use crate::{Fixture, Graces, money, storing, workload};

/// Starts a site whose worker does not wait for hosts.
async fn site() -> Result<Site> {
    let mut fixture = Fixture::start(Graces::SHORT).await?;
    fixture.environment = vec![("ROTA_WORKER_DELIVERY_TIMEOUT", "100ms".to_owned())];
    site_of(fixture, 1).await
}

pub(super) fn retried(task: &mut v1::Task) {
    let retry = v1::RetryPolicy { initial_backoff: Some(tasks::millis(500)), ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(retry);
}

fn is_undelivered(status: &v1::TaskStatus) -> bool {
    status.delivering && status.waiting.iter().any(|wait| wait.reason() == WaitReason::Delivery)
}

/// The real CLI, whose model is asked for nothing more, on another worker.
#[tokio::test]
async fn undelivered_work_is_delivered_alone() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let mut site = site().await?;
    let client = site.fixture.client()?;
    let place = Place::new(Kind::Gitea).await?;
    place.forge.set_away(true);
    let usage = json!({"input_tokens": 100_000, "output_tokens": 10});
    let script = json!([{"tools": bash("echo one > a"), "usage": usage}, {"text": "It is done."}]);
    let mut task = site.talk(&model, "work", &script).await?;
    place.ask(Kind::Gitea, &mut task, |asked| asked.body = "${result} ${cost}".to_owned());
    retried(&mut task);
    let task = tasks::create(&client, task).await?;
    let waiting = tasks::until(&client, &task.name, is_undelivered).await?.status.unwrap();
    let asked = model.requests().len();
    assert!(waiting.failure.is_none() && waiting.result.is_none(), "{waiting:?}");
    let branch = format!("rota/{}", task.uid);
    assert_eq!(place.files(&branch).await?, "README.md\na", "it is pushed");

    site.lose_worker().await?;
    tasks::until(&client, &task.name, |status| is_undelivered(status) && status.attempt > 1).await?;
    place.forge.set_away(false);
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    let (result, usage) = (status.result.unwrap(), status.usage.unwrap());
    assert_eq!(result.text, "It is done.");
    let delivery = result.delivery.unwrap();
    assert_eq!((delivery.outcome(), &delivery.branch), (DeliveryOutcome::Delivered, &branch));
    assert_eq!(delivery.pull_request.unwrap().number, 1);
    assert_eq!(model.requests().len(), asked, "the agent is not run again");
    assert_eq!(usage, waiting.usage.unwrap());
    let cost = format!("${:.2}", usage.cost_micro_usd as f64 / 1e6);
    assert_eq!(place.forge.requests()[0].body, format!("It is done. {cost}"));
    // What the first attempt has left is what the last one has.
    assert_eq!(site.paths("work").await?, ["a"]);
    let kept = client.fetch_artifacts(&task.name).await?.attempts;
    let changes = |attempt: i32| {
        let list = kept.iter().find(|kept| kept.attempt == attempt)?.list.as_ref()?;
        list.changes.as_ref().map(|changes| (changes.commit.clone(), changes.pushed))
    };
    assert_eq!(changes(status.attempt), Some((delivery.commit, true)));
    history::check(&client, true).await?.check()
}

/// Users see that delivery is what waits, and a forge is not asked before it wants to be.
#[tokio::test]
async fn waits_for_deliveries_are_explained() -> Result<()> {
    let site = site().await?;
    let client = site.fixture.client()?;
    let place = Place::new(Kind::Gitea).await?;
    place.forge.fault(Method::POST, Fault::Limited(7200));
    let mut task = site.task("hours", "echo a > a");
    place.ask(Kind::Gitea, &mut task, |_| ());
    let task = tasks::create(&client, task).await?;
    let waiting = tasks::until(&client, &task.name, is_undelivered).await?.status.unwrap();
    let now = rota_telemetry::clock::unix_micros() / 1_000_000;
    assert!(waiting.waiting[0].until.as_ref().unwrap().seconds > now + 7000, "{waiting:?}");
    let explained = site.fixture.rota(&["explain", "hours"]).await.success();
    for text in ["the work of attempt 1 is done and kept", "only its delivery is left", "rate limit"] {
        assert!(explained.contains(text), "{explained}");
    }
    let listed = site.fixture.rota(&["get", "tasks"]).await.success();
    assert!(listed.contains("delivery of attempt 1 until"), "{listed}");
    tasks::cancel(&client, &task.name).await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.delivering), (TaskState::Cancelled, false));
    // Nothing is lost by that.
    assert_eq!(site.paths("hours").await?, ["a"]);
    Ok(())
}

/// Neither the push nor that of a later attempt finds the host, which forgets the branch from which the task has started meanwhile.
#[tokio::test]
async fn pushes_wait_for_their_host() -> Result<()> {
    let site = site().await?;
    let client = site.fixture.client()?;
    let gate = site.fixture.dir().join("go-on");
    let line = format!("echo once; echo a > a; until test -e {}; do sleep 0.1; done", gate.display());
    let user = site.clone("user").await?;
    git(&user, &["push", "-q", "origin", "HEAD:refs/heads/topic"]).await?;
    let source =
        v1::GitSource { push: Some(v1::Push::default()), r#ref: "topic".to_owned(), ..site.source() };
    let mut task = site.task_with("push", &line, source, |_| ());
    retried(&mut task);
    let task = tasks::create(&client, task).await?;
    workload::prints(&client, &task.name, "once").await?;
    site.host.set_away(true);
    std::fs::write(&gate, "")?;
    let is_tried = |status: &v1::TaskStatus| is_undelivered(status) && status.attempt > 2;
    tasks::until(&client, &task.name, is_tried).await?;
    git(&user, &["push", "-q", "origin", "--delete", "topic"]).await?;
    site.host.set_away(false);
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &task.name).await?, "once\n");
    let branch = status.result.unwrap().delivery.unwrap().branch;
    assert_eq!(site.at_host(&branch).await.as_deref(), Some(".gitignore\nREADME.md\na\nsrc/main.rs"));
    Ok(())
}

/// The last turn has spent the budget, and the control plane asks for an end while its work is delivered.
#[tokio::test]
async fn work_of_a_spent_budget_is_delivered() -> Result<()> {
    let site = site().await?;
    let client = site.fixture.client()?;
    let source = v1::GitSource { push: Some(v1::Push::default()), ..site.source() };
    let mut task = site.task_with("spent", "", source, |_| ());
    retried(&mut task);
    let spec = task.spec.get_or_insert_default();
    spec.runtime = Some(tasks::script(money::last_turn_of(10)));
    spec.limits.get_or_insert_default().budget_micro_usd = 10;
    let task = tasks::create(&client, task).await?;
    tasks::until_state(&client, &task.name, TaskState::InputRequired).await?;
    site.host.set_away(true);
    tasks::answer(&client, &task.name, "go on").await?;
    tasks::until(&client, &task.name, is_undelivered).await?;
    let log = tasks::log(&client, &task.name).await?;
    assert!(tasks::notices(&log).iter().any(|code| code == "budget_reached"), "{log:?}");
    site.host.set_away(false);
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    let branch = status.result.unwrap().delivery.unwrap().branch;
    assert_eq!(site.at_host(&branch).await.as_deref(), Some(".gitignore\nREADME.md\na\nsrc/main.rs"));
    Ok(())
}

/// A worker that has to stop in the middle of a delivery leaves it to the next one.
#[tokio::test]
async fn deliveries_survive_a_planned_stop() -> Result<()> {
    let mut site = site_with("0s", 1).await?;
    let client = site.fixture.client()?;
    let place = Place::new(Kind::GitLab).await?;
    place.forge.set_away(true);
    let mut task = site.task("drained", "echo once; echo a > a");
    place.ask(Kind::GitLab, &mut task, |_| ());
    let task = tasks::create(&client, task).await?;
    tasks::eventually("the first call", async || Ok(!place.forge.calls().is_empty())).await?;
    site._worker.signal(Signal::SIGTERM);
    tasks::eventually("the drain", async || Ok(site._worker.count("draining") > 0)).await?;
    site._worker.signal(Signal::SIGTERM);
    site._worker.wait().await;
    place.forge.set_away(false);
    site.start_worker("other").await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &task.name).await?, "once\n");
    assert_eq!(place.forge.requests().len(), 1);
    Ok(())
}

/// The storage is away as well: what a later process of the worker stores, another attempt delivers.
#[tokio::test]
async fn work_that_waited_for_its_storage_is_delivered() -> Result<()> {
    let mut fixture = storing::impatient();
    fixture.start_server().await?;
    let mut site = site_of(fixture, 1).await?;
    let client = site.fixture.client()?;
    let gate = site.fixture.dir().join("go-on");
    let line = format!("echo once; echo a > a; until test -e {}; do sleep 0.1; done", gate.display());
    let source = v1::GitSource { push: Some(v1::Push::default()), ..site.source() };
    let task = tasks::create(&client, site.task_with("push", &line, source, |_| ())).await?;
    workload::prints(&client, &task.name, "once").await?;
    let storage = storing::Folder::of(&site.fixture);
    storage.take_away()?;
    std::fs::write(&gate, "")?;
    storing::waits_for_storage(&client, &task.name).await?;
    site._worker.signal(Signal::SIGKILL);
    site._worker.wait().await;
    site.start_worker("w").await?;
    storing::waits_for_storage(&client, &task.name).await?;
    storage.bring_back()?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &task.name).await?, "once\n");
    let branch = status.result.unwrap().delivery.unwrap().branch;
    assert_eq!(site.at_host(&branch).await.as_deref(), Some(".gitignore\nREADME.md\na\nsrc/main.rs"));
    Ok(())
}

/// The host refuses the push, so nothing is tried again by itself. Once it takes it, a retry delivers what is kept.
#[tokio::test]
async fn refused_work_is_delivered_by_a_retry() -> Result<()> {
    let site = site().await?;
    let client = site.fixture.client()?;
    let count = site.fixture.dir().join("count");
    let project = site.host.path("project");
    git(&project, &["config", "receive.maxInputSize", "20000"]).await?;
    let line = format!("echo run >> {}; head -c 100000 /dev/urandom > noise; echo made", count.display());
    let refused = tasks::create(&client, site.pushing("large", &line)).await?;
    let status = tasks::ended(&client, &refused.name).await?.status.unwrap();
    assert_eq!(status.failure.unwrap().class(), v1::FailureClass::Delivery);
    git(&project, &["config", "--unset", "receive.maxInputSize"]).await?;
    let secrets = [("GIT".to_owned(), TOKEN.to_owned())].into();
    let request = v1::RetryTaskRequest { name: refused.name.clone(), secrets, ..Default::default() };
    let retried = client.retry_task(request.clone()).await?;
    let status = tasks::ended(&client, &retried.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    assert_eq!(std::fs::read_to_string(&count)?, "run\n", "the agent is not run again");
    let branch = format!("rota/{}", retried.uid);
    let changes = site.changes(&retried.uid).await?;
    assert!(changes.pushed && changes.branch == branch, "{changes:?}");
    assert_eq!(git(&project, &["rev-parse", &branch]).await?, changes.commit);
    assert_eq!(site.paths(&retried.uid).await?, ["noise"]);
    let request = v1::RetryTaskRequest { from_scratch: true, ..request };
    tasks::ended(&client, &client.retry_task(request).await?.name).await?;
    assert_eq!(std::fs::read_to_string(&count)?, "run\nrun\n");
    Ok(())
}
