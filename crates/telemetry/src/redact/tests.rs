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
        format!("sk-{}-{}_1{}", "proj", noise(20), noise(40)),
        format!("glpat-1{}", noise(20)),
        format!("hf_{}", noise(34)),
        format!("npm_{}", noise(36)),
        format!("sk_live_{}", noise(24)),
        format!("AIza{}", noise(35)),
        format!("rota_{}_{}", "worker", noise(300)),
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
        "rota_worker_slots_of_the_workers_that_are_connected_and_do_not_drain 2",
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
    assert_eq!(stream.push(b"answer "), b"correct answer ");
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

#[test]
fn credentials_of_urls_and_headers_are_redacted() {
    let redactor = Redactor::default();
    let (password, token) = (noise(12), format!("1{}", noise(24)));
    for (before, secret, after) in [
        ("postgres://admin:", &password, "@db:5432/x"),
        ("https://", &format!("u:{password}"), "@git.example/x.git"),
        ("-H 'Authorization: Bearer ", &token, "'"),
        ("{\"authorization\": \"Basic ", &token, "\"}"),
        ("bearer ", &token, "\n"),
    ] {
        let output = redacted(&redactor, &format!("{before}{secret}{after}"));
        assert!(!output.contains(&secret[2..]) && output.contains(PLACEHOLDER), "{output}");
        assert!(output.starts_with(before) && output.ends_with(after), "{output}");
    }
    for text in [
        "ssh://git@github.com/a/b",
        "https://example.com/a:b@c",
        "https://$USER:${TOKEN}@git.example",
        "bearer authentication/authorization",
        "authorization: bearer",
        "data:image/png;base64,AIzaAIzaAIzaAIzaAIzaAIzaAIzaAIzaAIzaAIzaAIza",
    ] {
        assert_eq!(redacted(&redactor, text), text);
    }
}

#[test]
fn encoded_values_are_redacted() {
    use base64::Engine;
    let secret = format!("p'w/{}+", noise(20));
    let redactor = Redactor::new([secret.as_str()]);
    let engine = base64::engine::general_purpose::STANDARD;
    let url: String = secret
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    let hex: String = secret.bytes().map(|b| format!("{b:02x}")).collect();
    for form in [url, hex, secret.replace('\'', r"'\''")] {
        assert_eq!(redacted(&redactor, &format!("<{form}>")), format!("<{PLACEHOLDER}>"));
    }
    for user in ["", "a", "ab", "abc"] {
        let encoded = engine.encode(format!("{user}:{secret}"));
        let output = redacted(&redactor, &encoded);
        assert!(output.contains(PLACEHOLDER) && output.len() < PLACEHOLDER.len() + 14, "{output}");
    }
}

#[test]
fn common_words_are_kept_in_results_only() {
    let secret = noise(20);
    let redactor = Redactor::new(["postgres", "Production", secret.as_str()]);
    let text = format!("postgres in Production with {secret}");
    assert_eq!(redacted(&redactor, &text), format!("{PLACEHOLDER} in {PLACEHOLDER} with {PLACEHOLDER}"));
    let mut result = text;
    redactor.result(&mut result);
    assert_eq!(result, format!("postgres in Production with {PLACEHOLDER}"));
    for value in ["hunter2x", "correcthorsebattery", "a-word", "ABCdef", "12345678"] {
        assert!(!is_common_word(value), "{value}");
    }
}

/// Texts that consist of beginnings of keys.
fn hostile_pieces() -> Vec<String> {
    let dashes = "-".repeat(5);
    vec![
        format!("{dashes}BEGIN PRIVATE KEY{dashes}!"),
        format!("{dashes}BEGIN PRIVATE KEY{dashes}"),
        format!("{dashes}BEGIN "),
        format!("eyJaaaaaaaa{}_{}-", "ghp", "a".repeat(20)),
        "eyJaaaaaaaa.eyJ".to_owned(),
        "eyJ".to_owned(),
        "sk-proj-".to_owned(),
        "sk-ant-a.".to_owned(),
        "://a:".to_owned(),
        "AIza".to_owned(),
        "authorization: bearer ".to_owned(),
        "x".to_owned(),
    ]
}

/// Returns a text of repeated pieces.
fn hostile(piece: &str, length: usize) -> Vec<u8> {
    piece.bytes().cycle().take(length).collect()
}

#[test]
fn learned_values_are_redacted_too() {
    let redactor = Redactor::new(["declared-value"]);
    let clone = redactor.clone();
    for value in ["first-made-value", "declared-value", "first-made-value"] {
        redactor.learn(value);
    }
    let redacted = |text: &str| {
        let mut text = text.to_owned();
        clone.text(&mut text);
        text
    };
    assert_eq!(redacted("declared-value first-made-value"), "[redacted] [redacted]");
    let mut result = "first-made-value".to_owned();
    clone.result(&mut result);
    assert_eq!(result, "[redacted]");
    let guard = redactor.register();
    redactor.learn("second-made-value");
    assert_eq!(bytes(b"log of second-made-value").as_ref(), b"log of [redacted]");
    drop(guard);
    // Those that have expired are forgotten.
    for number in 0..MAX_LEARNED {
        redactor.learn(&format!("made-later-{number:04}"));
    }
    assert_eq!(redacted("first-made-value made-later-0000"), "first-made-value [redacted]");
}

#[test]
fn work_is_linear_in_the_input() {
    const LENGTH: usize = 16 << 10;
    for piece in hostile_pieces() {
        for complete in [true, false] {
            let steps = |length| shapes::count_steps(&hostile(&piece, length), complete);
            let (once, often) = (steps(LENGTH), steps(16 * LENGTH));
            assert!(often <= 20 * once + 20 * LENGTH, "{piece:?}: {once} steps become {often}");
        }
    }
}

#[test]
fn hostile_text_is_redacted_in_one_pass() {
    // Each of these took minutes when every beginning was followed to the end of the text.
    for piece in hostile_pieces() {
        let text = hostile(&piece, 256 << 10);
        let redacted = bytes(&text);
        assert!(redacted.len() <= 2 * text.len());
    }
}
