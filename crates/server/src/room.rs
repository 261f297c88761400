//! Room of the store on its volume, as it was last measured.

use std::time::Duration;

use rota_store::StoreSpace;
use tokio::time::Instant;

/// Time with a nearly full volume after which what is left of it is kept for results. A shorter one costs no log.
const MAX_LOW: Duration = Duration::from_secs(120);

/// Room of the store when it was last measured.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Room {
    /// `None` before the first measurement, and for a store without files.
    space: Option<StoreSpace>,
    /// Since when the volume has been nearly full.
    low_since: Option<Instant>,
}

impl Room {
    pub(crate) fn measured(&mut self, space: Option<StoreSpace>, now: Instant) {
        let since = self.low_since.unwrap_or(now);
        self.low_since = space.filter(StoreSpace::is_nearly_full).map(|_| since);
        self.space = space;
    }

    pub(crate) fn space(&self) -> Option<StoreSpace> {
        self.space
    }

    pub(crate) fn is_kept_for_results(&self, now: Instant) -> bool {
        self.low_since.is_some_and(|since| now.duration_since(since) >= MAX_LOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_that_stays_nearly_full_is_kept_for_results() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let full = StoreSpace { volume: 100, free: 1, ..StoreSpace::default() };
        let roomy = StoreSpace { free: 50, ..full };
        let mut room = Room::default();
        room.measured(Some(full), at(0));
        room.measured(Some(full), at(119));
        assert!(!room.is_kept_for_results(at(119)) && room.is_kept_for_results(at(120)));
        room.measured(Some(roomy), at(125));
        room.measured(Some(full), at(130));
        assert!(!room.is_kept_for_results(at(240)), "it has had room");
    }
}
