//! Data of a result against the schema that its task asks for. Knows no runtime.

use jsonschema::PatternOptions;
use rota_proto::limits::COMPILED_PATTERN_BYTES;
use rota_proto::result_schema;
use rota_proto::v1::{Failure, TaskResult};
use rota_proto::worker::v1::Assign;

use crate::runtimes::{RunOutcome, RunReport, structs};

/// Fails an attempt whose result has other data than its task asks for.
pub(super) fn check(assign: &Assign, report: &mut RunReport) {
    if let RunOutcome::Succeeded(result) = &report.outcome
        && let Some(failed) = mismatch(assign, result)
    {
        report.outcome = RunOutcome::Failed(failed);
    }
}

fn mismatch(assign: &Assign, result: &TaskResult) -> Option<Failure> {
    let schema = structs::to_json(assign.spec.as_ref()?.result_schema.as_ref()?);
    let data = result.data.as_ref().map_or(serde_json::Value::Null, structs::to_json);
    // In linear time: both schema and data are of others. The control plane bounds their number.
    let patterns =
        PatternOptions::regex().size_limit(COMPILED_PATTERN_BYTES).dfa_size_limit(COMPILED_PATTERN_BYTES);
    match jsonschema::options().with_pattern_options(patterns).build(&schema) {
        // The control plane has checked it.
        Err(error) => Some(result_schema::unusable(&error.to_string())),
        Ok(validator) => {
            validator.validate(&data).err().map(|error| result_schema::mismatch(&error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{FailureClass, TaskSpec};
    use serde_json::{Value, json};

    use super::*;

    fn failed(schema: Value, data: Value) -> Option<Failure> {
        let spec =
            TaskSpec { result_schema: structs::from_json(schema).map(Box::new), ..TaskSpec::default() };
        let assign = Assign { spec: Some(spec), ..Assign::default() };
        let result = TaskResult { data: structs::from_json(data), ..TaskResult::default() };
        mismatch(&assign, &result)
    }

    #[test]
    fn data_must_fit_the_schema() {
        let schema = json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 3}}});
        assert!(failed(schema.clone(), json!({"n": 3})).is_none());
        for data in [json!({"n": 2}), json!({"n": "3"}), json!({}), Value::Null] {
            let failed = failed(schema.clone(), data.clone()).unwrap();
            assert_eq!(failed.class(), FailureClass::Agent, "{data}");
        }
        assert!(failed(Value::Null, Value::Null).is_none(), "no schema, no check");
    }

    #[test]
    fn patterns_do_not_backtrack() {
        let schema = |pattern: &str| json!({"properties": {"a": {"pattern": pattern}}});
        let long = json!({"a": "a".repeat(100_000)});
        let mismatched = failed(schema("^(([a-z])+.)+[A-Z]([a-z])+$"), long.clone()).unwrap();
        assert_eq!(mismatched.class(), FailureClass::Agent);
        let unusable = failed(schema("^(?=a)b"), long).unwrap();
        assert_eq!(unusable.class(), FailureClass::Invalid, "from before the control plane checked it");
    }
}
