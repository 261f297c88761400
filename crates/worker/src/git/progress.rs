//! How long a call of git takes at most: one that fetches or pushes, as long as data move, whatever their amount.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::supervise::tree;

/// Longest time of a call, and of a fetch or a push in which nothing moves.
pub(super) const TIMEOUT: Duration = Duration::from_secs(900);
/// Longest time of a fetch or a push.
pub(crate) const MAX_TRANSFER_TIME: Duration = Duration::from_hours(6);
/// Interval between two looks at what has moved.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes that the processes of a push read and write in that time, at least, unless it stands still: SSH sends a little also
/// then.
const MIN_MOVED: u64 = 30_000;

/// Returns once a call has taken too long, with the reason.
pub(super) async fn expired() -> String {
    sleep(TIMEOUT).await;
    format!("timed out after {} s", TIMEOUT.as_secs())
}

/// Returns once a fetch has taken too long, with the reason. Reports the bytes that it has received so far, of which
/// `stored` returns how many are on the disk.
pub(super) async fn fetch_expired<F: Future<Output = u64>>(
    received: &watch::Sender<u64>,
    stored: impl Fn() -> F,
) -> String {
    let (before, began) = (stored().await, Instant::now());
    let (mut most, mut grown) = (before, began);
    loop {
        sleep(LOOK_INTERVAL).await;
        let now = stored().await;
        if now > most {
            (most, grown) = (now, Instant::now());
            received.send_replace(now - before);
        }
        if let Some(reason) = too_late("arrived", grown, began) {
            return reason;
        }
    }
}

/// Returns once a push has taken too long, with the reason. `moved` returns the bytes that its processes have read and written.
pub(super) async fn push_expired<F: Future<Output = u64>>(moved: impl Fn() -> F) -> String {
    let (mut last, began) = (moved().await, Instant::now());
    let mut grown = began;
    loop {
        sleep(LOOK_INTERVAL).await;
        let now = moved().await;
        // Also less: a process that has ended has done its part.
        if now.abs_diff(last) >= MIN_MOVED {
            grown = Instant::now();
        }
        last = now;
        if let Some(reason) = too_late("moved", grown, began) {
            return reason;
        }
    }
}

/// Returns why a transfer that began and last `grown` at these times ends, if it does.
fn too_late(what: &str, grown: Instant, began: Instant) -> Option<String> {
    if grown.elapsed() >= TIMEOUT {
        return Some(format!("nothing has {what} for {} s", TIMEOUT.as_secs()));
    }
    let hours = MAX_TRANSFER_TIME.as_secs() / 3600;
    (began.elapsed() >= MAX_TRANSFER_TIME).then(|| format!("not complete after {hours} h"))
}

/// Returns the bytes that a process and those below it have read and written. Where that is not to be seen, none.
pub(super) async fn moved(pid: i32) -> u64 {
    tokio::task::spawn_blocking(move || tree::transferred(pid)).await.unwrap_or_default()
}

/// Returns the bytes of the packs of a repository, also of one that is being received.
pub(super) async fn stored(repository: PathBuf) -> u64 {
    let folders = ["objects/pack", ".git/objects/pack"].map(|name| repository.join(name));
    let sum = tokio::task::spawn_blocking(move || {
        let entries = folders.iter().flat_map(std::fs::read_dir).flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
    });
    // A disk that does not answer is none that grows.
    timeout(LOOK_INTERVAL, sum).await.ok().and_then(Result::ok).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends the fetch of a repository that has received so many bytes at a time.
    async fn fetch(at: impl Fn(Duration) -> u64) -> (String, Duration, u64) {
        let (received, began) = (watch::Sender::new(0), Instant::now());
        let reason = fetch_expired(&received, || std::future::ready(100 + at(began.elapsed()))).await;
        (reason, began.elapsed(), *received.borrow())
    }

    #[tokio::test(start_paused = true)]
    async fn fetches_take_as_long_as_data_arrive() {
        let (reason, time, _) = fetch(|_| 0).await;
        assert!(reason.contains("900 s") && time < TIMEOUT + LOOK_INTERVAL, "{reason} {time:?}");
        let hours = Duration::from_hours(2);
        let (reason, time, received) = fetch(|time| time.min(hours).as_secs()).await;
        assert!(reason.contains("900 s") && time >= hours + TIMEOUT, "{reason} {time:?}");
        assert_eq!(received, hours.as_secs());
        let (reason, time, _) = fetch(|time| time.as_secs()).await;
        assert!(reason.contains("6 h") && time < MAX_TRANSFER_TIME + LOOK_INTERVAL, "{reason} {time:?}");
    }

    /// Ends a push whose processes have moved so many bytes at a time.
    async fn push(at: impl Fn(Duration) -> u64) -> (String, Duration) {
        let began = Instant::now();
        let reason = push_expired(|| std::future::ready(at(began.elapsed()))).await;
        (reason, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn pushes_take_as_long_as_data_move() {
        // What keeps a connection alive is no progress.
        let (reason, time) = push(|time| time.as_secs()).await;
        assert!(reason.contains("nothing has moved for 900 s"), "{reason}");
        assert!(time < TIMEOUT + LOOK_INTERVAL, "{time:?}");
        let (hours, rate) = (Duration::from_hours(2), MIN_MOVED);
        let (reason, time) = push(|time| time.min(hours).as_secs() * rate).await;
        assert!(reason.contains("900 s") && time >= hours + TIMEOUT, "{reason} {time:?}");
        let (reason, time) = push(|time| time.as_secs() * rate).await;
        assert!(reason.contains("6 h") && time < MAX_TRANSFER_TIME + LOOK_INTERVAL, "{reason} {time:?}");
    }

    #[tokio::test]
    async fn packs_that_are_being_received_count() {
        for folder in ["objects/pack", ".git/objects/pack"] {
            let repository = tempfile::tempdir().unwrap();
            let folder = repository.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("pack-1.pack"), [0; 5]).unwrap();
            std::fs::write(folder.join("tmp_pack_x"), [0; 7]).unwrap();
            assert_eq!(stored(repository.path().to_owned()).await, 12);
        }
    }
}
