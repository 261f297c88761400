//! Tests of elements and memory of messages.

use pbjson_types::{ListValue, Struct, Value, value};
use rota_proto::v1::{self, Event, Notice, TaskResult, event, workflow_step};
use rota_proto::worker::v1::session_request::Kind;
use rota_proto::worker::v1::{Hello, Report, Result as AttemptResult, SessionRequest, result};

use super::*;

fn count(message: &[u8], most: usize) -> Result<usize, Excess> {
    let input = input("/rota.worker.v1.WorkerService/Session").unwrap();
    check(message, input, Bounds::elements(most))
}

fn check_message(kind: Kind, most: usize) -> Result<usize, Excess> {
    count(&SessionRequest { kind: Some(kind) }.encode_to_vec(), most)
}

#[test]
fn nested_elements_are_counted() {
    let events = vec![Event::default(); 10];
    let report = Kind::Report(Report { events, ..Report::default() });
    assert_eq!(check_message(report.clone(), 11), Ok(11));
    assert_eq!(check_message(report, 10), Err(Excess::TooMany));

    let hello = Kind::Hello(Box::new(Hello { capabilities: vec![String::new(); 10], ..Hello::default() }));
    assert_eq!(check_message(hello.clone(), 11), Ok(11));
    assert_eq!(check_message(hello, 10), Err(Excess::TooMany));

    let list = ListValue { values: vec![Value { kind: Some(value::Kind::BoolValue(true)) }; 100] };
    let list = Value { kind: Some(value::Kind::ListValue(list)) };
    let data = Struct { fields: [("list".to_owned(), list)].into() };
    let succeeded = TaskResult { data: Some(data), ..TaskResult::default() };
    let result = AttemptResult { kind: Some(result::Kind::Succeeded(succeeded)), ..AttemptResult::default() };
    assert!(check_message(Kind::Result(Box::new(result.clone())), 110).is_ok());
    assert_eq!(check_message(Kind::Result(Box::new(result)), 100), Err(Excess::TooMany));
}

#[test]
fn text_is_one_element_whatever_its_bytes() {
    let notice = Notice { message: "\n\0".repeat(1000), ..Notice::default() };
    let events = vec![Event { kind: Some(event::Kind::Notice(notice)), ..Event::default() }];
    assert_eq!(check_message(Kind::Report(Report { events, ..Report::default() }), 4), Ok(4));
}

#[test]
fn groups_and_truncated_messages_are_malformed() {
    for bytes in [&[0x0b, 0x0c][..], &[0x0a], &[0x0a, 0x05, 0x01], &[0x09, 0x01], &[0xff]] {
        assert_eq!(count(bytes, 100), Err(Excess::Malformed), "{bytes:?}");
    }
}

/// Returns the memory that a call's message takes by estimate.
fn memory(path: &str, message: &impl Message) -> usize {
    let mut left = Bounds::memory(usize::MAX);
    walk(&message.encode_to_vec(), input(path).unwrap().message, &mut left, 0).unwrap();
    usize::MAX - left.memory
}

#[test]
fn sizes_of_types_are_estimated_from_above() {
    let set = descriptors();
    let found = messages_of(&set);
    let mut sizes = Sizes::of(&found);
    for (name, size) in [
        (".rota.v1.CreateTaskRequest", size_of::<v1::CreateTaskRequest>()),
        (".rota.v1.UpdateScheduleRequest", size_of::<v1::UpdateScheduleRequest>()),
        (".rota.v1.UpdateAgentRequest", size_of::<v1::UpdateAgentRequest>()),
        (".rota.v1.TaskSpec", size_of::<v1::TaskSpec>()),
        (".rota.v1.WorkflowStep", size_of::<v1::WorkflowStep>()),
        (".rota.v1.WorkflowSpec", size_of::<v1::WorkflowSpec>()),
        (".rota.v1.Event", size_of::<Event>()),
        (".rota.v1.Dependency", size_of::<v1::Dependency>()),
        (".google.protobuf.Value", size_of::<Value>()),
    ] {
        let estimate = sizes.message(sizes.index[name]);
        assert!((size..=2 * size).contains(&estimate), "{name}: {estimate} for {size} bytes");
    }
}

/// What is on the heap without being listed as such is not counted.
#[test]
fn no_message_is_in_itself() {
    let set = descriptors();
    let found = messages_of(&set);
    let sizes = Sizes::of(&found);
    let inner = |message: usize| {
        let fields = found[message].1.field.iter().filter(|field| !is_list(field));
        fields.filter_map(|field| sizes.message_of(field)).collect::<Vec<_>>()
    };
    for message in 0..found.len() {
        let (mut seen, mut next) = (vec![false; found.len()], inner(message));
        while let Some(one) = next.pop() {
            assert_ne!(one, message, "{}", found[message].0);
            if !std::mem::replace(&mut seen[one], true) {
                next.extend(inner(one));
            }
        }
    }
}

