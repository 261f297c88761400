//! Time of the database, continued by a clock of this machine that is never set: control planes that follow each other on one
//! database have the same time. It never runs backwards, is never before the last commit, and continues where the database is set back.

use std::sync::atomic::{AtomicI64, Ordering};

use nix::time::{ClockId, clock_gettime};
use rota_core::Timestamp;

use crate::steady::SteadyTime;

#[derive(Debug, Default)]
pub(crate) struct DatabaseClock {
    /// Time of the database when the clock of this machine was zero, in microseconds.
    offset: AtomicI64,
    time: SteadyTime,
}

/// Microseconds since the machine was started, suspended times included.
pub(crate) fn since_boot() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
    time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_nsec() / 1000)
}

impl DatabaseClock {
    /// Takes over the time of the database, which was read between two times of this machine.
    pub(crate) fn sync(&self, database: i64, before: i64, after: i64) {
        self.offset.store(database - (before + (after - before) / 2), Ordering::Relaxed);
    }

    /// Never returns a time before this one.
    pub(crate) fn not_before(&self, time: Timestamp) {
        self.time.not_before(time.0, since_boot());
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.at(since_boot())
    }

    fn at(&self, since_boot: i64) -> Timestamp {
        let database = since_boot + self.offset.load(Ordering::Relaxed);
        Timestamp(self.time.at(database, since_boot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_follows_the_database_and_never_runs_backwards() {
        let clock = DatabaseClock::default();
        clock.sync(1_000_000, 100, 300);
        assert_eq!(clock.at(200), Timestamp(1_000_000));
        assert_eq!(clock.at(1200), Timestamp(1_001_000));
        // The database was set back, or an earlier owner had a clock that was ahead: what is due still comes.
        clock.sync(500_000, 1200, 1200);
        assert_eq!(clock.at(1200), Timestamp(1_001_000));
        assert_eq!(clock.at(2000), Timestamp(1_001_700));
        clock.time.not_before(2_000_000, 2000);
        assert_eq!(clock.at(2800), Timestamp(2_000_700));
        clock.sync(3_000_000, 2800, 2800);
        assert_eq!(clock.at(2900), Timestamp(3_000_100));
    }
}
