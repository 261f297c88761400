//! Conditions of a status. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rota_crds::resource::Condition;

/// What the conditions of one status have in common.
pub(crate) struct Conditions<'a> {
    /// Those that the status had before.
    pub old: &'a [Condition],
    pub generation: Option<i64>,
    pub reason: String,
    pub message: String,
    pub now: Timestamp,
}

impl Conditions<'_> {
    /// Adds a condition, unless it never held. Its transition time is kept while its status does not change.
    pub(crate) fn put(&self, built: &mut Vec<Condition>, type_: &str, holds: bool) {
        if holds || self.before(type_).is_some() {
            self.put_always(built, type_, holds);
        }
    }

    /// Adds a condition, also one that never held.
    pub(crate) fn put_always(&self, built: &mut Vec<Condition>, type_: &str, holds: bool) {
        let status = if holds { "True" } else { "False" };
        let before = self.before(type_);
        let since =
            before.filter(|before| before.status == status).map(|before| before.last_transition_time.clone());
        built.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: self.reason.clone(),
            message: self.message.clone(),
            observed_generation: self.generation,
            last_transition_time: since.unwrap_or(Time(self.now)),
        });
    }

    fn before(&self, type_: &str) -> Option<&Condition> {
        self.old.iter().find(|condition| condition.type_ == type_)
    }
}
