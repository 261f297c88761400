//! Files that `rota run --input` gives to a task.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::Context as _;
use rota_client::artifacts::Source;
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
        let name =
            path.file_name().or(absolute.file_name()).and_then(|name| name.to_str().map(str::to_owned));
        let name = name.with_context(|| format!("the name of {} is not UTF-8", path.display()))?;
        let source = Source {
            name: format!("input/{name}"),
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
