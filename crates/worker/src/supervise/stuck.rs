//! Processes of ended attempts that cannot be ended. A worker that has some takes no tasks: they use its memory, its slots
//! and the directories of their attempt.

use parking_lot::Mutex;

/// Descriptions of those of this process's programs.
static STUCK: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Registers processes as stuck until it is dropped.
#[derive(Debug)]
pub(super) struct Stuck(String);

impl Stuck {
    pub(super) fn new(processes: String) -> Self {
        STUCK.lock().push(processes.clone());
        Self(processes)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let mut all = STUCK.lock();
        if let Some(index) = all.iter().position(|one| *one == self.0) {
            all.swap_remove(index);
        }
    }
}

/// Returns processes that cannot be ended, if there are any.
pub fn stuck() -> Option<String> {
    STUCK.lock().first().cloned()
}