#[test]
fn memory_grows_with_elements_and_not_with_texts() {
    let path = "/rota.v1.TaskService/BatchCreateTasks";
    let batch = |requests| v1::BatchCreateTasksRequest { requests, ..Default::default() };
    let one = || v1::CreateTaskRequest { parent: "x".repeat(1000), ..Default::default() };
    assert_eq!(memory(path, &batch(Vec::new())), 0);
    let each = size_of::<v1::CreateTaskRequest>();
    assert!(memory(path, &batch(vec![one()])) >= each);
    let thousand = memory(path, &batch(vec![one(); 1000]));
    assert!((1000 * each..4000 * each).contains(&thousand), "{thousand}");
    let expected_agents = vec![String::new(); 1000];
    let names = v1::BatchCreateTasksRequest { expected_agents, ..Default::default() };
    assert!(memory(path, &names) >= 1000 * size_of::<String>());
    // Numbers that are sent together, of a byte each.
    let filter = Some(v1::TaskFilter { states: vec![1; 1000], ..Default::default() });
    let list = v1::ListTasksRequest { filter, ..Default::default() };
    assert!(memory("/rota.v1.TaskService/ListTasks", &list) >= 1000 * size_of::<i32>());
    // An entry of a map has a node of its own, if it is the only one.
    let labels = [(String::new(), String::new())].into();
    let task = Some(v1::Task { labels, ..Default::default() });
    let labelled = v1::CreateTaskRequest { task, ..Default::default() };
    assert!(memory("/rota.v1.TaskService/CreateTask", &labelled) >= 11 * 2 * size_of::<String>());
}

#[test]
fn objects_are_estimated_closely_from_above() {
    let estimate = |inputs| {
        let spec = Some(v1::WorkflowSpec { inputs: Some(inputs), ..Default::default() });
        let workflow = Some(v1::Workflow { spec, ..Default::default() });
        let request = v1::CreateWorkflowRequest { workflow, ..Default::default() };
        memory("/rota.v1.WorkflowService/CreateWorkflow", &request)
    };
    let number = || Value { kind: Some(value::Kind::NumberValue(1.0)) };
    // A bucket has a byte for its state.
    let bucket = size_of::<(String, Value)>() + 1;
    let one = Struct { fields: [("x".to_owned(), number())].into() };
    let list = ListValue { values: vec![Value { kind: Some(value::Kind::StructValue(one)) }; 1000] };
    let list = Value { kind: Some(value::Kind::ListValue(list)) };
    let found = estimate(Struct { fields: [("list".to_owned(), list)].into() });
    let used = 1000 * (4 * bucket + size_of::<Value>());
    assert!((used..2 * used).contains(&found), "{found} for {used} bytes");
    // The table of one with many fields is moved to a larger one, again and again.
    let mut fields = HashMap::new();
    for count in 1..=300 {
        let before = fields.capacity();
        fields.insert(count.to_string(), number());
        let moved = if fields.capacity() == before { 0 } else { before };
        let used = (fields.capacity() + moved) * bucket * 8 / 7;
        let found = estimate(Struct { fields: fields.clone() });
        assert!(found >= used, "{found} for {used} bytes of {count} fields");
    }
}

#[test]
fn largest_workflow_takes_less_than_calls_may() {
    let text = || "x".repeat(40);
    let map = || [(text(), text()), ("y".repeat(40), text())].into();
    let step = |number: usize| {
        let task = v1::TaskSpec { prompt: text(), environment: map(), secrets: map(), ..Default::default() };
        let needs = vec![v1::StepNeed { step: format!("step-{number}"), ..Default::default() }; 2];
        let kind = Some(workflow_step::Kind::Task(Box::new(task)));
        v1::WorkflowStep { name: format!("step-{number}"), needs, kind, outputs: map(), ..Default::default() }
    };
    let spec = Some(v1::WorkflowSpec { steps: (0..10_000).map(step).collect(), ..Default::default() });
    let workflow = Some(v1::Workflow { spec, ..Default::default() });
    let request = v1::CreateWorkflowRequest { workflow, ..Default::default() };
    let (bytes, memory) =
        (request.encoded_len(), memory("/rota.v1.WorkflowService/CreateWorkflow", &request));
    assert!((5 << 20..8 << 20).contains(&bytes), "{bytes}");
    assert!(memory < 64 << 20, "{memory}");
}
