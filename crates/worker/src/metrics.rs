//! CPU and memory usage of the worker and its processes, for heartbeats. Sampled off the hot path.

use rota_proto::num::to_i64;
use rota_proto::worker::v1::WorkerHeartbeat;
use sysinfo::System;

use crate::supervise::tree;

/// Takes samples. CPU usage is averaged since the previous sample.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    system: System,
}

impl Sampler {
    /// Takes a sample. Blocks for a few milliseconds.
    pub(crate) fn sample(&mut self) -> WorkerHeartbeat {
        self.system.refresh_cpu_usage();
        let cpu = f64::from(self.system.global_cpu_usage()) / 100.0;
        WorkerHeartbeat {
            cpu: if cpu.is_finite() { cpu.clamp(0.0, 1.0) } else { 0.0 },
            memory_bytes: memory(),
        }
    }
}

/// Resident memory of this process and its descendants.
fn memory() -> i64 {
    let me = nix::unistd::Pid::this().as_raw();
    let own = procfs::process::Process::myself().and_then(|me| me.stat()).map_or(0, |stat| stat.rss);
    let below: u64 = tree::descendants(me).iter().map(|info| info.rss_pages).sum();
    to_i64((own + below).saturating_mul(procfs::page_size()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn sample_has_plausible_values() {
        let sample = super::Sampler::default().sample();
        assert!((0.0..=1.0).contains(&sample.cpu));
        assert!(sample.memory_bytes > 1 << 20);
    }
}
