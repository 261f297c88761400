//! What authors write, and what hostile ones do.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Error, Expression, MAX_EXPRESSIONS, MAX_LENGTH, Template, Values, fill, references};

fn values() -> Values {
    let steps = json!({
        "test": {"state": "SUCCEEDED", "result": {"passed": 12, "names": ["a", "b"], "ratio": 0.5}},
        "docs": {"state": "SKIPPED", "result": null},
        "fix-it": {"state": "FAILED", "result": null},
    });
    Values::default()
        .inputs(json!({"env": "prod", "modules": ["x", "y", "z"], "big": 9_007_199_254_740_993_i64}))
        .steps(steps.as_object().cloned().unwrap_or_default())
        .workflow(json!({"id": "7", "name": "deploy"}))
        .item(1, json!({"path": "src"}))
        .round(2)
}

fn result(text: &str) -> Result<Value, Error> {
    Expression::parse(text)?.evaluate(&values())
}

#[test]
fn expressions_see_values() {
    for (text, expected) in [
        ("inputs.env == 'prod' && round > 1", json!(true)),
        ("${{ steps.test.result.passed + 1 }}", json!(13)),
        ("steps['fix-it'].state", json!("FAILED")),
        ("inputs.big", json!(9_007_199_254_740_993_i64)),
        ("steps.test.result.ratio * 2.0", json!(1.0)),
        ("steps.docs.result == null", json!(true)),
        ("has(steps.test.result.missing)", json!(false)),
        ("inputs.modules.filter(m, m != 'y').map(m, m + '/src')", json!(["x/src", "z/src"])),
        ("inputs.modules.exists(m, m == 'z')", json!(true)),
        ("inputs.modules.join(', ')", json!("x, y, z")),
        ("json(steps.test.result.names)", json!("[\"a\",\"b\"]")),
        ("{'a': item.path, 'b': [index]}", json!({"a": "src", "b": [1]})),
        ("size(inputs.modules) == 3 ? 'three' : 'other'", json!("three")),
        ("inputs.env.matches('^pr') && 'x' in inputs.modules", json!(true)),
        ("string(1) + json(true)", json!("1true")),
    ] {
        assert_eq!(result(text), Ok(expected), "{text}");
    }
}

#[test]
fn templates_keep_types_or_make_text() {
    let filled = |text: &str| Template::parse(text).and_then(|template| template.evaluate(&values()));
    assert_eq!(filled("plain"), Ok(json!("plain")));
    assert_eq!(filled("${{ inputs.modules }}"), Ok(json!(["x", "y", "z"])));
    assert_eq!(
        filled("n=${{ steps.test.result.passed }}, ${{ inputs.modules }}!"),
        Ok(json!("n=12, [\"x\",\"y\",\"z\"]!"))
    );
    assert_eq!(filled("none: ${{ steps.docs.result }}."), Ok(json!("none: .")));
    assert_eq!(filled("${{ {'a': {'b': '}}'}} }}"), Ok(json!({"a": {"b": "}}"}})));
    assert_eq!(filled("$ { $${x} }}"), Ok(json!("$ { $${x} }}")));
    assert_eq!(filled("${{ 'open"), Err(Error::Open(" 'open".into())));
    let tree = json!({"prompt": "Fix ${{ item.path }}", "list": [1, "${{ round }}"], "${{ x }}": null});
    assert_eq!(fill(&tree, &values()), Ok(json!({"prompt": "Fix src", "list": [1, 2], "${{ x }}": null})));
}

#[test]
fn references_name_what_is_used() {
    let used =
        references(&json!(["${{ steps.a.result + steps['b-c'].state }}", "${{ inputs.x[round] }}"])).unwrap();
    assert_eq!(used.steps.iter().map(String::as_str).collect::<Vec<_>>(), ["a", "b-c"]);
    assert_eq!(used.inputs.iter().map(String::as_str).collect::<Vec<_>>(), ["x"]);
    assert!(used.round && !used.item && !used.all_steps);
    for all in ["steps[item].state", "steps.all(s, true)", "size(steps)"] {
        assert!(Expression::parse(all).unwrap().references().all_steps, "{all}");
    }
    // A variable of a macro may have the name of a root.
    let local = Expression::parse("inputs.x.map(steps, steps.y)").unwrap();
    assert!(local.references().steps.is_empty() && !local.references().all_steps);
}

