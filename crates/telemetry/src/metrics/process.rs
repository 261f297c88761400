//! What the operating system tells of this process, read when somebody asks. The names are those that every
//! Prometheus client gives them.

use procfs::process::{LimitValue, Process as Own};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Cpu,
    Resident,
    Virtual,
    Started,
    Threads,
    Open,
    MayOpen,
}

/// One figure.
pub(super) struct Figure {
    what: What,
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

const fn figure(what: What, name: &'static str, help: &'static str) -> Figure {
    Figure { what, name, help }
}

pub(super) const FIGURES: &[Figure] = &[
    figure(What::Cpu, "process_cpu", "Processor time that the process has used"),
    figure(What::Resident, "process_resident_memory", "Memory that the process holds"),
    figure(What::Virtual, "process_virtual_memory", "Addresses that the process has reserved"),
    figure(What::Started, "process_start_time", "When the process started, since the Unix epoch"),
    figure(What::Threads, "process_threads", "Threads of the process"),
    figure(What::Open, "process_open_fds", "Files and sockets that the process has open"),
    figure(What::MayOpen, "process_max_fds", "Files and sockets that the process may have open"),
];

impl Figure {
    pub(super) fn kind(&self) -> &'static str {
        if self.what == What::Cpu { "counter" } else { "gauge" }
    }

    pub(super) fn unit(&self) -> Option<Unit> {
        match self.what {
            What::Cpu | What::Started => Some(Unit::Seconds),
            What::Resident | What::Virtual => Some(Unit::Bytes),
            What::Threads | What::Open | What::MayOpen => None,
        }
    }
}

/// Gives the figures; those that cannot be read are left out.
#[derive(Debug)]
pub(super) struct Process;

#[expect(clippy::cast_precision_loss, reason = "a figure on a page need not be exact beyond 2^53")]
fn read(own: &Own, stat: &procfs::process::Stat, what: What) -> Option<f64> {
    let ticks = procfs::ticks_per_second() as f64;
    Some(match what {
        What::Cpu => (stat.utime + stat.stime) as f64 / ticks,
        What::Resident => stat.rss.saturating_mul(procfs::page_size()) as f64,
        What::Virtual => stat.vsize as f64,
        What::Started => {
            let booted = procfs::boot_time_secs().ok()?;
            booted as f64 + stat.starttime as f64 / ticks
        }
        What::Threads => stat.num_threads as f64,
        What::Open => own.fd_count().ok()? as f64,
        What::MayOpen => match own.limits().ok()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => limit as f64,
            LimitValue::Unlimited => f64::INFINITY,
        },
    })
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Ok(own) = Own::myself() else { return Ok(()) };
        let Ok(stat) = own.stat() else { return Ok(()) };
        for figure in FIGURES {
            let Some(value) = read(&own, &stat, figure.what) else { continue };
            let (counter, gauge) = (ConstCounter::new(value), ConstGauge::new(value));
            let metric: &dyn EncodeMetric = if figure.kind() == "counter" { &counter } else { &gauge };
            let unit = figure.unit();
            let help = format!("{}.", figure.help);
            let encoder =
                encoder.encode_descriptor(figure.name, &help, unit.as_ref(), metric.metric_type())?;
            metric.encode(encoder)?;
        }
        Ok(())
    }
}
