//! Comments of the protos, by the path of what they describe.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor, MethodDescriptor};

/// Comments by file and path.
pub(super) struct Comments {
    comments: HashMap<(String, Vec<i32>), String>,
}

impl Comments {
    pub(super) fn new(pool: &DescriptorPool) -> Self {
        let mut comments = HashMap::new();
        for file in pool.files() {
            let info = file.file_descriptor_proto().source_code_info.as_ref();
            for location in info.iter().flat_map(|info| &info.location) {
                if let Some(text) = &location.leading_comments {
                    let text = text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
                    comments.insert((file.name().to_owned(), location.path.clone()), text.trim().to_owned());
                }
            }
        }
        Self { comments }
    }

    fn at(&self, file: &str, path: &[i32]) -> &str {
        self.comments.get(&(file.to_owned(), path.to_vec())).map_or("", String::as_str)
    }

    pub(super) fn of_method(&self, method: &MethodDescriptor) -> &str {
        self.at(method.parent_file().name(), method.path())
    }

    pub(super) fn of_message(&self, message: &MessageDescriptor) -> &str {
        self.at(message.parent_file().name(), message.path())
    }

    pub(super) fn of_field(&self, field: &FieldDescriptor) -> &str {
        self.at(field.parent_message().parent_file().name(), field.path())
    }

    pub(super) fn of_enum(&self, described: &EnumDescriptor) -> &str {
        self.at(described.parent_file().name(), described.path())
    }
}
