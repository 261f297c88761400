//! Notices of a repository that takes long to fetch: the log of its task would be empty meanwhile.

use std::time::Duration;

use rota_proto::v1::{Severity, event};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::report::notice;

/// Time until the first notice, and the longest one between two, each of which is twice the one before.
const FIRST_INTERVAL: Duration = Duration::from_secs(60);
const MAX_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// Does what clones a repository, of which `received` has the bytes.
pub(super) async fn with_notices<T>(
    received: watch::Receiver<u64>,
    events: &mpsc::Sender<event::Kind>,
    clone: impl Future<Output = T>,
) -> T {
    let notices = async {
        let (mut wait, mut last) = (FIRST_INTERVAL, 0);
        loop {
            sleep(wait).await;
            wait = (wait * 2).min(MAX_INTERVAL);
            let bytes = *received.borrow();
            if bytes > last {
                last = bytes;
                let text = format!("fetching the repository: {} MiB so far", bytes >> 20);
                let _ = events.send(notice(Severity::Low, "repository_fetching", text)).await;
            }
        }
    };
    tokio::select! {
        biased;
        cloned = clone => cloned,
        never = notices => never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn long_fetches_are_noticed_at_growing_intervals() {
        let (received, events) = (watch::Sender::new(0), mpsc::channel(64));
        let fetch = async {
            for minute in 1..=120 {
                sleep(Duration::from_secs(59)).await;
                received.send_replace(minute << 20);
                sleep(Duration::from_secs(1)).await;
            }
        };
        with_notices(received.subscribe(), &events.0, fetch).await;
        let mut events = events.1;
        let texts: Vec<_> = std::iter::from_fn(|| match events.try_recv().ok()? {
            event::Kind::Notice(notice) => Some(notice.message),
            other => panic!("{other:?}"),
        })
        .collect();
        assert!(texts[0].contains("1 MiB") && texts[1].contains("3 MiB"), "{texts:?}");
        assert!((6..9).contains(&texts.len()), "{texts:?}");
        with_notices(received.subscribe(), &mpsc::channel(1).0, async {}).await;
    }
}
