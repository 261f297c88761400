//! The API's descriptors: as a tree with comments, for the reference, and its style.

mod lint;
mod model;
mod text;

use anyhow::Context;
use prost::Message as _;

pub(crate) use model::{Enum, Field, File, Message, Method, Service, Type};
pub(crate) use text::upper_snake;

/// Our files, with their comments.
pub(crate) fn files() -> anyhow::Result<Vec<File>> {
    let set = prost_types::FileDescriptorSet::decode(rota_proto::DESCRIPTORS)
        .context("the descriptors cannot be read")?;
    Ok(set.file.iter().filter(|file| file.package().starts_with("rota.")).map(File::new).collect())
}

/// Everything about the protos' style that is not as it should be.
pub(crate) fn run() -> anyhow::Result<Vec<String>> {
    Ok(lint::check(&files()?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_protos_keep_to_the_style() {
        assert_eq!(super::run().unwrap(), Vec::<String>::new());
    }
}
