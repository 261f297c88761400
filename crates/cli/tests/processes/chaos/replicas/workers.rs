//! Workers of a run: they are killed, and what is lost with them is counted.

use std::fs;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use rota_client::Client;
use rota_proto::v1;
use rota_testkit::tasks;

use super::{WORKERS, World};
use crate::workload;

impl World {
    /// Returns how many attempts were lost with their workers so far, once all of these are connected: what they still had has then
    /// continued.
    pub(super) async fn losses(&self, client: &Client) -> Result<i32> {
        for (name, _) in WORKERS {
            tasks::connected(client, name).await?;
        }
        let parent = rota_proto::names::namespace(tasks::NAMESPACE);
        let all = client.all_tasks(v1::ListTasksRequest { parent, ..Default::default() }, None).await?;
        Ok(all.into_iter().filter_map(|task| task.status).map(|status| status.worker_losses).sum())
    }

    /// Kills the worker of a task that runs, and one that runs scripts. Returns how many attempts of the task that has cost.
    pub(super) async fn worker_killed(&mut self, random: &mut StdRng) -> Result<usize> {
        let client = self.replicas.fixture.client()?;
        let gate = self.replicas.fixture.dir().join("gate").display().to_string();
        let waits = workload::shell("until [ -e \"$GATE\" ]; do sleep 0.05; done", &[("GATE", &gate)]);
        let name = tasks::create(&client, waits).await?.name;
        let running = tasks::until_state(&client, &name, v1::TaskState::Running).await?;
        let worker = running.status.unwrap_or_default().worker;
        let busy = WORKERS.iter().position(|(name, _)| *name == worker).context("an unknown worker")?;
        let scripted = random.random_range(0..WORKERS.len() / 2);
        for index in [busy, scripted] {
            let (name, agent) = WORKERS[index];
            self.workers.remove(index).kill().await;
            let again = self.replicas.fixture.worker(agent, name, 4).await?;
            self.workers.insert(index, again);
        }
        fs::write(&gate, "")?;
        let status = tasks::ended(&client, &name).await?.status.unwrap_or_default();
        fs::remove_file(&gate)?;
        ensure!(status.state() == v1::TaskState::Succeeded, "{status:?}");
        Ok(usize::try_from(status.attempt)?.saturating_sub(1))
    }
}
