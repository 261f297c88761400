//! API reference: every service, call, message and enum of a package, with its comments.

use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};

use super::MARK;
use super::table::{anchor, table};
use crate::protos::{PACKAGE, comment, ours};

/// Packages, and the page of each.
const PAGES: [(&str, &str); 2] = [("rota.v1", "api.md"), ("rota.worker.v1", "worker-protocol.md")];

/// Returns each package's page with its name.
pub(super) fn pages(pool: &DescriptorPool) -> impl Iterator<Item = (&'static str, String)> + '_ {
    PAGES.into_iter().map(|(package, name)| (name, Page { package }.render(pool)))
}

struct Page {
    package: &'static str,
}

impl Page {
    fn render(&self, pool: &DescriptorPool) -> String {
        let mut text = format!(
            "{MARK}\n\n# `{}`\n\nAs JSON, fields have lowerCamelCase names, 64-bit numbers are strings, durations look like \
             `1.5s`, times like `2026-01-31T10:00:00Z`.\nFields without a note have their zero value when they are not set.\n\n",
            self.package
        );
        for file in ours(pool).filter(|file| file.package_name() == self.package) {
            let path = file.name();
            text += &format!("- [`{path}`](../../proto/{path}): {}\n", comment(&file, PACKAGE));
        }
        for service in pool.services().filter(|service| service.package_name() == self.package) {
            let rows: Vec<_> = service.methods().map(|rpc| self.call(&rpc)).collect();
            text += &format!(
                "\n## {}\n\n{}\nFull name: `{}`.\n\n{}",
                service.name(),
                comment(&service.parent_file(), service.path()),
                service.full_name(),
                table(&["Call", "Request", "Response", ""], &rows)
            );
        }
        let mut messages: Vec<_> = pool.all_messages().filter(|one| !one.is_map_entry()).collect();
        messages.retain(|message| message.package_name() == self.package);
        messages.sort_by(|a, b| a.full_name().cmp(b.full_name()));
        text += "\n## Messages\n";
        text.extend(messages.iter().map(|message| self.message(message)));
        let mut enums: Vec<_> = pool.all_enums().filter(|one| one.package_name() == self.package).collect();
        enums.sort_by(|a, b| a.full_name().cmp(b.full_name()));
        if !enums.is_empty() {
            text += "\n## Enums\n";
        }
        text.extend(enums.iter().map(enumeration));
        text
    }

    fn call(&self, rpc: &MethodDescriptor) -> Vec<String> {
        let stream = |streams: bool| if streams { "stream of " } else { "" };
        let link =
            |message: &MessageDescriptor| link(self.package, message.package_name(), message.full_name());
        vec![
            format!("`{}`", rpc.name()),
            format!("{}{}", stream(rpc.is_client_streaming()), link(&rpc.input())),
            format!("{}{}", stream(rpc.is_server_streaming()), link(&rpc.output())),
            comment(&rpc.parent_service().parent_file(), rpc.path()),
        ]
    }

    fn message(&self, message: &MessageDescriptor) -> String {
        // As they are written, not by number.
        let fields =
            message.descriptor_proto().field.iter().filter_map(|one| message.get_field_by_name(one.name()));
        let rows: Vec<_> = fields
            .map(|field| {
                let name = format!("`{}`", field.name());
                vec![
                    name,
                    field.number().to_string(),
                    self.label(&field),
                    comment(&field.parent_file(), field.path()),
                ]
            })
            .collect();
        let table = table(&["Field", "No.", "Type", ""], &rows);
        let gap = if table.is_empty() { "" } else { "\n" };
        let comment = comment(&message.parent_file(), message.path());
        format!("\n### {}\n\n{comment}\n{gap}{table}", short(message.package_name(), message.full_name()))
    }

    fn label(&self, field: &FieldDescriptor) -> String {
        let name = self.type_name(&field.kind());
        let optional = field.field_descriptor_proto().proto3_optional();
        match field.containing_oneof() {
            Some(oneof) if !optional => format!("{name}, one of `{}`", oneof.name()),
            _ if field.is_list() => format!("repeated {name}"),
            _ if optional => format!("optional {name}"),
            _ => name,
        }
    }

    fn type_name(&self, kind: &Kind) -> String {
        match kind {
            Kind::Message(entry) if entry.is_map_entry() => {
                let of = |field: FieldDescriptor| self.type_name(&field.kind());
                format!("map of {} to {}", of(entry.map_entry_key_field()), of(entry.map_entry_value_field()))
            }
            Kind::Message(one) => link(self.package, one.package_name(), one.full_name()),
            Kind::Enum(one) => link(self.package, one.package_name(), one.full_name()),
            plain => format!("{plain:?}").to_lowercase(),
        }
    }
}

fn short<'a>(package: &str, full: &'a str) -> &'a str {
    full.strip_prefix(package).map_or(full, |name| name.trim_start_matches('.'))
}

/// A link from one package's page to a message or enum; those of other projects are only named.
fn link(from: &str, package: &str, full: &str) -> String {
    let Some((_, page)) = PAGES.into_iter().find(|(ours, _)| *ours == package) else {
        return format!("`{full}`");
    };
    let name = short(package, full);
    format!("[{name}]({}#{})", if package == from { "" } else { page }, anchor(name))
}

fn enumeration(one: &EnumDescriptor) -> String {
    let file = one.parent_file();
    let row = |value: prost_reflect::EnumValueDescriptor| {
        vec![format!("`{}`", value.name()), value.number().to_string(), comment(&file, value.path())]
    };
    let rows: Vec<_> = one.values().map(row).collect();
    let name = short(one.package_name(), one.full_name());
    format!("\n### {name}\n\n{}\n\n{}", comment(&file, one.path()), table(&["Value", "No.", ""], &rows))
}
