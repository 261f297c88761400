//! Attempts whose programs the kernel killed for lack of memory, which looks like any other crash.

use nix::libc::SIGKILL;
use rota_proto::v1::Failure;
use rota_telemetry::memory;

use crate::runtimes::{RunOutcome, RunReport};
use crate::supervise::Group;

/// Exit code of a shell whose last program was killed.
const KILLED: i32 = 128 + SIGKILL;
const HINT: &str = "give the worker more memory, run fewer slots on its machine, or let the task use less";

/// Number of processes that the kernel had killed for lack of memory when an attempt began, on the whole machine or in the worker's
/// container: attempts without a control group of their own share it.
pub(super) struct OutOfMemoryKills(u64);

impl OutOfMemoryKills {
    pub(super) fn so_far() -> Self {
        Self(memory::kills())
    }

    /// Adds the cause to the failure of a program that was killed while the number grew.
    pub(super) fn explain(&self, report: &mut RunReport) {
        if let RunOutcome::Failed(failed) = &mut report.outcome
            && was_killed(failed)
            && Group::current_out_of_memory().unwrap_or_else(|| Self::so_far().0 > self.0)
        {
            failed.message = format!("{} (the kernel killed a process for lack of memory)", failed.message);
            failed.hint = HINT.to_owned();
        }
    }
}

fn was_killed(failed: &Failure) -> bool {
    failed.signal == Some(SIGKILL) || failed.exit_code == Some(KILLED)
}
