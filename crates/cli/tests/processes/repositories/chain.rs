//! One task through everything that can happen to it between its prompt and its pull request: the real CLI, real git over HTTP, and
//! kills of all processes in the middle.

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rota_client::Client;
use rota_fake_model::{Handle as FakeModel, Outcome, RequestRecord, Route};
use rota_proto::v1::{self, DeliveryOutcome, TaskState, event};
use rota_testkit::forge::{Fault, Forge, Kind, Method, Opened, PATH};
use rota_testkit::git_host::git;
use rota_testkit::tasks;
use serde_json::{Value, json};

use super::Site;
use super::continuing::site_with;
use super::conversations::{bash, outputs};
use super::gates::done_when;
use super::requests::{API_TOKEN, Place};
use super::start::follow;
use crate::procfs::{self, ProcessInfo};

/// Tokens that each answer of the model takes.
pub(super) const INPUT: i64 = 1000;
pub(super) const OUTPUT: i64 = 10;

/// What is killed in the middle of an attempt.
#[derive(Debug, Clone, Copy)]
pub(super) enum Victim {
    Cli,
    Supervisor,
    Worker,
    /// The worker, with its state directory.
    Machine,
}

/// A task of the real CLI that is interrupted.
pub(super) struct Chain<'a> {
    pub(super) site: &'a mut Site,
    pub(super) client: Client,
    pub(super) model: &'a FakeModel,
    pub(super) task: v1::Task,
}

impl Chain<'_> {
    /// Waits until an attempt is within a tool call that lasts until [`Self::go_on`].
    pub(super) async fn reaches(&self, attempt: i32) -> Result<()> {
        let gate = gate(attempt);
        tasks::eventually(&format!("the tool call of attempt {attempt}"), async || {
            let log = tasks::log(&self.client, &self.task.name).await?;
            Ok(log.iter().any(|event| match &event.kind {
                Some(event::Kind::ToolCall(call)) => {
                    event.attempt == attempt && call.input_json.contains(&gate)
                }
                _ => false,
            }))
        })
        .await
    }

    pub(super) fn go_on(&self, attempt: i32) -> Result<()> {
        Ok(std::fs::write(self.site.fixture.dir().join(gate(attempt)), "")?)
    }

    /// Returns the commit of the files of the newest checkpoint of an attempt.
    async fn checkpoint(&self, attempt: i32) -> Result<Option<String>> {
        let kept = self.client.fetch_artifacts(&self.task.name).await?.attempts;
        let list = kept.into_iter().find(|kept| kept.attempt == attempt).and_then(|kept| kept.list);
        let is_whole = |list: &v1::ArtifactList| {
            list.checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.conversation.is_empty())
        };
        Ok(list.filter(is_whole).and_then(|list| list.changes).map(|changes| changes.commit))
    }

    /// Waits for a checkpoint that was begun after this call: the second from now, since each has other files.
    pub(super) async fn checkpointed(&self, attempt: i32) -> Result<()> {
        for _ in 0..2 {
            let last = self.checkpoint(attempt).await?;
            tasks::eventually(&format!("another checkpoint of attempt {attempt}"), async || {
                Ok(self.checkpoint(attempt).await? != last)
            })
            .await?;
        }
        Ok(())
    }

    /// Tokens of all answers of the model.
    fn spent(&self) -> i64 {
        INPUT * answers(self.model)
    }

    /// Waits until everything that the model has answered is counted.
    async fn counted(&self) -> Result<()> {
        tasks::eventually("the usage", async || {
            let status = tasks::get(&self.client, &self.task.name).await?.status.unwrap();
            Ok(status.usage.unwrap_or_default().input_tokens == self.spent())
        })
        .await
    }

    fn cli(&self) -> Result<ProcessInfo> {
        let mut all = procfs::marked(self.site.fixture.mark()).into_iter();
        all.find(|one| one.command.contains("stream-json")).context("no CLI runs")
    }

    pub(super) async fn interrupt(&mut self, victim: Victim) -> Result<()> {
        let cli = self.cli()?;
        let end = |pid: i32| kill(Pid::from_raw(pid), Signal::SIGKILL);
        match victim {
            Victim::Cli => end(cli.pid)?,
            Victim::Supervisor => {
                let supervisor = cli.parent().and_then(ProcessInfo::of).context("no supervisor runs")?;
                assert!(supervisor.command.contains("__supervise"), "{supervisor:?}");
                end(supervisor.pid)?;
            }
            Victim::Worker => {
                self.site._worker.signal(Signal::SIGKILL);
                self.site._worker.wait().await;
                self.site.start_worker("again").await?;
            }
            Victim::Machine => self.site.lose_worker().await?,
        }
        tasks::eventually("the end of the CLI", async || Ok(!cli.is_alive())).await
    }
}

/// Returns the number of answers of the model.
pub(super) fn answers(model: &FakeModel) -> i64 {
    let is_answer =
        |request: &RequestRecord| request.route == Route::Messages && request.outcome == Outcome::Answered;
    i64::try_from(model.requests().iter().filter(|request| is_answer(request)).count()).unwrap()
}

/// File for which a tool call of an attempt waits.
pub(super) fn gate(attempt: i32) -> String {
    format!("go-on-{attempt}")
}

pub(super) fn retries() -> v1::RetryPolicy {
    v1::RetryPolicy {
        max_attempts: 10,
        max_worker_losses: Some(10),
        initial_backoff: Some(tasks::millis(10)),
        ..Default::default()
    }
}

/// Returns a step of the model, with the tokens that it takes.
pub(super) fn step(mut step: Value) -> Value {
    step["usage"] = json!({"input_tokens": INPUT, "output_tokens": OUTPUT});
    step
}

