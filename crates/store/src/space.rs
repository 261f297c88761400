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
}
