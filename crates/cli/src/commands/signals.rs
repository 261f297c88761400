//! Being told to end: Ctrl-C or SIGTERM, once for in order, twice for at once. And Ctrl-C for commands that
//! only follow.

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

/// Ctrl-C while a command follows something. Heard from when this is made, also while the command is busy
/// with something else; a new `ctrl_c()` each time would miss what comes in between.
#[derive(Debug)]
pub struct Interrupt(Signal);

impl Interrupt {
    /// Listens from now on.
    pub fn listen() -> std::io::Result<Self> {
        signal(SignalKind::interrupt()).map(Self)
    }

    /// Waits for it.
    pub async fn heard(&mut self) {
        self.0.recv().await;
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
