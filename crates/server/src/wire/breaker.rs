//! Circuit breakers of agents as messages.

use rota_core::breaker::{Breaker, State as BreakerState};
use rota_proto::{names, num, v1};

use super::{failure, time};
use crate::keys::AgentKey;

/// Converts the circuit breaker of an agent.
pub(crate) fn to_wire((key, breaker): (AgentKey, Breaker)) -> v1::Breaker {
    let (state, open_until_time) = match breaker.state() {
        BreakerState::Closed => (v1::BreakerState::Closed, None),
        BreakerState::Open { until } => (v1::BreakerState::Open, Some(time::timestamp(until))),
        BreakerState::HalfOpen { .. } => (v1::BreakerState::HalfOpen, None),
    };
    let class = breaker.last().map(|(class, _)| failure::class(*class));
    v1::Breaker {
        agent: names::agent(key.0.as_str(), &key.1),
        state: state.into(),
        failures: num::to_i32(breaker.failures()),
        failure_class: class.unwrap_or_default().into(),
        message: breaker.last().map(|(_, message)| message.clone()).unwrap_or_default(),
        open_until_time,
    }
}
