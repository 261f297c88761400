//! The API's page: every service, call, message and enum of a package, with its comments.

use super::MARK;
use super::table::{anchor, first_sentence, table};
use crate::protos::{Enum, Field, File, Message, Method, Service, Type};

/// The page of one package.
pub(super) fn page(files: &[File], package: &str) -> String {
    let of_package: Vec<_> = files.iter().filter(|file| file.package == package).collect();
    let here = Here { files, package };
    let mut text = format!(
        "{MARK}\n\n# `{package}`\n\nAs JSON, fields have lowerCamelCase names, 64-bit numbers are strings, durations look like \
         `1.5s`, times like `2026-01-31T10:00:00Z`.\nFields without a note have their zero value when they are not set.\n\n"
    );
    for file in &of_package {
        text += &format!("- [`{}`](../../proto/{}): {}\n", file.path, file.path, file.comment);
    }
    for service in of_package.iter().flat_map(|file| &file.services) {
        text += &here.service(service);
    }
    let mut messages: Vec<_> = of_package.iter().flat_map(|file| &file.messages).collect();
    messages.sort_by_key(|message| &message.name);
    text += "\n## Messages\n";
    for message in messages {
        text += &here.message(message);
    }
    let mut enums: Vec<_> = of_package.iter().flat_map(|file| &file.enums).collect();
    enums.sort_by_key(|one| &one.name);
    if !enums.is_empty() {
        text += "\n## Enums\n";
    }
    for one in enums {
        text += &enumeration(one);
    }
    text
}

struct Here<'a> {
    files: &'a [File],
    package: &'a str,
}

impl Here<'_> {
    fn service(&self, service: &Service) -> String {
        let rows: Vec<_> = service.methods.iter().map(|rpc| self.method(rpc)).collect();
        let table = table(&["Call", "Request", "Response", ""], &rows);
        format!(
            "\n## {}\n\n{}\nFull name: `{}.{}`.\n\n{table}",
            service.name, service.comment, self.package, service.name
        )
    }

    fn method(&self, rpc: &Method) -> Vec<String> {
        let stream = |streams: bool| if streams { "stream of " } else { "" };
        vec![
            format!("`{}`", rpc.name),
            format!("{}{}", stream(rpc.streams_in), self.link(&rpc.input)),
            format!("{}{}", stream(rpc.streams_out), self.link(&rpc.output)),
            rpc.comment.clone(),
        ]
    }

    fn message(&self, message: &Message) -> String {
        let rows: Vec<_> = message
            .fields
            .iter()
            .map(|field| {
                vec![
                    format!("`{}`", field.name),
                    field.number.to_string(),
                    self.label(field),
                    self.meaning(field),
                ]
            })
            .collect();
        let table = table(&["Field", "No.", "Type", ""], &rows);
        let gap = if table.is_empty() { "" } else { "\n" };
        format!("\n### {}\n\n{}\n{gap}{table}", message.name, message.comment)
    }

    fn label(&self, field: &Field) -> String {
        let name = self.type_name(&field.ty);
        match (&field.oneof, field.repeated, field.optional) {
            (Some(oneof), ..) => format!("{name}, one of `{oneof}`"),
            (_, true, _) => format!("repeated {name}"),
            (_, _, true) => format!("optional {name}"),
            _ => name,
        }
    }

    /// A field's own words, or those of what it holds.
    fn meaning(&self, field: &Field) -> String {
        if field.comment.is_empty()
            && let Type::Named(full) = &field.ty
        {
            return self.message_of(full).map(|message| first_sentence(&message.comment)).unwrap_or_default();
        }
        field.comment.clone()
    }

    fn message_of(&self, full: &str) -> Option<&Message> {
        self.files.iter().find_map(|file| {
            let name = full.strip_prefix(&file.package)?.strip_prefix('.')?;
            file.messages.iter().find(|message| message.name == name)
        })
    }

    fn type_name(&self, ty: &Type) -> String {
        match ty {
            Type::Plain(name) => (*name).to_owned(),
            Type::Named(full) => self.link(full),
            Type::Map(key, value) => format!("map of {} to {}", self.type_name(key), self.type_name(value)),
        }
    }

    /// A link to a message or enum of ours; others have their name only.
    fn link(&self, full: &str) -> String {
        let Some((package, name)) = full.rsplit_once('.').filter(|(package, _)| package.starts_with("rota."))
        else {
            return format!("`{full}`");
        };
        let page = match package {
            _ if package == self.package => "",
            "rota.worker.v1" => "worker-protocol.md",
            _ => "api.md",
        };
        format!("[{name}]({page}#{})", anchor(name))
    }
}

fn enumeration(one: &Enum) -> String {
    let rows: Vec<_> = one
        .values
        .iter()
        .map(|(name, number, comment)| vec![format!("`{name}`"), number.to_string(), comment.clone()])
        .collect();
    format!("\n### {}\n\n{}\n\n{}", one.name, one.comment, table(&["Value", "No.", ""], &rows))
}
