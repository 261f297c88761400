//! Order of ready tasks: a static key, so that waiting raises a task's rank without an update.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Waiting time after which a task overtakes one whose priority is higher by one.
pub const HEAD_START: Duration = Duration::from_secs(60);

/// Priority of a task, from 0 (last) to 10 (first).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(u8);

impl Priority {
    pub const LOW: Self = Self(2);
    pub const NORMAL: Self = Self(5);
    pub const HIGH: Self = Self(8);
    pub const URGENT: Self = Self(10);

    /// Returns the priority, if the value is in range.
    pub fn new(value: i32) -> Option<Self> {
        u8::try_from(value).ok().filter(|value| *value <= 10).map(Self)
    }

    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::NORMAL
    }
}

/// Returns the sort key of a ready task, lowest first: `ready_at − priority × HEAD_START`, in microseconds.
pub fn rank(ready_at: Timestamp, priority: Priority) -> i64 {
    (ready_at - HEAD_START * u32::from(priority.0)).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_overtakes_priority() {
        let now = Timestamp(1_000_000_000_000);
        let low = rank(now, Priority::LOW);
        assert!(rank(now, Priority::HIGH) < low);
        assert!(rank(now + HEAD_START * 6 + Duration::from_micros(1), Priority::HIGH) > low);
    }
}
