//! Faults of the database itself: its volume is full, it is stopped or crashes. Also the way to its socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use rota_proto::v1;
use rota_telemetry::{OnExit, spawn};
use rota_testkit::postgres::Stop;
use rota_testkit::tasks;
use tokio::net::{TcpListener, UnixStream};
use tokio::time::sleep;

use super::World;
use crate::chaos::load::SCRIPTED;

/// Size of a prompt that needs further space on the volume of the database, in bytes.
const LARGE: usize = 1 << 19;

impl World {
    /// Fills the volume of the database. What is answered is not lost, and all else is refused with the reason.
    pub(super) async fn database_full(&mut self, random: &mut StdRng) -> Result<usize> {
        let client = self.replicas.fixture.impatient_client()?;
        self.server.fill()?;
        let until = tokio::time::Instant::now() + Duration::from_millis(random.random_range(2_000..6_000));
        let (mut refused, mut created) = (0, Vec::new());
        while tokio::time::Instant::now() < until {
            let mut task = tasks::scripted(SCRIPTED, []);
            // Such that the database cannot make it small.
            let prompt: String = (0..LARGE).map(|_| random.random_range('a'..='z')).collect();
            task.spec.get_or_insert_default().prompt = prompt;
            match tasks::create(&client, task).await {
                Ok(task) => created.push(task.name),
                Err(error) => {
                    let known = error.downcast_ref::<rota_client::Error>();
                    let full =
                        known.is_some_and(|known| known.reason.as_deref() == Some("STORE_UNAVAILABLE"));
                    ensure!(full && format!("{error:#}").contains("53100"), "{error:#}");
                    refused += 1;
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.server.free()?;
        let client = self.replicas.fixture.client()?;
        for name in &created {
            tasks::ended(&client, name).await?;
        }
        tasks::eventually("a database with room", async || {
            let status = client.get_system_status(v1::GetSystemStatusRequest {}).await?;
            Ok(status.causes.iter().all(|cause| !cause.message.contains("53100")))
        })
        .await?;
        Ok(refused)
    }

    pub(super) async fn database_away(&mut self, how: Stop, random: &mut StdRng) -> Result<usize> {
        let before = self.reconnections();
        self.server.stop(how)?;
        // For less than the lease, and longer than a call waits.
        sleep(Duration::from_millis(random.random_range(100..7_000))).await;
        self.server.resume()?;
        self.back(before).await?;
        Ok(1)
    }
}

/// Returns an address that leads to a socket of the database.
pub(super) async fn entrance(socket: PathBuf) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let addr = listener.local_addr()?;
    spawn("entrance", OnExit::Done, async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let socket = socket.clone();
            spawn("entered", OnExit::Done, async move {
                // A database that is away refuses, as it does on its own address.
                if let Ok(mut far) = UnixStream::connect(socket).await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    Ok(addr)
}
