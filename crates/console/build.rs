//! Lists the built files of the control centre (`console/dist`), so that the program contains them. Without them, it contains
//! a page about how to build them, unless `ROTA_REQUIRE_CONSOLE` is set.

#![expect(clippy::disallowed_methods, reason = "a build script has only the environment")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let dist =
        PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../../console/dist");
    println!("cargo::rerun-if-changed={}", dist.display());
    println!("cargo::rerun-if-env-changed=ROTA_REQUIRE_CONSOLE");
    let mut files = Vec::new();
    collect(&dist, &mut files);
    files.sort();
    assert!(
        !files.is_empty() || env::var_os("ROTA_REQUIRE_CONSOLE").is_none(),
        "console/dist is missing: build it with `scripts/console`"
    );
    let mut table = String::from("&[\n");
    for file in files.iter().filter(|file| file.extension().is_none_or(|extension| extension != "br")) {
        let path =
            file.strip_prefix(&dist).expect("in the directory").to_str().expect("names of a build are UTF-8");
        let file = file.canonicalize().expect("it exists");
        let packed = PathBuf::from(format!("{}.br", file.display()));
        let packed =
            if packed.exists() { format!("Some(include_bytes!({packed:?}))") } else { "None".to_owned() };
        writeln!(
            table,
            "    File {{ path: {:?}, body: include_bytes!({file:?}), packed: {packed} }},",
            format!("/{path}")
        )
        .expect("strings take everything");
    }
    table.push_str("]\n");
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo")).join("files.rs");
    fs::write(out, table).expect("cargo's directory is writable");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
