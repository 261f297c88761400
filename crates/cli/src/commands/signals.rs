//! Being told to end: Ctrl-C or SIGTERM, once for in order, twice for at once.

use rota_telemetry::{OnExit, spawn};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled by the first signal, and by the second.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub to_end: CancellationToken,
    pub at_once: CancellationToken,
}

impl Told {
    /// Listens from now on.
    pub fn listen() -> std::io::Result<Self> {
        let told = Self::default();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let tokens = told.clone();
        spawn("signals", OnExit::Done, async move {
            either(&mut interrupt, &mut terminate).await;
            tokens.to_end.cancel();
            either(&mut interrupt, &mut terminate).await;
            tokens.at_once.cancel();
        });
        Ok(told)
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
