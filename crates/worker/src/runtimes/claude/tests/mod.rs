//! Attempts against a CLI that each test plays itself, over pipes in memory: no process is started.

mod ends;
mod stage;
mod talks;
