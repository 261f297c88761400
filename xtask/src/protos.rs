//! Descriptors of the API with their comments, for the reference and the checks.

use anyhow::Context;
use prost_reflect::{DescriptorPool, FileDescriptor};

/// Path of a file's `package` line in its descriptor.
pub(crate) const PACKAGE: &[i32] = &[2];

/// All files of the API and what they import.
pub(crate) fn pool() -> anyhow::Result<DescriptorPool> {
    DescriptorPool::decode(rota_proto::DESCRIPTORS).context("failed to decode the descriptors")
}

/// Files of the API itself.
pub(crate) fn ours(pool: &DescriptorPool) -> impl Iterator<Item = FileDescriptor> + '_ {
    pool.files().filter(|file| file.package_name().starts_with("rota."))
}

/// Comment before the declaration at a path of a file, without `//` and its indent.
pub(crate) fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.iter().flat_map(|info| &info.location);
    let text = info.filter(|one| one.path == path).find_map(|one| one.leading_comments.as_deref());
    let lines: Vec<_> = text.unwrap_or_default().lines().map(str::trim).collect();
    lines.join("\n").trim().to_owned()
}

/// Converts `PascalCase` to `PASCAL_CASE`, as enum values are written.
pub(crate) fn upper_snake(pascal: &str) -> String {
    let mut snake = String::new();
    for c in pascal.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_uppercase());
    }
    snake
}
