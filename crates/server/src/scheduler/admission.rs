//! Admission control: whether an agent's workers get tasks at all. Set by the circuit breaker, enforced here; the
//! reasons are the breaker's.

/// Admission of an agent, a worker, or all users of a credential or a back end. The greater, the less is admitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Admission {
    /// As many tasks as there are free slots.
    #[default]
    Open,
    /// A single task, which probes whether the agent works again.
    Probe,
    /// No task until the outcome of the probe is known.
    ProbeInFlight,
    /// No task, until the cooldown is over.
    Closed,
}

impl Admission {
    /// Returns how many of the free slots may be given out.
    pub(super) fn limit(self, free: usize) -> usize {
        match self {
            Self::Open => free,
            Self::Probe => free.min(1),
            Self::ProbeInFlight | Self::Closed => 0,
        }
    }
}
