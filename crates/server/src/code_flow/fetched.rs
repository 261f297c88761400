//! A value of another server that is fetched again once it is old, by the caller that needs it then.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Age at which the value is fetched again.
const REFRESH: Duration = Duration::from_secs(3600);
/// Time between two attempts, unless the first one has succeeded.
const RETRY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Fetched<T> {
    value: Option<T>,
    /// When it is fetched next; unset before the first time.
    next: Option<Instant>,
}

impl<T> Default for Fetched<T> {
    fn default() -> Self {
        Self { value: None, next: None }
    }
}

impl<T: Clone> Fetched<T> {
    /// Returns the value, after an attempt to fetch it if that is due. Without an answer the last value stays.
    pub(super) async fn get<E>(&mut self, fetch: impl Future<Output = Result<T, E>>) -> Option<T> {
        if self.next.is_none_or(|next| next <= Instant::now()) {
            // Before the answer: callers who hang up cause no more requests than others.
            self.next = Some(Instant::now() + RETRY);
            let fetched = fetch.await;
            let delay = if fetched.is_ok() { REFRESH } else { RETRY };
            self.next = Some(Instant::now() + delay);
            self.value = fetched.ok().or_else(|| self.value.take());
        }
        self.value.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    async fn unexpected() -> Result<u8, ()> {
        panic!("fetched before that is due")
    }

    #[tokio::test(start_paused = true)]
    async fn failed_refresh_keeps_the_value() {
        let mut fetched = Fetched::default();
        assert_eq!(fetched.get(async { Err::<u8, _>(()) }).await, None);
        assert_eq!(fetched.get(unexpected()).await, None);
        tokio::time::advance(RETRY).await;
        assert_eq!(fetched.get(async { Ok::<_, ()>(1) }).await, Some(1));
        tokio::time::advance(REFRESH - RETRY).await;
        assert_eq!(fetched.get(unexpected()).await, Some(1));
        tokio::time::advance(RETRY).await;
        assert_eq!(fetched.get(async { Err(()) }).await, Some(1));
        assert_eq!(fetched.get(unexpected()).await, Some(1));
        tokio::time::advance(RETRY).await;
        assert_eq!(fetched.get(async { Ok::<_, ()>(2) }).await, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn abandoned_refresh_keeps_the_value_and_the_delay() {
        let mut fetched = Fetched::default();
        assert_eq!(fetched.get(async { Ok::<_, ()>(1) }).await, Some(1));
        tokio::time::advance(REFRESH).await;
        let hangs = fetched.get(pending::<Result<u8, ()>>());
        assert!(tokio::time::timeout(Duration::from_secs(1), hangs).await.is_err());
        assert_eq!(fetched.get(unexpected()).await, Some(1));
        tokio::time::advance(RETRY).await;
        assert_eq!(fetched.get(async { Ok::<_, ()>(2) }).await, Some(2));
    }
}
