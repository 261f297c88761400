//! Compiles `proto/` into Rust without protoc.

use std::path::{Path, PathBuf};

#[path = "src/boxed.rs"]
mod boxed;

const FILES: [&str; 11] = [
    "rota/v1/artifact.proto",
    "rota/v1/event.proto",
    "rota/v1/runtime.proto",
    "rota/v1/task.proto",
    "rota/v1/workflow.proto",
    "rota/v1/agent.proto",
    "rota/v1/admin.proto",
    "rota/v1/schedule.proto",
    "rota/v1/template.proto",
    "rota/v1/kind.proto",
    "rota/worker/v1/worker.proto",
];

#[expect(clippy::disallowed_methods, reason = "cargo passes parameters to build scripts this way")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Read at run time, not compile time: checkouts may share a target folder.
    let crate_dir = std::env::var("CARGO_MANIFEST_DIR")?;
    let root = Path::new(&crate_dir).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // With the HTTP paths: the decoded form has no options of other packages.
    let bytes = compiler.encode_file_descriptor_set();
    std::fs::write(out.join("descriptors.bin"), &bytes)?;
    let mut set = compiler.file_descriptor_set();
    set.file.retain(|file| file.package() != "google.api");

    let generator = tonic_prost_build::configure();
    boxed::FIELDS
        .iter()
        .fold(generator, |generator, field| generator.boxed(field))
        .codec_path("crate::codec::SmallBuffers")
        .compile_well_known_types(true)
        .extern_path(".google.api.HttpBody", "crate::HttpBody")
        .extern_path(".google.protobuf", "::pbjson_types")
        .bytes(".rota.v1.Output.data")
        .bytes(".rota.v1.UploadPartsRequest.data")
        .bytes(".rota.v1.DownloadPartsResponse.data")
        .btree_map(".")
        .compile_fds(set)?;
    // The canonical JSON mapping, for `-o json` and its readers.
    pbjson_build::Builder::new()
        .register_descriptors(&bytes)?
        .btree_map([".rota"])
        // Their JSON is in src/bounds.rs.
        .exclude([".rota.v1.ForEach", ".rota.v1.Repeat"])
        .build(&[".rota"])?;
    Ok(())
}