#[tokio::test]
async fn work_gets_from_its_prompt_to_its_request() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let mut site = site_with("200ms", 1).await?;
    let place = Place::new(Kind::GitHub).await?;
    let client = site.fixture.client()?;
    let victims = [Victim::Cli, Victim::Supervisor, Victim::Worker, Victim::Machine];
    let attempts = i32::try_from(victims.len()).unwrap() + 1;

    let first = "echo one > committed; git add committed; git commit -qm by-the-agent; echo half > open.txt";
    let mut script = vec![json!({"text": "I begin.", "tools": bash(first)})];
    for attempt in 1..attempts {
        let gate = site.fixture.dir().join(gate(attempt));
        let line = format!("until test -e {}; do date +%s%N > tick; sleep 0.1; done", gate.display());
        script.push(json!({"tools": bash(&line)}));
    }
    let seen = "rm tick; cat open.txt; git log -1 --format=%s; git status --porcelain; echo two > answer.txt";
    script.extend([
        json!({"tools": bash(seen)}),
        json!({"text": "Done."}),
        json!({"tools": bash("echo four > answer.txt")}),
        json!({"text": "Now it is right."}),
    ]);
    let script = Value::from_iter(script.into_iter().map(step));
    let mut task = site.talk(&model, "chain", &script).await?;
    place.ask(Kind::GitHub, &mut task, |_| ());
    let spec = task.spec.get_or_insert_default();
    spec.title = "Two and two".to_owned();
    spec.done_when = Some(done_when(&["cat answer.txt; grep -q four answer.txt"]));
    spec.retry = Some(retries());
    // The token is refused, calls are limited, and the answer to the request that opens it is lost: it exists then.
    place.forge.fault(Method::GET, Fault::Unauthorized);
    place.forge.fault(Method::GET, Fault::LimitedUntilNow);
    place.forge.fault(Method::POST, Fault::Lost);
    let task = tasks::create(&client, task).await?;

    // Its own request is the last of several pages.
    let gitea = Forge::start(Kind::Gitea, API_TOKEN).await?;
    for branch in ["one", "two", "three"] {
        gitea.open(Opened { branch: branch.to_owned(), base: "main".to_owned(), ..Opened::default() });
    }
    gitea.set_page(1);
    gitea.fault(Method::POST, Fault::Lost);
    let script =
        json!([{"tools": bash("cat open.txt answer.txt; echo five > next.txt")}, {"text": "On it."}]);
    let mut next = follow(site.talk(&model, "next", &script).await?, "chain", false);
    place.ask(Kind::Gitea, &mut next, |asked| asked.api_url = gitea.api());
    let next = tasks::create(&client, next).await?;

    let mut chain = Chain { site: &mut site, client: client.clone(), model: &model, task: task.clone() };
    for (attempt, victim) in (1..).zip(victims) {
        chain.reaches(attempt).await?;
        chain.checkpointed(attempt).await?;
        chain.counted().await?;
        chain.interrupt(victim).await?;
        chain.go_on(attempt)?;
    }
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    let log = tasks::log(&client, &task.name).await?;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, attempts), "{:?}", status.failure);
    assert_eq!(status.usage.unwrap().input_tokens, chain.spent(), "each answer is counted once");
    // One conversation: the model was never asked for the first step again.
    let begun =
        model.requests().iter().filter(|request| request.step == Some(0) && request.turns == 0).count();
    assert_eq!(begun, 1, "{:?}", model.requests());
    let mut notices = tasks::notices(&log);
    notices.retain(|code| {
        ["continued", "checkpoint_unusable", "check_failed", "checks_passed"].contains(&&**code)
    });
    let wanted = [&["continued"; 4][..], &["check_failed", "checks_passed"]].concat();
    assert_eq!(notices, wanted);
    let found = outputs(&log);
    assert!(found.contains(&"half\nby-the-agent\n?? open.txt"), "{found:?}");

    let result = status.result.unwrap();
    assert_eq!(result.text, "Now it is right.");
    let delivery = result.delivery.unwrap();
    let branch = format!("rota/{}", task.uid);
    assert_eq!((delivery.outcome(), &delivery.branch), (DeliveryOutcome::Delivered, &branch));
    assert_eq!(site.paths("chain").await?, ["answer.txt", "committed", "open.txt"]);
    assert_eq!(place.show(&format!("{branch}:answer.txt")).await?, "four");
    assert_eq!(place.commit(&branch).await?, delivery.commit);
    let request = delivery.pull_request.unwrap();
    let [opened] = &place.forge.requests()[..] else { panic!("{:?}", place.forge.requests()) };
    assert_eq!((request.number, &opened.branch, opened.title.as_str()), (1, &branch, "Two and two"));
    let calls = place.forge.calls();
    for status in ["401", "403", "422"] {
        assert!(calls.iter().any(|call| call.ends_with(status)), "{calls:?}");
    }

    // The dependent task has started from that branch.
    let status = tasks::ended(&client, &next.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    let log = tasks::log(&client, &next.name).await?;
    assert_eq!(outputs(&log), ["half\nfour"]);
    let of_next = status.result.unwrap().delivery.unwrap();
    assert_eq!(place.commit(&format!("{}^", of_next.branch)).await?, delivery.commit);
    assert_eq!(of_next.pull_request.unwrap().number, 4);
    assert_eq!(gitea.requests().len(), 4);
    Ok(())
}

impl Place {
    async fn show(&self, name: &str) -> Result<String> {
        git(&self.host.path(PATH), &["show", name]).await
    }

    async fn commit(&self, name: &str) -> Result<String> {
        git(&self.host.path(PATH), &["rev-parse", name]).await
    }
}
