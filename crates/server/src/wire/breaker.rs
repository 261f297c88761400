//! Circuit breakers of agents and back ends as messages.

use rota_core::breaker::{Breaker, State as BreakerState};
use rota_proto::{names, num, v1};

use super::{failure, time};
use crate::breakers::Breakers;
use crate::keys::{AgentKey, BackendKey};

/// Converts all circuit breakers with failures to report.
pub(crate) fn all(breakers: &Breakers) -> Vec<v1::Breaker> {
    let of_agents = breakers.all().into_iter().map(to_wire);
    of_agents.chain(breakers.backends().into_iter().map(of_backend)).collect()
}

/// Converts the circuit breaker of an agent.
pub(crate) fn to_wire((key, breaker): (AgentKey, Breaker)) -> v1::Breaker {
    v1::Breaker { agent: names::agent(key.0.as_str(), &key.1), ..state(&breaker) }
}

/// Converts the circuit breaker of a back end.
pub(crate) fn of_backend((key, breaker): (BackendKey, Breaker)) -> v1::Breaker {
    let backend = format!("{}/backends/{}", names::namespace(key.0.as_str()), key.1);
    v1::Breaker { backend, ..state(&breaker) }
}

fn state(breaker: &Breaker) -> v1::Breaker {
    let (state, open_until_time) = match breaker.state() {
        BreakerState::Closed => (v1::BreakerState::Closed, None),
        BreakerState::Open { until } => (v1::BreakerState::Open, Some(time::timestamp(until))),
        BreakerState::HalfOpen { .. } => (v1::BreakerState::HalfOpen, None),
    };
    let class = breaker.last().map(|(class, _)| failure::class(*class));
    v1::Breaker {
        state: state.into(),
        failures: num::to_i32(breaker.failures()),
        failure_class: class.unwrap_or_default().into(),
        message: breaker.last().map(|(_, message)| message.clone()).unwrap_or_default(),
        open_until_time,
        ..v1::Breaker::default()
    }
}
