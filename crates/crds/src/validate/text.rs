//! Checks of single texts: names, labels, environment.

use std::collections::BTreeMap;

use super::Check;
use crate::ObjectMeta;

impl Check<'_> {
    /// A text no longer than `bytes`.
    pub(super) fn length(&mut self, name: &str, text: Option<&str>, bytes: usize) {
        if let Some(text) = text
            && text.len() > bytes
        {
            self.field(name).fail(format!("{} bytes are more than {bytes}", text.len()));
        }
    }

    /// A name as DNS has it (RFC 1123): what a cluster takes too.
    pub(super) fn dns_name(&mut self, text: &str, longest: usize) {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = text.split('.').all(|part| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(|byte| inner(*byte))
                && bytes.last().is_some_and(|byte| inner(*byte))
                && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
        });
        if text.is_empty() {
            self.fail("is empty");
        } else if text.len() > longest {
            self.fail(format!("{} characters are more than {longest}", text.len()));
        } else if !good {
            self.fail(format!(
                "{text:?} is no name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"
            ));
        }
    }

    /// A free word such as `code_generation`.
    pub(super) fn word(&mut self, text: &str) {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:+".contains(&byte);
        self.require(
            (1..=63).contains(&text.len()) && text.bytes().all(good),
            &format!("{text:?} is no word: 1 to 63 letters, digits, or _ - . / : +"),
        );
    }

    pub(super) fn words(&mut self, name: &str, words: &[String], most: usize) {
        let mut list = self.field(name);
        list.require(words.len() <= most, &format!("more than {most}"));
        for (index, word) in words.iter().enumerate() {
            list.item(index).word(word);
            if words[..index].contains(word) {
                list.item(index).fail(format!("{word:?} is there twice"));
            }
        }
    }

    /// The name of a variable.
    pub(super) fn variable(&mut self, name: &str) {
        let bytes = name.as_bytes();
        let good = bytes.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        self.require(
            good,
            &format!("{name:?} is no variable: letters, digits and _, not beginning with a digit"),
        );
    }

    pub(super) fn environment(&mut self, name: &str, variables: &BTreeMap<String, String>) {
        let mut map = self.field(name);
        map.require(variables.len() <= 256, "more than 256");
        let size: usize = variables.iter().map(|(key, value)| key.len() + value.len()).sum();
        map.require(size <= 256 * 1024, "more than 256 KiB in all");
        for (key, value) in variables {
            map.variable(key);
            map.field(key).require(!value.contains('\0'), "holds a zero byte");
        }
    }

    pub(super) fn metadata(&mut self, metadata: &ObjectMeta, may_generate: bool) {
        let mut meta = self.field("metadata");
        match (&metadata.name, &metadata.generate_name) {
            (Some(name), None) => meta.field("name").dns_name(name, 63),
            (None, Some(_)) if !may_generate => {
                meta.field("generateName").fail("only a task's name can be made up");
            }
            // A letter stands for what will be put behind it, so that `build-` is good.
            (None, Some(start)) => meta.field("generateName").dns_name(&format!("{start}x"), 57),
            (Some(_), Some(_)) => meta.fail("name and generateName exclude each other"),
            (None, None) => meta.field("name").fail("is missing"),
        }
        if let Some(namespace) = &metadata.namespace {
            let mut field = meta.field("namespace");
            field.dns_name(namespace, 63);
            field.require(!namespace.contains('.'), "has a '.' in it");
        }
        meta.labels(&metadata.labels);
    }

    pub(super) fn labels(&mut self, labels: &BTreeMap<String, String>) {
        let mut map = self.field("labels");
        map.require(labels.len() <= 64, "more than 64");
        for (key, value) in labels {
            let (prefix, name) = match key.split_once('/') {
                Some((prefix, name)) => (Some(prefix), name),
                None => (None, key.as_str()),
            };
            if let Some(prefix) = prefix {
                map.field(key).dns_name(prefix, 253);
            }
            map.field(key).require(
                label_text(name) && !name.is_empty(),
                "is no label: at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
            );
            map.field(key).require(
                label_text(value),
                &format!("{value:?} is no label's value: at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"),
            );
        }
    }
}

fn label_text(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}
