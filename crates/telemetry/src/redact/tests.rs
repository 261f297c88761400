//! What is taken out and what is left, with keys that are made for each run. Knows nothing of who tells what.

use super::*;

/// Letters and digits, other ones each time: no key stands in this file.
fn noise(length: usize) -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut text = String::new();
    while text.len() < length {
        text += &format!("{:016X}", RandomState::new().build_hasher().finish());
    }
    text.truncate(length);
    text
}

/// One of each kind.
fn keys() -> Vec<String> {
    let pem = |kind: &str| {
        let dashes = "-".repeat(5);
        let lines = [noise(64), noise(64), noise(20)].join("\n");
        format!("{dashes}BEGIN {kind}PRIVATE KEY{dashes}\n{lines}=\n{dashes}END {kind}PRIVATE KEY{dashes}")
    };
    vec![
        format!("sk-{}-api03-{}", "ant", noise(40)),
        format!("{}_{}", "ghp", noise(36)),
        format!("github_{}_{}", "pat", noise(60)),
        format!("{}{}", "AKIA", noise(16)),
        format!("{}b-{}-{}", "xox", noise(12), noise(24)),
        format!("{0}{1}.{0}{2}.{3}", "eyJ", noise(20), noise(60), noise(43)),
        pem(""),
        pem("RSA "),
    ]
}

fn clean(redactor: &Redactor, text: &str) -> String {
    let mut text = text.to_owned();
    redactor.text(&mut text);
    text
}

#[test]
fn every_kind_of_key_goes_wherever_it_stands() {
    let redactor = Redactor::default();
    for key in keys() {
        for (before, after) in
            [("", ""), ("a key: ", " and more"), ("\u{1b}[31m", "\u{1b}[0m"), ("x\\n", "\n")]
        {
            let told = clean(&redactor, &format!("{before}{key}{after}"));
            assert_eq!(told, format!("{before}{MARK}{after}"));
        }
        // As a log or a tool's arguments have it.
        let json = serde_json::json!({ "said": format!("it is\n{key}") }).to_string();
        let told: serde_json::Value = serde_json::from_str(&clean(&redactor, &json)).unwrap();
        assert_eq!(told["said"], format!("it is\n{MARK}"));
    }
    let half = keys().remove(6);
    let half = half.split_at(100).0;
    assert_eq!(clean(&redactor, half), MARK, "one that was cut");
}

#[test]
fn what_only_begins_like_a_key_stays() {
    let redactor = Redactor::default();
    let dashes = "-".repeat(5);
    for text in [
        "sk-ant-",
        "the task-ant-colony",
        "ghp_short",
        "AKIA is a prefix",
        "eyJ.eyJ.x",
        &format!("{dashes}BEGIN CERTIFICATE{dashes}\nMIIB\n{dashes}END CERTIFICATE{dashes}"),
    ] {
        assert_eq!(clean(&redactor, text), text);
    }
}

#[test]
fn declared_values_go_in_every_form() {
    let odd = "pa\"ss\\word\nof two lines, ünd more";
    let long = noise(5000);
    let redactor = Redactor::new([odd, &long, "short", "trailing line\n"]);
    assert_eq!(clean(&redactor, &format!("<{odd}>")), format!("<{MARK}>"));
    assert_eq!(clean(&redactor, "of two lines, ünd more"), MARK, "a line of it");
    assert!(!clean(&redactor, &format!("{odd:?}")).contains("ss\\\\word"));
    let json = serde_json::json!([odd]).to_string();
    assert_eq!(clean(&redactor, &json), format!("[\"{MARK}\"]"));
    let told = clean(&redactor, &format!("a{long}b"));
    assert!(told.starts_with("a[") && told.ends_with("]b") && !told.contains(&long[4990..]), "{told}");
    assert_eq!(clean(&redactor, "a trailing line here"), format!("a {MARK} here"));
    // Too short to be told from anything else.
    assert_eq!(clean(&redactor, "in short"), "in short");
}

#[test]
fn a_secret_across_pieces_is_found() {
    let declared = "correct horse battery staple";
    let itself = "abcabcabc";
    let redactor = Redactor::new([declared, itself]);
    for secret in keys().iter().map(String::as_str).chain([declared, itself]) {
        let text = format!("before {secret} after\n");
        for size in [1, 2, 3, 7, 16, 61] {
            let mut stream = Stream::new(redactor.clone());
            let mut told = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                told.extend(stream.push(piece));
            }
            told.extend(stream.end());
            assert_eq!(
                String::from_utf8(told).unwrap(),
                format!("before {MARK} after\n"),
                "{size} at a time"
            );
        }
    }
}

#[test]
fn nothing_else_is_held_back_and_nothing_is_lost() {
    let mut stream = Stream::new(Redactor::new(["correct horse"]));
    for piece in ["Password: ", "....", "100% done\n", "\u{1b}[31mred", "\r"] {
        assert_eq!(stream.push(piece.as_bytes()), piece.as_bytes());
    }
    // What might have been one, and is not.
    assert_eq!(stream.push(b"a correct "), b"a ");
    assert_eq!(stream.push(b"answer"), b"correct answer");
    assert_eq!(stream.push(b"xox"), b"");
    assert_eq!(stream.end(), b"xox");
    // Any bytes, and no end of a private key.
    let mut stream = Stream::default();
    let begin = format!("{0}BEGIN PRIVATE KEY{0}\n", "-".repeat(5));
    let mut told = stream.push(begin.as_bytes());
    for _ in 0..100 {
        told.extend(stream.push(noise(1000).as_bytes()));
    }
    told.extend(stream.end());
    assert!(String::from_utf8_lossy(&told).starts_with(MARK));
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut stream = Stream::default();
    let mut told = bytes.chunks(777).flat_map(|piece| stream.push(piece)).collect::<Vec<_>>();
    told.extend(stream.end());
    assert!(told == bytes);
}

#[test]
fn what_the_process_says_itself_is_clean_while_something_is_declared() {
    let word = noise(20);
    let said = format!("it failed with {word}");
    assert_eq!(own(said.as_bytes()), said.as_bytes());
    let guard = Redactor::new([word.as_str()]).guard();
    assert_eq!(own(said.as_bytes()), format!("it failed with {MARK}").as_bytes());
    drop(guard);
    assert_eq!(own(said.as_bytes()), said.as_bytes());
    assert_eq!(own(keys()[0].as_bytes()), MARK.as_bytes());
}

#[test]
fn a_declared_number_goes_as_a_double_has_it() {
    // More digits than a double keeps, and a form of its own.
    for (declared, told) in [
        ("12345678901234567890", "12345678901234567000"),
        ("8.7654321e3", "8765.4321"),
        ("271828182", "271828182"),
    ] {
        let redactor = Redactor::new([declared]);
        assert_eq!(declared.parse::<f64>().unwrap().to_string(), told);
        for form in [declared, told] {
            assert_eq!(clean(&redactor, form), MARK);
        }
    }
}

#[test]
fn a_redactor_does_not_print_what_it_knows() {
    let word = noise(20);
    assert!(!format!("{:?}", Redactor::new([word.as_str()])).contains(&word));
}
