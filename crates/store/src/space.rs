//! Room of a store on its volume, and when it accepts nothing new.

/// Room of a store, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreSpace {
    /// Size of the store's files.
    pub size: u64,
    /// What is unused within them: removed records leave room for new ones.
    pub reusable: u64,
    /// What is free on their volume.
    pub free: u64,
    /// Size of the whole volume.
    pub volume: u64,
}

/// Files besides the database stop at this multiple of the room that is kept for results: they grow faster than the room is measured.
const RESERVES: u64 = 2;

impl StoreSpace {
    /// Room below which nothing new is accepted, so that what was accepted can be completed: a twentieth of the volume.
    pub fn needed(&self) -> u64 {
        (self.volume / 20).min(256 * 1024 * 1024)
    }

    /// Returns the room for new records.
    pub fn available(&self) -> u64 {
        self.free.saturating_add(self.reusable)
    }

    /// Whether the room is left to what is not of low priority: less than twice of what is needed.
    pub fn is_scarce(&self) -> bool {
        self.available() < self.needed().saturating_mul(2)
    }

    pub fn is_nearly_full(&self) -> bool {
        self.available() < self.needed()
    }

    /// Whether files besides the database may grow, such as artifacts and the full-text index, after so many bytes since the measurement.
    /// What is reusable within the database is of no use to them.
    pub fn has_room_for_others(&self, unmeasured: u64) -> bool {
        self.free.saturating_sub(unmeasured) >= self.needed().saturating_mul(RESERVES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_records_leave_room() {
        let gib = 1 << 30;
        let full = StoreSpace { size: gib, reusable: 0, free: gib / 20 - 1, volume: gib };
        assert!(full.is_nearly_full());
        assert!(!StoreSpace { reusable: 1, ..full }.is_nearly_full());
        assert!(StoreSpace { reusable: gib / 20, ..full }.is_scarce());
        assert!(!StoreSpace { reusable: gib / 20 + 1, ..full }.is_scarce());
        let large = StoreSpace { free: 1 << 28, volume: 1000 * gib, ..full };
        assert!(!large.is_nearly_full(), "a large volume keeps no more than is useful");
        assert!(StoreSpace { free: (1 << 28) - 1, ..large }.is_nearly_full());
        assert!(!StoreSpace::default().is_nearly_full(), "unknown");
    }

    #[test]
    fn reusable_room_is_none_for_other_files() {
        let gib = 1 << 30;
        let reserves = 2 * (gib / 20);
        let space = StoreSpace { size: 100 * gib, reusable: 90 * gib, free: reserves - 1, volume: gib };
        assert!(!space.is_scarce() && !space.has_room_for_others(0));
        let roomy = StoreSpace { free: reserves + 10, ..space };
        assert!(roomy.has_room_for_others(10) && !roomy.has_room_for_others(11));
        assert!(StoreSpace::default().has_room_for_others(0), "unknown");
    }
}
