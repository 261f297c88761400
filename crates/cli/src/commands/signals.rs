//! Shutdown signals: the first Ctrl-C, SIGTERM or SIGHUP is graceful, the second forces exit. Also Ctrl-C for commands
//! that only follow something.

use std::io;

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
        let mut signals = Signals::listen()?;
        let tokens = shutdown.clone();
        spawn("signals", OnExit::Done, async move {
            signals.received().await;
            tokens.graceful.cancel();
            signals.received().await;
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

/// Signals that request a shutdown.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// A closed terminal; `None` under `nohup`.
    hangup: Option<Signal>,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let hangup = if is_hangup_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        let [interrupt, terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        Ok(Self { interrupt: interrupt?, terminate: terminate?, hangup })
    }

    async fn received(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Whether the parent asked to survive its terminal, as `nohup` does. A handler would undo it.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit is signal 1.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
