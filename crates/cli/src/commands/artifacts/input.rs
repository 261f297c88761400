//! Files that `--input` gives to a task or to a workflow.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rota_client::artifacts::Source;
use rota_proto::artifact_names::INPUT;
use rota_proto::v1::Artifact;

use super::{access, bar, broken};
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// Uploads files, each of which the task finds in `input/` of its context directory, by its own name.
pub async fn upload(context: &Context, files: &[PathBuf]) -> anyhow::Result<Vec<Artifact>> {
    let mut sources = BTreeMap::new();
    for path in files {
        let failed = || format!("failed to read {}", path.display());
        let metadata = path.metadata().with_context(failed)?;
        if !metadata.is_file() {
            return Err(Failure::usage(format!("{} is not a file", path.display())).into());
        }
        let absolute = path.canonicalize().with_context(failed)?;
        let name = place(path)?;
        let source = Source {
            name: name.clone(),
            executable: metadata.permissions().mode() & 0o111 != 0,
            size: metadata.len(),
            open: Box::new(move || File::open(&absolute)),
        };
        if let Some(other) = sources.insert(name, source) {
            return Err(Failure::usage(format!("two files would be {}", other.name)).into());
        }
    }
    let bar = bar(context, 0);
    let access = access(context, None)?;
    let uploaded = access.upload(sources.into_values().collect(), |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    let uploaded = uploaded.await.map_err(broken).context("failed to upload the input")?;
    bar.finish_and_clear();
    match uploaded.skipped.first() {
        Some((name, reason)) => {
            Err(Failure::new(Exit::Failed, format!("failed to upload {name}: {reason}")).into())
        }
        None => Ok(uploaded.artifacts),
    }
}

/// Returns where a task finds a file, below its context directory.
fn place(path: &Path) -> anyhow::Result<String> {
    let absolute = path.canonicalize().with_context(|| format!("failed to read {}", path.display()))?;
    let name = path.file_name().or(absolute.file_name()).and_then(|name| name.to_str());
    let name = name.with_context(|| format!("the name of {} is not UTF-8", path.display()))?;
    Ok(format!("{INPUT}/{name}"))
}

/// Uploads files that are inputs of a workflow, each given as `NAME=FILE`, or as `FILE` whose name is that of the input.
pub async fn upload_named(context: &Context, given: &[String]) -> anyhow::Result<BTreeMap<String, Artifact>> {
    if given.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut paths = BTreeMap::new();
    for text in given {
        let (name, path) = named(text)?;
        if paths.insert(name.clone(), path).is_some() {
            return Err(Failure::usage(format!("two files are input {name}")).into());
        }
    }
    let files: Vec<_> = paths.values().cloned().collect();
    let uploaded = upload(context, &files).await?;
    let mut inputs = BTreeMap::new();
    for (name, path) in paths {
        let place = place(&path)?;
        inputs.extend(uploaded.iter().find(|file| file.name == place).map(|file| (name, file.clone())));
    }
    Ok(inputs)
}

/// Returns the name of an input and its file.
fn named(text: &str) -> Result<(String, PathBuf), Failure> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.chars().all(is_word)
    };
    if let Some((name, path)) = text.split_once('=').filter(|(name, _)| is_name(name)) {
        return Ok((name.to_owned(), path.into()));
    }
    let path = PathBuf::from(text);
    let stem = path.file_name().and_then(|name| name.to_str()?.split('.').next()).unwrap_or_default();
    let name: String = stem.chars().map(|letter| if is_word(letter) { letter } else { '_' }).collect();
    match is_name(&name) {
        true => Ok((name, path)),
        false => Err(Failure::usage(format!("{text} does not name its input"))
            .hint(format!("give the input a name: --input NAME={text}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_named_explicitly_or_by_their_files() {
        for (text, name, path) in [
            ("data=in/sales.csv", "data", "in/sales.csv"),
            ("in/sales.2026.csv", "sales", "in/sales.2026.csv"),
            ("my-notes.md", "my_notes", "my-notes.md"),
            ("./a=b.txt", "a_b", "./a=b.txt"),
        ] {
            assert_eq!(named(text).unwrap(), (name.to_owned(), path.into()), "{text}");
        }
        assert!(named("2026.csv").is_err() && named(".profile").is_err());
    }
}
