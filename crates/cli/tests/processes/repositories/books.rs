//! What a task has cost, in dollars, when its CLI is killed, its worker's disk is lost, and workers share a directory: each answer of the
//! model is in the books once.

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_fake_model::Handle as FakeModel;
use rota_proto::v1::{self, TaskState, Usage};
use rota_testkit::tasks;
use rota_worker::{Prices, Tokens};
use serde_json::{Value, json};

use super::Site;
use super::chain::{Chain, INPUT, OUTPUT, Victim, answers, gate, retries, step};
use super::continuing::{codes, site_with};
use super::conversations::{bash, outputs};
use crate::workload;

const MODEL: &str = "claude-opus-5-5";

/// Returns the cost of answers by the list of prices, in millionths of a dollar.
fn listed(input: i64, output: i64) -> i64 {
    let tokens = Tokens {
        input: input as f64,
        output: output as f64,
        cache_read: 0.0,
        cache_write_5m: 0.0,
        cache_write_1h: 0.0,
    };
    (Prices::default().cost_usd(MODEL, &tokens) * 1e6).round() as i64
}

impl Site {
    /// Returns a task of a model with a price, each of whose attempts takes two turns and then waits in a tool call.
    async fn paid(&self, model: &FakeModel, alias: &str, attempts: i32) -> Result<v1::Task> {
        let mut script = Vec::new();
        for attempt in 1..=attempts {
            let gate = self.fixture.dir().join(gate(attempt));
            let waits = format!("until test -e {}; do date +%s%N > tick; sleep 0.1; done", gate.display());
            script.push(json!({"tools": bash(&format!("echo {attempt} >> open.txt"))}));
            script.push(json!({"tools": bash(&waits)}));
        }
        script.push(json!({"tools": bash("cat open.txt")}));
        script.push(json!({"text": "Done."}));
        let script = Value::from_iter(script.into_iter().map(step));
        let mut task = self.talk(model, alias, &script).await?;
        let spec = task.spec.get_or_insert_default();
        spec.retry = Some(retries());
        if let Some(v1::runtime::Kind::Claude(claude)) =
            spec.runtime.as_mut().and_then(|runtime| runtime.kind.as_mut())
        {
            claude.model = MODEL.to_owned();
        }
        Ok(task)
    }
}

/// Compares the books with what the model has answered: the CLI's own dollars, and tokens at list prices. Each end of a CLI may cost the
/// turn in which it came, so that a second count of an attempt, or a lost one, which had two turns, is found.
fn agree(model: &FakeModel, usage: &Usage) {
    let (answers, turn) = (answers(model), listed(INPUT, OUTPUT));
    let by_list = listed(usage.input_tokens, usage.output_tokens);
    for booked in [usage.cost_micro_usd, by_list] {
        let missed = answers * turn - booked;
        assert!(missed.abs() <= turn, "{answers} answers of {turn}: {usage:?}, {by_list} by the list");
    }
    assert!((usage.cost_micro_usd - by_list).abs() <= turn, "{usage:?}, {by_list} by the list");
}

#[tokio::test]
async fn dollars_count_once_over_kills_and_lost_disks() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let mut site = site_with("200ms", 1).await?;
    let client = site.fixture.client()?;
    let task = tasks::create(&client, site.paid(&model, "paid", 2).await?).await?;
    let mut chain = Chain { site: &mut site, client: client.clone(), model: &model, task: task.clone() };
    for (attempt, victim) in [(1, Victim::Cli), (2, Victim::Machine)] {
        chain.reaches(attempt).await?;
        chain.checkpointed(attempt).await?;
        chain.interrupt(victim).await?;
        chain.go_on(attempt)?;
    }
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 3), "{:?}", status.failure);
    let log = tasks::log(&client, &task.name).await?;
    assert_eq!(outputs(&log).last(), Some(&"1\n2"), "its files came back each time");
    agree(&model, &status.usage.unwrap());
    Ok(())
}

/// Workers of two names that share a directory have their own ones below it: the kill of one leaves the other's attempts alone, and costs
/// nothing twice.
#[tokio::test]
async fn workers_that_share_a_directory_count_once() -> Result<()> {
    let (model, of_neighbor) = tokio::try_join!(
        rota_fake_model::Options::default().start(),
        rota_fake_model::Options::default().start()
    )?;
    let mut site = site_with("200ms", 1).await?;
    let client = site.fixture.client()?;
    let task = tasks::create(&client, site.paid(&model, "paid", 1).await?).await?;
    let chain = Chain { site: &mut site, client: client.clone(), model: &model, task: task.clone() };
    chain.reaches(1).await?;
    let _other = chain.site.fixture.worker(workload::AGENT, "other", 2).await?;
    let mut neighbor = chain.site.paid(&of_neighbor, "neighbor", 1).await?;
    let target = v1::target::Kind::Worker("other".to_owned());
    neighbor.spec.get_or_insert_default().target = Some(v1::Target { kind: Some(target) });
    let neighbor = tasks::create(&client, neighbor).await?;
    of_neighbor.until(|counts| counts.messages >= 2).await;
    chain.checkpointed(1).await?;
    let running = chain.site.fixture.state_dir().join("running/default");
    assert!(["w", "other"].iter().all(|worker| running.join(worker).is_dir()));

    chain.site._worker.signal(Signal::SIGKILL);
    chain.site._worker.wait().await;
    let continues = |status: &v1::TaskStatus| status.attempt == 2 && status.worker == "other";
    tasks::until(&client, &task.name, continues).await?;
    chain.go_on(1)?;
    for (name, model, attempts) in [(&task.name, &model, 2), (&neighbor.name, &of_neighbor, 1)] {
        let status = tasks::ended(&client, name).await?.status.unwrap();
        assert_eq!(
            (status.state(), status.attempt),
            (TaskState::Succeeded, attempts),
            "{:?}",
            status.failure
        );
        let log = tasks::log(&client, name).await?;
        assert_eq!(codes(&log), if attempts == 2 { &["continued"][..] } else { &[] });
        assert_eq!(outputs(&log).last(), Some(&"1"), "{name}");
        agree(model, &status.usage.unwrap());
    }
    Ok(())
}