#[test]
fn mistakes_are_named() {
    let message = |text: &str| result(text).unwrap_err().to_string();
    assert!(
        message("input.env").ends_with("\"input\" is unknown; did you mean \"inputs\"?"),
        "{}",
        message("input.env")
    );
    assert!(message("sizes(inputs.x)").contains("did you mean \"size\"?"));
    assert!(message("1 +").contains("is invalid"), "{}", message("1 +"));
    assert!(message("inputs.missing").contains("No such key: missing"), "{}", message("inputs.missing"));
    assert!(message("1 / 0").contains("failed"));
    assert!(message("9223372036854775807 + 1").contains("failed"));
    let condition = Expression::parse("inputs.env").unwrap().evaluate_bool(&values());
    assert_eq!(
        condition.unwrap_err().to_string(),
        "result of expression \"inputs.env\" is a text, and must be true or false"
    );
    assert!(Expression::parse("inputs.env").unwrap().evaluate_list(&values()).is_err());
    // Not supported by the evaluator, which would panic.
    assert!(message("Message{field: 1}").contains("is unknown"));
    assert!(message("timestamp('2020-01-01T00:00:00Z')").contains("is unknown"));
}

fn assert_refused(text: &str, values: &Values) {
    let result = Expression::parse(text).and_then(|expression| expression.evaluate(values));
    match result {
        Err(
            Error::TooCostly { .. }
            | Error::TooLarge { .. }
            | Error::TooDeep
            | Error::TooLong(_)
            | Error::Syntax { .. },
        ) => {}
        other => panic!("{}: {:.200?}", text.chars().take(60).collect::<String>(), other),
    }
}

#[test]
fn hostile_expressions_are_refused() {
    let large: Vec<_> = (0..20_000).map(|n| json!({"n": n, "text": "x".repeat(20)})).collect();
    let values = Values::default().inputs(json!({"list": large, "text": "a".repeat(1 << 19)}));
    let refused = |text: &str| assert_refused(text, &values);
    refused("inputs.list.map(a, inputs.list.map(b, inputs.list.map(c, 1)))");
    refused("inputs.list.all(a, inputs.list.all(b, true))");
    refused("inputs.list.map(a, inputs.list + inputs.list)");
    refused("[1,2,3,4,5,6,7,8].map(a, inputs.text + inputs.text)");
    // Each round copies the list.
    refused("inputs.list.all(a, inputs.list[0].n >= 0)");
    refused("inputs.text.matches('(a+)+$(b+)+' + inputs.text)");
    refused(&format!("'a'.matches('{}')", "a|".repeat(600)));
    refused("inputs.list.map(a, a.text).join(inputs.text)");
    refused(&format!("{}1{}", "(".repeat(300), ")".repeat(300)));
    refused(&format!("{}1{}", "[".repeat(300), "]".repeat(300)));
    refused(&format!("{}true", "!".repeat(3000)));
    refused(&format!("{}1", "-".repeat(3000)));
    refused(&format!("1{}", "+1".repeat(1500)));
    refused(&"x.".repeat(2000));
    refused(&"[1].map(a, ".repeat(20));
    refused(&format!("'{}'", "x".repeat(MAX_LENGTH)));
    refused("inputs.text + inputs.text + inputs.text");
    // What is harmless passes.
    for text in [
        "size(inputs.list)",
        "inputs.list[7].n",
        "inputs.list.all(a, a.n >= 0)",
        "inputs.text.startsWith('a')",
    ] {
        let result = Expression::parse(text).and_then(|expression| expression.evaluate(&values));
        assert!(result.is_ok(), "{text}: {result:.200?}");
    }
    // At the bounds the stack is enough.
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("{'a': ", "}"),
        ("[1].map(a, ", ")"),
        ("size([", "])"),
        ("true ? (", ") : 1"),
    ] {
        for depth in 1..=12 {
            let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let _result = Expression::parse(&text).and_then(|expression| expression.evaluate(&values));
        }
    }
    for (start, more) in [
        ("1", " + 1"),
        ("inputs", ".a"),
        ("true", " && true"),
        ("1", " in [1]"),
        ("[1]", " + [1]"),
        ("", "!"),
        ("1", " == 1"),
    ] {
        for count in [10, 50, 90, 190, 195] {
            let text = format!("{start}{}", more.repeat(count));
            let _result = Expression::parse(&text).and_then(|expression| expression.evaluate(&values));
        }
    }
    let many = json!(vec!["${{ inputs.text }}"; 8]);
    assert!(matches!(fill(&many, &values), Err(Error::TooLarge { .. })));
}

