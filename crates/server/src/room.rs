//! Room of the store on its volume, as it was last measured.

use std::time::Duration;

use rota_core::rank::Priority;
use rota_store::StoreSpace;
use tokio::time::Instant;
use tonic::Status;

use crate::health;
use crate::wire::status;

/// Time with a nearly full volume after which what is left of it is kept for results. A shorter one costs no log.
const MAX_LOW: Duration = Duration::from_secs(120);

/// Returns the refusal of a new task, if there is no room for it: what is left of scarce room is kept for urgent ones.
pub(crate) fn refusal(space: Option<StoreSpace>, priority: Priority) -> Option<Status> {
    let space =
        space.filter(|space| space.is_nearly_full() || (priority <= Priority::LOW && space.is_scarce()))?;
    let why = health::describe_space(&space);
    let why = match space.is_nearly_full() {
        true => why,
        false => format!("no tasks of low priority (0 to 2) are accepted: {why}"),
    };
    Some(status::hinted("STORE_NEARLY_FULL", why, health::SPACE_HINT))
}

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

    #[test]
    fn low_priority_is_refused_first() {
        let reason = |free: u64, priority: i32| {
            let space = StoreSpace { volume: 2000, free, ..StoreSpace::default() };
            let refused = refusal(Some(space), Priority::new(priority).unwrap());
            refused.map(|status| status.message().contains("low priority"))
        };
        assert_eq!((reason(200, 0), reason(200, 10)), (None, None));
        assert_eq!((reason(199, 0), reason(199, 2)), (Some(true), Some(true)));
        assert_eq!((reason(199, 3), reason(100, 10)), (None, None));
        assert_eq!((reason(99, 0), reason(99, 10)), (Some(false), Some(false)));
        assert!(refusal(None, Priority::LOW).is_none(), "a store without files");
    }
}
