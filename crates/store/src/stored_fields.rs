//! Check that the fields of stored records change only with the number of the schema: a version that does not know a field drops it from
//! each record that it writes.

use rota_core::agent::Agent;
use rota_core::failure::{Class, Failure};
use rota_core::quota::{CoolDown, ModelAccess, Probe, QuotaWait};
use rota_core::retry::{Escalation, Policy};
use rota_core::spending::{Account, Budget, BudgetWait, Period, Scope, WhenExhausted};
use rota_core::target::{Route, Target};
use rota_core::task::{self, Task};
use rota_core::usage::Usage;
use rota_core::workflow::{self, Workflow};
use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

use crate::{Document, DocumentKey, DocumentKind, FollowUp, Session, Span};

const EXPECTED: &str = include_str!("stored_fields.txt");

/// Collects the names of the fields of a type, or of its variants.
struct Names<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.0.extend(fields);
        Err(Error::custom("only names are of interest"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_struct(name, variants, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("neither a struct nor an enum"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

fn line<T: for<'de> Deserialize<'de>>(name: &str) -> String {
    let mut names = Vec::new();
    let _ = T::deserialize(Names(&mut names));
    assert!(!names.is_empty(), "{name} has no fields");
    format!("{name}: {}\n", names.join(" "))
}

macro_rules! lines {
    ($($type:ty),* $(,)?) => { [$(line::<$type>(stringify!($type))),*].concat() };
}

#[test]
fn stored_fields_change_with_the_schema() {
    let found = lines![
        Account,
        Agent,
        Budget,
        BudgetWait,
        Class,
        CoolDown,
        Document,
        DocumentKey,
        DocumentKind,
        Escalation,
        Failure,
        FollowUp,
        ModelAccess,
        Period,
        Policy,
        Probe,
        QuotaWait,
        Route,
        Scope,
        Session,
        Span,
        Target,
        Task,
        Usage,
        WhenExhausted,
        Workflow,
        task::Answered,
        task::Assignment,
        task::Body,
        task::Dependency,
        task::DependencyState,
        task::Desired,
        task::Event,
        task::Limits,
        task::LostAttempt,
        task::OnFailure,
        task::Own,
        task::Progress,
        task::Question,
        task::Refusal,
        task::RuntimeSession,
        task::State,
        task::StateChange,
        task::Stopping,
        task::Storing,
        task::Superseded,
        task::Trace,
        task::Undelivered,
        workflow::Group,
        workflow::Kind,
        workflow::Outcome,
        workflow::Parent,
        workflow::Place,
        workflow::Resolution,
        workflow::Resolved,
        workflow::State,
        workflow::Step,
        workflow::StepRef,
        workflow::StepState,
        workflow::TemplateRef,
    ];
    assert!(
        found == EXPECTED,
        "stored fields have changed: raise the number of the schema by a migration of each SQL store, an empty one if need be, unless an \
         unreleased one has raised it; then make crates/store/src/stored_fields.txt:\n{found}"
    );
}
