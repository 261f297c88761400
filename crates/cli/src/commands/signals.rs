//! Shutdown signals: the first Ctrl-C or SIGTERM is graceful, the second forces exit. Also Ctrl-C for commands
//! that only follow something.

use rota_telemetry::{OnExit, spawn};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Shutdown of a component, requested by signals.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled by the first signal.
    pub graceful: CancellationToken,
    /// Cancelled by the second signal.
    pub forced: CancellationToken,
}

impl Shutdown {
    /// Registers the signal handlers; signals are caught from now on.
    pub fn listen() -> std::io::Result<Self> {
        let shutdown = Self::default();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let tokens = shutdown.clone();
        spawn("signals", OnExit::Done, async move {
            either(&mut interrupt, &mut terminate).await;
            tokens.graceful.cancel();
            either(&mut interrupt, &mut terminate).await;
            tokens.forced.cancel();
        });
        Ok(shutdown)
    }
}

/// Ctrl-C while a command follows something. Caught from its creation on, also while the command is busy; a new
/// `ctrl_c()` for each wait would miss signals in between.
#[derive(Debug)]
pub struct Interrupt(Signal);

impl Interrupt {
    pub fn listen() -> std::io::Result<Self> {
        signal(SignalKind::interrupt()).map(Self)
    }

    pub async fn received(&mut self) {
        self.0.recv().await;
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
