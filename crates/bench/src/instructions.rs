//! A fixed number of tasks, to count the instructions of each: unlike times, they hardly depend on the machine and on what
//! else runs there. `scripts/instructions` runs this under Callgrind with few and with many tasks, and divides the
//! difference.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::try_join_all;
use rota_core::task::{AttemptRef, WorkerRef};
use rota_core::{Namespace, WorkerName};
use rota_server::Timing;
use rota_store::Reply;

use crate::dispatch::settled;
use crate::plane::{NAMESPACE, Plane, open, task};
use crate::raw;
use crate::short_workflows::{request, succeeded};
use crate::workflow::Shape;

/// Tasks of a round, as many as the store creates per commit.
const TASKS: usize = 64;
/// Tasks at a time of the control plane: so few that each attempt starts long before its deadline also under Callgrind on a busy machine.
/// Those that miss it are assigned again, and would be counted again.
const CLIENTS: usize = 16;
const WORKERS: usize = 4;
const HOUR: Duration = Duration::from_secs(3600);

/// The part of Rota that runs the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The store alone: creation, acceptance and result.
    Store,
    /// Clients, control plane and workers, all in this process.
    ControlPlane,
    /// The same with one workflow, whose steps all need the first one.
    Workflow,
}

impl FromStr for Subject {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "store" => Ok(Self::Store),
            "control-plane" => Ok(Self::ControlPlane),
            "workflow" => Ok(Self::Workflow),
            _ => bail!("unknown subject {name:?}: must be store, control-plane or workflow"),
        }
    }
}

impl Subject {
    /// Runs rounds of 64 tasks, or as many steps, with a store in `folder`.
    pub async fn run(self, rounds: usize, folder: &Path) -> Result<()> {
        match self {
            Self::Store => store(rounds, folder).await,
            Self::ControlPlane => control_plane(rounds, folder).await,
            Self::Workflow => workflow(rounds, folder).await,
        }
    }
}

async fn store(rounds: usize, folder: &Path) -> Result<()> {
    let store = open(folder)?;
    let namespace: Namespace = NAMESPACE.parse()?;
    let worker: WorkerName = raw::WORKER.parse()?;
    let opened = store.apply(vec![raw::open_session(&namespace, worker.clone())?]).await?;
    let Some(Ok(Reply::Session(epoch, _))) = opened.into_iter().next() else { bail!("no session") };
    let by = WorkerRef { worker, epoch };
    for _ in 0..rounds {
        let creations = (0..TASKS).map(|_| raw::create(uuid::Uuid::now_v7(), &namespace, &by)).collect();
        let mut ends = Vec::with_capacity(2 * TASKS);
        for reply in store.apply(creations).await? {
            let Ok(Reply::Created(made)) = reply else { bail!("not created") };
            let attempt = AttemptRef { by: by.clone(), fence: made.fence };
            ends.extend(raw::end(made.id, &namespace, &attempt));
        }
        if store.apply(ends).await?.iter().any(Result::is_err) {
            bail!("not finished");
        }
    }
    store.close().await;
    Ok(())
}

/// Starts a control plane whose workers have so many slots together.
async fn start(folder: &Path, slots: usize) -> Result<Plane> {
    // No heartbeats: their number depends on time.
    let timing = Timing { heartbeat: HOUR, heartbeat_timeout: 2 * HOUR, ..Timing::default() };
    Plane::with_timing(open(folder)?, folder, WORKERS, slots / WORKERS, timing).await
}

async fn workflow(rounds: usize, folder: &Path) -> Result<()> {
    let plane = start(folder, CLIENTS).await?;
    let graph = Shape::Wide.graph(rounds * TASKS, 0);
    let created = plane.workers.client.create_workflow(request(&graph)).await?;
    succeeded(&plane.workers, created.name).await?;
    plane.stop().await;
    Ok(())
}

async fn control_plane(rounds: usize, folder: &Path) -> Result<()> {
    let plane = start(folder, WORKERS * CLIENTS).await?;
    let workers = &plane.workers;
    for done in (CLIENTS..=rounds * TASKS).step_by(CLIENTS) {
        let create = |_| async {
            let mut service = workers.client.tasks();
            service.create_task(task()).await
        };
        try_join_all((0..CLIENTS).map(create)).await?;
        workers.attempts.reach(done as u64).await?;
    }
    settled(&workers.client, &workers.attempts, (rounds * TASKS) as u64).await?;
    plane.stop().await;
    Ok(())
}