#[test]
fn clones_of_values_share_them() {
    let values = Values::default().inputs(json!({"list": [1, 2]}));
    let clone = values.clone().round(2);
    assert!(std::ptr::eq(values.get("inputs").unwrap(), clone.get("inputs").unwrap()));
    assert!(values.get("round").is_none());
}

#[test]
fn lists_within_lists_are_bounded() {
    let few: Vec<_> = (0..200).map(|n| json!({"n": n, "names": ["a", "b", "c"]})).collect();
    let values = Values::default().inputs(json!({"few": few, "numbers": vec![json!([1, 2]); 2000]}));
    let refused = |text: &str| assert_refused(text, &values);
    for list in [
        "[inputs.numbers][0]",
        "{'x': inputs.numbers}.x",
        "{'x': inputs.numbers}['x']",
        "(true ? [inputs.numbers] : [])[0]",
        "(true ? inputs.numbers : [1])",
        "([] + [inputs.numbers])[0]",
        "[1].map(one, inputs.numbers)[0]",
        "[inputs.numbers].filter(one, true)[0]",
        "max(1, 2, inputs.numbers)",
    ] {
        refused(&format!("{list}.all(a, {list}.all(b, size(b) > 0))"));
        refused(&format!("{list}.all(a, {list}.all(b, {list}.all(c, true)))"));
    }
    refused(r"inputs.numbers.all(a, !'a'.matches('\\pL{200}'))");
    refused(r"inputs.numbers.all(a, !'a'.matches('\\pL{20' + '0}'))");
    for text in [
        "inputs.few.filter(a, a.n > 100).map(b, b.names.filter(c, c != 'b').map(d, d + '/src').join(', '))",
        "[inputs.few][0].map(a, {'x': a.names}.x).map(b, b.filter(c, c in inputs.few[0].names))",
        r"inputs.few.all(a, a.names.all(n, n.matches('^[a-z]$') && !n.matches('\\.rs$')))",
    ] {
        let result = Expression::parse(text).and_then(|expression| expression.evaluate(&values));
        assert!(result.is_ok(), "{text}: {result:.200?}");
    }
}

#[test]
fn patterns_are_compiled_within_their_limits() {
    let inputs = |pattern: &str| json!({"pattern": pattern, "files": vec!["src/lib.rs"; 300]});
    let evaluate = |text: &str, pattern: &str| {
        Expression::parse(text)?.evaluate(&Values::default().inputs(inputs(pattern)))
    };
    assert_eq!(evaluate("json(inputs.files).matches(inputs.pattern)", "x$"), Ok(json!(false)));
    let large = Values::default().inputs(json!({"text": "b".repeat(60 << 10), "pattern": r"\.rs$"}));
    let matches = Expression::parse("inputs.text.matches(inputs.pattern)").unwrap();
    assert_eq!(matches.evaluate(&large), Ok(json!(false)));
    let of_value = "size(inputs.files.filter(f, f.matches(inputs.pattern)))";
    assert_eq!(evaluate(of_value, r"\.rs$"), Ok(json!(300)));
    assert_eq!(evaluate("matches('src', inputs.pattern)", "^s"), Ok(json!(true)));
    assert_eq!(evaluate("'src'.matches(inputs.pattern + 'x')", "^s"), Ok(json!(false)));
    for (text, pattern, cause) in [
        (
            "inputs.files.exists(f, f.matches(inputs.pattern))",
            r"\pL{200}",
            "has more than 131072 bytes when compiled",
        ),
        ("inputs.files.exists(f, f.matches(inputs.pattern))", "(", "unclosed group"),
        ("'a'.matches('x' + inputs.pattern)", r"\pL{200}", "has more than 131072 bytes when compiled"),
    ] {
        let error = evaluate(text, pattern).unwrap_err();
        assert!(matches!(&error, Error::Evaluation { .. }) && error.to_string().contains(cause), "{error}");
    }
    // Those that stand in an expression are refused before it is evaluated.
    for (text, cause) in [
        (r"false && inputs.x.matches('\\pL{200}')", "has more than 131072 bytes when compiled"),
        ("matches(inputs.x, '[')", "unclosed character class"),
    ] {
        let error = Expression::parse(text).unwrap_err();
        assert!(matches!(&error, Error::Syntax { .. }) && error.to_string().contains(cause), "{error}");
    }
}

