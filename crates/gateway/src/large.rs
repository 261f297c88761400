//! Conversions of large messages of clients: on threads of their own, and few at a time, since what is read takes a multiple of its
//! bytes.

use std::sync::LazyLock;

use tokio::sync::Semaphore;

/// As many as half of the processors, at least one.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Semaphore::new(processors.div_ceil(2))
});

/// Does work in its turn, and returns its result; `None` if it has panicked.
pub(crate) async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let turn = TURNS.acquire().await.ok()?;
    // A caller that has left ends no work: its turn lasts as long as that.
    let work = move || {
        let _turn = turn;
        work()
    };
    tokio::task::spawn_blocking(work).await.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn large_messages_take_turns() {
        let turns = TURNS.available_permits();
        let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = |_| {
            let (running, peak) = (Arc::clone(&running), Arc::clone(&peak));
            in_turn(move || {
                peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Long enough for the others to begin, if they could.
                std::thread::sleep(std::time::Duration::from_millis(10));
                running.fetch_sub(1, Ordering::SeqCst);
            })
        };
        let done = join_all((0..4 * turns).map(work)).await;
        assert!(done.iter().all(Option::is_some));
        assert!(peak.load(Ordering::SeqCst) <= turns);
        let panicked: Option<()> = in_turn(|| panic!("a defect")).await;
        assert_eq!(panicked, None);
        assert_eq!(TURNS.available_permits(), turns, "a panic gives its turn back");
    }
}
