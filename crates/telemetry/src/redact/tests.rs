//! What is redacted and what is kept. Keys are generated in each run, so that no scanner finds one in this file.

use super::*;

/// Returns random letters and digits.
fn noise(length: usize) -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut text = String::new();
    while text.len() < length {
        text += &format!("{:016X}", RandomState::new().build_hasher().finish());
    }
    text.truncate(length);
    text
}

/// Returns one key of each kind.
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

fn redacted(redactor: &Redactor, text: &str) -> String {
    let mut text = text.to_owned();
    redactor.text(&mut text);
    text
}

#[test]
fn every_kind_of_key_is_redacted_anywhere() {
    let redactor = Redactor::default();
    for key in keys() {
        for (before, after) in
            [("", ""), ("a key: ", " and more"), ("\u{1b}[31m", "\u{1b}[0m"), ("x\\n", "\n")]
        {
            let output = redacted(&redactor, &format!("{before}{key}{after}"));
            assert_eq!(output, format!("{before}{PLACEHOLDER}{after}"));
        }
        // Escaped, as in a log or the arguments of a tool.
        let json = serde_json::json!({ "text": format!("it is\n{key}") }).to_string();
        let output: serde_json::Value = serde_json::from_str(&redacted(&redactor, &json)).unwrap();
        assert_eq!(output["text"], format!("it is\n{PLACEHOLDER}"));
    }
    let half = keys().remove(6);
    let half = half.split_at(100).0;
    assert_eq!(redacted(&redactor, half), PLACEHOLDER, "a truncated private key");
}

#[test]
fn texts_that_resemble_keys_are_kept() {
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
        assert_eq!(redacted(&redactor, text), text);
    }
}

#[test]
fn declared_values_are_redacted_in_every_form() {
    let odd = "pa\"ss\\word\nof two lines, ünd more";
    let long = noise(5000);
    let redactor = Redactor::new([odd, &long, "short", "trailing line\n"]);
    assert_eq!(redacted(&redactor, &format!("<{odd}>")), format!("<{PLACEHOLDER}>"));
    assert_eq!(redacted(&redactor, "of two lines, ünd more"), PLACEHOLDER, "a line of it");
    assert!(!redacted(&redactor, &format!("{odd:?}")).contains("ss\\\\word"));
    let json = serde_json::json!([odd]).to_string();
    assert_eq!(redacted(&redactor, &json), format!("[\"{PLACEHOLDER}\"]"));
    let output = redacted(&redactor, &format!("a{long}b"));
    assert!(
        output.starts_with("a[") && output.ends_with("]b") && !output.contains(&long[4990..]),
        "{output}"
    );
    assert_eq!(redacted(&redactor, "a trailing line here"), format!("a {PLACEHOLDER} here"));
    // Too short to be a secret.
    assert_eq!(redacted(&redactor, "in short"), "in short");
}

#[test]
fn secret_across_chunks_is_redacted() {
    let declared = "correct horse battery staple";
    let itself = "abcabcabc";
    let redactor = Redactor::new([declared, itself]);
    for secret in keys().iter().map(String::as_str).chain([declared, itself]) {
        let text = format!("before {secret} after\n");
        for size in [1, 2, 3, 7, 16, 61] {
            let mut stream = StreamRedactor::new(redactor.clone());
            let mut output = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                output.extend(stream.push(chunk));
            }
            output.extend(stream.end());
            assert_eq!(
                String::from_utf8(output).unwrap(),
                format!("before {PLACEHOLDER} after\n"),
                "chunks of {size}"
            );
        }
    }
}

#[test]
fn stream_holds_back_only_possible_secrets() {
    let mut stream = StreamRedactor::new(Redactor::new(["correct horse"]));
    for chunk in ["Password: ", "....", "100% done\n", "\u{1b}[31mred", "\r"] {
        assert_eq!(stream.push(chunk.as_bytes()), chunk.as_bytes());
    }
    // The possible beginning of a secret that turns out to be none.
    assert_eq!(stream.push(b"a correct "), b"a ");
    assert_eq!(stream.push(b"answer"), b"correct answer");
    assert_eq!(stream.push(b"xox"), b"");
    assert_eq!(stream.end(), b"xox");
}

#[test]
fn stream_redacts_unterminated_private_key() {
    let mut stream = StreamRedactor::default();
    let begin = format!("{0}BEGIN PRIVATE KEY{0}\n", "-".repeat(5));
    let mut output = stream.push(begin.as_bytes());
    for _ in 0..100 {
        output.extend(stream.push(noise(1000).as_bytes()));
    }
    output.extend(stream.end());
    assert!(String::from_utf8_lossy(&output).starts_with(PLACEHOLDER));
}

#[test]
fn stream_loses_no_bytes() {
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut stream = StreamRedactor::default();
    let mut output = bytes.chunks(777).flat_map(|chunk| stream.push(chunk)).collect::<Vec<_>>();
    output.extend(stream.end());
    assert!(output == bytes);
}

#[test]
fn registered_redactor_applies_until_guard_drops() {
    let word = noise(20);
    let message = format!("it failed with {word}");
    assert_eq!(bytes(message.as_bytes()), message.as_bytes());
    let guard = Redactor::new([word.as_str()]).register();
    assert_eq!(bytes(message.as_bytes()), format!("it failed with {PLACEHOLDER}").as_bytes());
    drop(guard);
    assert_eq!(bytes(message.as_bytes()), message.as_bytes());
    assert_eq!(super::bytes(keys()[0].as_bytes()), PLACEHOLDER.as_bytes());
}

#[test]
fn declared_number_is_redacted_as_double() {
    // More digits than a double has, an exponent, and an ordinary number.
    for (declared, printed) in [
        ("12345678901234567890", "12345678901234567000"),
        ("8.7654321e3", "8765.4321"),
        ("271828182", "271828182"),
    ] {
        let redactor = Redactor::new([declared]);
        assert_eq!(declared.parse::<f64>().unwrap().to_string(), printed);
        for form in [declared, printed] {
            assert_eq!(redacted(&redactor, form), PLACEHOLDER);
        }
    }
}

#[test]
fn debug_output_hides_declared_values() {
    let word = noise(20);
    assert!(!format!("{:?}", Redactor::new([word.as_str()])).contains(&word));
}
