//! Time without a session: reconnecting with backoff, and the agent's disconnect policy.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use rota_proto::v1::OnDisconnect;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::connect::{ConnectError, Connection, Credentials, Refusal, connect};
use super::handle::StopReason;
use super::outbound::{EARLIEST_VERSION, PROTOCOL_VERSION};
use super::worker::Worker;

impl Worker {
    /// Opens a session, with backoff and without limit. `None` when nothing is left to do.
    pub(super) async fn open_session(
        &mut self,
        shutdown: &CancellationToken,
    ) -> Result<Option<Connection>, Error> {
        let mut version = PROTOCOL_VERSION;
        loop {
            // Also again, if the disk did not take them.
            self.leave_results();
            if self.epoch.is_some() {
                let delay = self.reconnect_delays.next().unwrap_or_default();
                if self.wait_disconnected(sleep(delay), shutdown).await.is_none() {
                    return Ok(None);
                }
            }
            let credentials =
                Credentials { token: self.options.token.clone(), file: self.options.token_file.clone() };
            let channel = self.options.channel.clone();
            let connecting = connect(&channel, credentials, self.hello(version));
            match self.wait_disconnected(connecting, shutdown).await {
                None => return Ok(None),
                Some(Ok(connection)) => return Ok(Some(connection)),
                Some(Err(ConnectError::Replaced)) => return Err(self.on_replaced().await),
                // Also of one that had a session: it was meant.
                Some(Err(ConnectError::Revoked)) => return Err(self.on_revoked().await),
                Some(Err(ConnectError::OtherVersion(_))) if version > EARLIEST_VERSION => {
                    tracing::info!(
                        version,
                        "the control plane does not support this version of the protocol"
                    );
                    version = EARLIEST_VERSION;
                    continue;
                }
                Some(Err(ConnectError::Refused(refusal) | ConnectError::OtherVersion(refusal))) => {
                    let Refusal { code, message, permanent } = refusal;
                    let since = *self.refused_since.get_or_insert_with(Instant::now);
                    // A worker that had a session once is refused by mistake: by a proxy, a role that was changed, a token
                    // verifier without its keys, a control plane of another version. That must not cost what runs.
                    let ends = permanent && self.epoch.is_none();
                    if ends || since.elapsed() >= self.options.orphan_timeout {
                        tracing::error!(?code, message, "the control plane rejected this worker");
                        self.stop_all_and_wait().await;
                        return Err(Error::Refused { code, message });
                    }
                    tracing::warn!(?code, message, running = self.running, "session rejected, retrying");
                }
                Some(Err(ConnectError::Unreachable(error))) => {
                    self.refused_since = None;
                    tracing::warn!(error, "failed to open a session, retrying");
                }
            }
            if self.epoch.is_none() {
                let delay = self.reconnect_delays.next().unwrap_or_default();
                if self.wait_disconnected(sleep(delay), shutdown).await.is_none() {
                    return Ok(None);
                }
            }
        }
    }

    /// Awaits a future while disconnected. `None` when nothing is left to do.
    async fn wait_disconnected<F: Future>(
        &mut self,
        future: F,
        shutdown: &CancellationToken,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            if self.is_done() {
                return None;
            }
            let timer = self.timer();
            let stop_now = self.options.stop_now.clone();
            tokio::select! {
                output = &mut future => return Some(output),
                Some(event) = self.attempt_events.recv() => self.apply_attempt_event(event),
                () = shutdown.cancelled(), if !self.draining || self.options.only_store => self.shut_down(),
                () = stop_now.cancelled(), if self.give_up_at.is_none() => self.stop_now(),
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => self.tick(),
            }
        }
    }

    /// Returns the next time at which `tick` has work while disconnected.
    fn timer(&self) -> Option<Instant> {
        let after = |time: Duration| self.disconnected_at.and_then(|at| at.checked_add(time));
        let lease = after(self.reconnect_grace).filter(|_| !self.lease_expired);
        let orphan = after(self.options.orphan_timeout).filter(|_| !self.orphaned);
        let late = self.give_up_at.filter(|at| *at > Instant::now());
        lease.into_iter().chain(orphan).chain(late).min()
    }

    fn tick(&mut self) {
        let Some(disconnected_at) = self.disconnected_at else { return };
        let away = disconnected_at.elapsed();
        if away >= self.reconnect_grace && !std::mem::replace(&mut self.lease_expired, true) {
            match self.on_disconnect {
                OnDisconnect::Pause => self.attempts.values().for_each(|entry| entry.handle.set_paused(true)),
                OnDisconnect::Stop => self.stop_working(StopReason::Disconnected),
                OnDisconnect::Unspecified | OnDisconnect::Continue => {}
            }
        }
        if away >= self.options.orphan_timeout && !std::mem::replace(&mut self.orphaned, true) {
            tracing::error!(
                running = self.running,
                "orphaned: ending all attempts after too long without a control plane"
            );
            self.stop_all(StopReason::Disconnected);
        }
    }
}

/// Reconnect backoff: jittered, so that workers do not reconnect in step, and without a limit of attempts.
pub(super) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(3))
        .without_max_times()
        .with_jitter()
        .build()
}
