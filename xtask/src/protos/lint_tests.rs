//! Each rule of the protos' style finds what breaks it, in a small file that otherwise keeps to it.

use super::*;

fn field(name: &str, number: i32) -> Field {
    Field {
        name: name.to_owned(),
        comment: "A field.".to_owned(),
        number,
        ty: Type::Plain("string"),
        repeated: false,
        optional: false,
        oneof: None,
    }
}

fn message(name: &str, fields: Vec<Field>) -> Message {
    Message {
        name: name.to_owned(),
        comment: "A message.".to_owned(),
        fields,
        oneofs: Vec::new(),
        reserved: [].into(),
    }
}

fn good() -> File {
    let call = |name: &str, input: &str, output: &str| Method {
        name: name.to_owned(),
        comment: "A call.".to_owned(),
        input: format!("rota.v1.{input}"),
        output: format!("rota.v1.{output}"),
        streams_in: false,
        streams_out: false,
    };
    let value = |name: &str, number| (name.to_owned(), number, "A value.".to_owned());
    File {
        path: "rota/v1/thing.proto".to_owned(),
        package: "rota.v1".to_owned(),
        syntax: "proto3".to_owned(),
        comment: "Things.".to_owned(),
        services: vec![Service {
            name: "ThingService".to_owned(),
            comment: "A service.".to_owned(),
            methods: vec![
                call("GetThing", "GetThingRequest", "Thing"),
                call("WatchThing", "WatchThingRequest", "WatchThingResponse"),
            ],
        }],
        messages: vec![
            message("Thing", vec![field("name", 1), field("kind", 2)]),
            message("GetThingRequest", vec![field("name", 1)]),
            message("WatchThingRequest", vec![]),
            message("WatchThingResponse", vec![]),
        ],
        enums: vec![Enum {
            name: "ThingKind".to_owned(),
            comment: "An enum.".to_owned(),
            values: vec![value("THING_KIND_UNSPECIFIED", 0), value("THING_KIND_BIG", 1)],
            reserved: [].into(),
        }],
    }
}

/// Problems without those about exceptions, which belong to the real files.
fn problems(change: impl FnOnce(&mut File)) -> Vec<String> {
    let mut file = good();
    change(&mut file);
    let mut found = check(&[file]);
    found.retain(|one| !one.starts_with("the exception"));
    found
}

#[test]
fn the_good_file_is_good() {
    assert_eq!(problems(|_| {}), Vec::<String>::new());
}

#[test]
fn each_rule_finds_its_breach() {
    type Change = fn(&mut File);
    let breaches: &[(&str, Change)] = &[
        ("folder", |file| file.path = "rota/thing.proto".to_owned()),
        ("lower_snake", |file| file.path = "rota/v1/Thing.proto".to_owned()),
        ("proto3", |file| file.syntax = "proto2".to_owned()),
        ("comment", |file| file.comment.clear()),
        ("Service", |file| file.services[0].name = "Things".to_owned()),
        ("comment", |file| file.services[0].methods[0].comment.clear()),
        ("must take", |file| file.services[0].methods[1].input = "rota.v1.Thing".to_owned()),
        ("must answer", |file| file.services[0].methods[0].output = "rota.v1.GetThingResponse".to_owned()),
        ("`name`", |file| file.messages[1].fields.clear()),
        ("PascalCase", |file| file.messages[0].name = "thing_a".to_owned()),
        ("lower_snake", |file| file.messages[0].fields[1].name = "kindOf".to_owned()),
        ("comment", |file| file.messages[0].fields[1].comment.clear()),
        ("number", |file| file.messages[0].fields[1].number = 3),
        ("UNSPECIFIED", |file| file.enums[0].values[0].0 = "THING_KIND_NONE".to_owned()),
        ("UPPER_SNAKE", |file| file.enums[0].values[1].0 = "BIG".to_owned()),
        ("number", |file| file.enums[0].values[1].1 = 2),
    ];
    for (what, change) in breaches {
        let found = problems(change);
        assert!(found.len() == 1 && found[0].contains(what), "{what}: {found:?}");
    }
    assert!(problems(|file| file.package = "rota".to_owned()).iter().any(|one| one.contains("version")));
}

#[test]
fn a_gap_may_be_reserved_or_room_before_a_choice() {
    assert_eq!(
        problems(|file| {
            file.messages[0].fields[1].number = 3;
            file.messages[0].reserved = [2].into();
        }),
        Vec::<String>::new()
    );
    assert_eq!(
        problems(|file| {
            file.messages[0].fields[1].number = 10;
            file.messages[0].fields[1].oneof = Some("kind".to_owned());
        }),
        Vec::<String>::new()
    );
}