#[test]
fn work_of_many_expressions_is_bounded() {
    let list: Vec<_> = (0..1000).collect();
    let values = Values::default().inputs(json!({ "list": list })).budget(30_000_000);
    let costly = Expression::parse("size(inputs.list.filter(a, a > 3))").unwrap();
    let mut evaluated = 0;
    let error = loop {
        match costly.evaluate(&values.clone().round(evaluated)) {
            Ok(size) => assert_eq!(size, json!(996)),
            Err(error) => break error,
        }
        evaluated += 1;
        assert!(evaluated < 1000, "without an end");
    };
    assert!(matches!(error, Error::Spent { .. }) && evaluated > 0, "{evaluated} {error}");
    assert!(values.left() < 30_000_000);
    // Even those that cost nothing else.
    let tiny = Values::default().budget(100_000);
    let texts = json!(vec!["${{ 1 }}"; 100]);
    assert!(matches!(fill(&texts, &tiny), Err(Error::Spent { .. })));

    let many = vec!["${{ 1 }}"; MAX_EXPRESSIONS + 1];
    assert_eq!(references(&json!(many)).unwrap_err(), Error::TooMany);
    assert_eq!(references(&json!(many[1..])).unwrap().count, MAX_EXPRESSIONS);
    assert_eq!(Template::parse(&"${{ 1 }} ".repeat(5000)).unwrap_err(), Error::TooMany);
}

/// Texts of lists, of which many are within others that the expression makes.
fn lists() -> impl Strategy<Value = String> {
    let values =
        prop::sample::select(vec!["inputs.list", "inputs.lists[1]", "inputs.map.list", "[1, 2]", "[]"]);
    values.prop_map(str::to_owned).prop_recursive(3, 12, 2, |list| {
        let two = (list.clone(), list.clone());
        prop_oneof![
            list.clone().prop_map(|list| format!("[{list}][0]")),
            list.clone().prop_map(|list| format!("{{'x': {list}}}.x")),
            list.clone().prop_map(|list| format!("{list}.filter(f, true)")),
            list.prop_map(|list| format!("[{list}].filter(f, true)[0]")),
            two.clone().prop_map(|(one, other)| format!("(size({one}) > 2 ? {one} : {other})")),
            two.clone().prop_map(|(one, other)| format!("[{one}, {other}][1]")),
            two.clone().prop_map(|(one, other)| format!("({one} + {other})")),
            two.clone().prop_map(|(one, other)| format!("([{one}] + [{other}])[1]")),
            two.prop_map(|(one, other)| format!("[1].map(m, size({one}) > 2 ? {one} : {other})[0]")),
        ]
    })
}

proptest! {
    /// An evaluation ends if it has more rounds than its bound: none does.
    #[test]
    fn no_evaluation_has_more_rounds_than_its_bound(one in lists(), other in lists()) {
        let list: Vec<_> = (0..40).collect();
        let inputs = json!({"list": list, "lists": [[], list], "map": {"list": list, "one": 1}});
        let values = Values::default().inputs(inputs);
        if let Ok(expression) = Expression::parse(&format!("{one}.all(a, {other}.all(b, true))")) {
            let result = expression.evaluate(&values);
            prop_assert!(!matches!(result, Err(Error::Rounds { .. })), "{result:?}");
        }
    }

    /// Whatever is written ends without a panic, and what evaluates has a result of a bounded size.
    #[test]
    fn no_text_panics(text in "[a-z0-9 .,()\\[\\]{}!?:+*/%<>=&|'\"-]{0,60}", wrapped in any::<bool>()) {
        let text = if wrapped { format!("inputs.modules.map(x, {text})") } else { text };
        if let Ok(expression) = Expression::parse(&text) {
            let _result = expression.evaluate(&values());
        }
        let _template = Template::parse(&text);
    }

    /// Pieces that parse more often than random characters.
    #[test]
    fn no_expression_panics(pieces in prop::collection::vec(prop::sample::select(vec![
        "inputs", ".modules", ".env", "[0]", "[-1]", "['x']", "+", "-", "*", "/", "%", "==", "<", "&&", "||", "!", "?", ":", "(", ")",
        "1", "1u", "1.5", "'a'", "b'a'", "null", "true", "in", "size(", "string(", "int(", ".map(x,", ".filter(x,", ".all(x,",
        "x", "item", "index", "round", "steps", ".join(", "json(", "matches(", "{", "}", "[", "]", ",", "has(", "min(", "max(", "double(", "uint(",
    ]), 0..14)) {
        let text = pieces.concat();
        if let Ok(expression) = Expression::parse(&text) {
            let _result = expression.evaluate(&values());
        }
    }
}
