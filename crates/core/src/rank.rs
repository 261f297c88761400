//! Order of ready tasks: a static key, so that waiting makes a task more urgent without any update.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// How long a task must wait to overtake one whose priority is higher by one.
pub const HEAD_START: Duration = Duration::from_secs(60);

/// From 0 (last) to 10 (first).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(u8);

impl Priority {
    /// 2.
    pub const LOW: Self = Self(2);
    /// 5.
    pub const NORMAL: Self = Self(5);
    /// 8.
    pub const HIGH: Self = Self(8);
    /// 10.
    pub const URGENT: Self = Self(10);

    /// A priority, if it is one.
    pub fn new(value: i32) -> Option<Self> {
        u8::try_from(value).ok().filter(|value| *value <= 10).map(Self)
    }

    /// As a number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::NORMAL
    }
}

/// The key by which ready tasks are taken, lowest first: `ready_at − priority × HEAD_START`, in microseconds.
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
