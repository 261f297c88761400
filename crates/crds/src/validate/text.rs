//! Validation of names, labels and environment variables.

use std::collections::BTreeMap;

use super::Check;
use crate::ObjectMeta;

impl Check<'_> {
    /// Requires at most `bytes` bytes.
    pub(super) fn length(&mut self, name: &str, text: Option<&str>, bytes: usize) {
        if let Some(text) = text
            && text.len() > bytes
        {
            self.field(name).fail(format!("must have at most {bytes} bytes, has {}", text.len()));
        }
    }

    /// Requires the id of a task: a UUID, as the control plane prints it.
    pub(super) fn task_id(&mut self, text: &str) {
        let lengths = text.split('-').map(str::len);
        let is_hex = text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
        self.require(is_hex && lengths.eq([8, 4, 4, 4, 12]), "must be a task's id");
    }

    /// Requires an RFC 1123 subdomain, as Kubernetes does.
    pub(super) fn dns_name(&mut self, text: &str, max: usize) {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = text.split('.').all(|part| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(|byte| inner(*byte))
                && bytes.last().is_some_and(|byte| inner(*byte))
                && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
        });
        if text.is_empty() {
            self.fail("must not be empty");
        } else if text.len() > max {
            self.fail(format!("must have at most {max} characters, has {}", text.len()));
        } else if !valid {
            self.fail(format!(
                "{text:?} is not a valid name: lower-case letters, digits, '-' and '.', starting and ending with a letter or digit"
            ));
        }
    }

    /// Requires a capability such as `code_generation`.
    fn capability(&mut self, text: &str) {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:+".contains(&byte);
        self.require(
            (1..=63).contains(&text.len()) && text.bytes().all(valid),
            &format!("{text:?} is not a valid capability: 1 to 63 letters, digits, or _ - . / : +"),
        );
    }

    pub(super) fn capabilities(&mut self, capabilities: &[String], max: usize) {
        let mut list = self.field("capabilities");
        list.require(capabilities.len() <= max, &format!("must have at most {max} entries"));
        for (index, capability) in capabilities.iter().enumerate() {
            list.item(index).capability(capability);
            if capabilities[..index].contains(capability) {
                list.item(index).fail(format!("duplicate {capability:?}"));
            }
        }
    }

    /// Requires a name of an environment variable.
    pub(super) fn variable(&mut self, name: &str) {
        let bytes = name.as_bytes();
        let valid = bytes.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        self.require(
            valid,
            &format!(
                "{name:?} is not a valid variable name: letters, digits and _, not starting with a digit"
            ),
        );
    }

    pub(super) fn environment(&mut self, name: &str, variables: &BTreeMap<String, String>) {
        let mut map = self.field(name);
        map.require(variables.len() <= 256, "must have at most 256 entries");
        let size: usize = variables.iter().map(|(key, value)| key.len() + value.len()).sum();
        map.require(size <= 256 * 1024, "must have at most 256 KiB in total");
        for (key, value) in variables {
            map.variable(key);
            map.field(key).require(!value.contains('\0'), "must not contain a NUL byte");
        }
    }

    pub(super) fn metadata(&mut self, metadata: &ObjectMeta, may_generate: bool) {
        let mut meta = self.field("metadata");
        match (&metadata.name, &metadata.generate_name) {
            (Some(name), None) => meta.field("name").dns_name(name, 63),
            (None, Some(_)) if !may_generate => {
                meta.field("generateName").fail("is supported for tasks only");
            }
            // A letter stands for the generated suffix, so that `build-` is valid.
            (None, Some(start)) => meta.field("generateName").dns_name(&format!("{start}x"), 57),
            (Some(_), Some(_)) => meta.fail("name and generateName are mutually exclusive"),
            (None, None) => meta.field("name").fail("is required"),
        }
        if let Some(namespace) = &metadata.namespace {
            let mut field = meta.field("namespace");
            field.dns_name(namespace, 63);
            field.require(!namespace.contains('.'), "must not contain '.'");
        }
        meta.labels(&metadata.labels);
    }

    pub(super) fn labels(&mut self, labels: &BTreeMap<String, String>) {
        let mut map = self.field("labels");
        map.require(labels.len() <= 64, "must have at most 64 entries");
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
                "is not a valid label: at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit",
            );
            map.field(key).require(
                label_text(value),
                &format!("{value:?} is not a valid label value: at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit"),
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
