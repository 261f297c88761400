//! Files that hostile and careless attempts leave, in directories made by hand.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A scratch directory and a workspace.
fn directories() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let (scratch, workspace) = (root.path().join("scratch"), root.path().join("work"));
    fs::create_dir_all(scratch.join("output/deep/er")).unwrap();
    fs::create_dir_all(workspace.join("dist/js")).unwrap();
    (root, scratch, workspace)
}

fn names(found: &Found) -> Vec<&str> {
    found.sources.iter().map(|source| source.name.as_str()).collect()
}

fn reason<'a>(found: &'a Found, name: &str) -> Option<&'a str> {
    found.skipped.iter().find(|skipped| skipped.name == name).map(|skipped| skipped.reason.as_str())
}

#[test]
fn output_and_matching_files_are_found() {
    let (_root, scratch, workspace) = directories();
    let output = scratch.join("output");
    for file in ["b.txt", "a.txt", "deep/er/c.bin", "result.json", "deep/result.json"] {
        fs::write(output.join(file), file).unwrap();
    }
    fs::set_permissions(output.join("b.txt"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(workspace.join(".git")).unwrap();
    for file in ["dist/app.js", "dist/js/x.js", "build.log", "dist/build.log", ".git/a.log", "src.rs"] {
        fs::write(workspace.join(file), file).unwrap();
    }
    let keep = Keep::of(&["dist/**/*.js".into(), "*.log".into()]).unwrap();
    let found = collect(Found::default(), &scratch, &workspace, &keep, &Changes::default());
    assert_eq!(
        names(&found),
        [
            "output/a.txt",
            "output/b.txt",
            "output/deep/result.json",
            "output/deep/er/c.bin",
            "workspace/build.log",
            "workspace/dist/app.js",
            "workspace/dist/js/x.js",
        ]
    );
    assert_eq!(found.sources.iter().filter(|source| source.executable).count(), 1);
    assert!(found.skipped.is_empty());
    let mut text = String::new();
    (found.sources[0].open)().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "a.txt");
    assert!(
        collect(Found::default(), &scratch, &workspace, &Keep::default(), &Changes::default()).sources.len()
            == 4
    );
}

#[test]
fn folders_that_no_glob_matches_are_not_entered() {
    let root = tempfile::tempdir().unwrap();
    let (scratch, workspace) = (root.path().join("none"), root.path().join("work"));
    for folder in ["node_modules/deep", "packages/web/dist/js", "packages/web/src", "packages/api/dist"] {
        fs::create_dir_all(workspace.join(folder)).unwrap();
        fs::write(workspace.join(folder).join("file"), "").unwrap();
    }
    let found = |globs: &[&str]| {
        let keep = Keep::of(&globs.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        let found = collect(Found::default(), &scratch, &workspace, &keep, &Changes::default());
        let names: Vec<_> = names(&found).into_iter().map(str::to_owned).collect();
        (names, found.entries)
    };
    let of_web = "workspace/packages/web/dist/js/file".to_owned();
    // Entries of the workspace, of `packages`, `web`, `dist`, `js`.
    assert_eq!(found(&["packages/web/dist/**"]), (vec![of_web.clone()], 2 + 2 + 2 + 1 + 1));
    let both = vec!["workspace/packages/api/dist/file".to_owned(), of_web.clone()];
    assert_eq!(found(&["packages/*/dist/**"]), (both.clone(), 2 + 2 + 3 + 2 + 1));
    // Anywhere, and with a slash between braces.
    assert_eq!(found(&["**/dist/**"]).0, both);
    assert_eq!(found(&["packages/{web/dist,none}/*/file"]).0, [of_web]);
    assert_eq!(found(&["*"]), (Vec::new(), 2));
}

#[test]
fn links_and_devices_are_not_followed() {
    let (root, scratch, workspace) = directories();
    let (output, secret) = (scratch.join("output"), root.path().join("secret"));
    fs::write(&secret, "of the worker").unwrap();
    symlink(&secret, output.join("link")).unwrap();
    symlink(root.path(), output.join("folder")).unwrap();
    nix::unistd::mkfifo(&output.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(output.join(std::ffi::OsStr::from_bytes(b"bad\xff")), "").unwrap();
    fs::write(output.join("new\nline"), "").unwrap();
    let found = collect(Found::default(), &scratch, &workspace, &Keep::default(), &Changes::default());
    assert_eq!(names(&found), [""; 0]);
    assert_eq!(reason(&found, "output/link"), Some("is a symbolic link"));
    assert_eq!(reason(&found, "output/folder"), Some("is a symbolic link"));
    assert_eq!(reason(&found, "output/pipe"), Some("is not a regular file"));
    assert_eq!(reason(&found, "output/new?line"), Some("its name cannot be kept"));
    assert_eq!(found.skipped.len(), 5);
}

#[test]
fn file_that_becomes_a_link_or_a_pipe_is_not_opened() {
    let (root, scratch, workspace) = directories();
    let (output, secret) = (scratch.join("output"), root.path().join("secret"));
    fs::write(&secret, "of the worker").unwrap();
    for file in ["a", "b", "deep/c"] {
        fs::write(output.join(file), "").unwrap();
    }
    let found = collect(Found::default(), &scratch, &workspace, &Keep::default(), &Changes::default());
    fs::remove_file(output.join("a")).unwrap();
    symlink(&secret, output.join("a")).unwrap();
    fs::remove_file(output.join("b")).unwrap();
    nix::unistd::mkfifo(&output.join("b"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::rename(output.join("deep"), output.join("deeper")).unwrap();
    fs::write(root.path().join("c"), "of the worker").unwrap();
    symlink(root.path(), output.join("deep")).unwrap();
    assert_eq!(found.sources.len(), 3);
    assert!(found.sources.iter().all(|source| (source.open)().is_err()));
}

#[test]
fn output_in_place_of_a_folder_is_named() {
    let (root, scratch, workspace) = directories();
    fs::remove_dir_all(scratch.join("output")).unwrap();
    assert!(
        collect(Found::default(), &scratch, &workspace, &Keep::default(), &Changes::default())
            .skipped
            .is_empty(),
        "there is none"
    );
    symlink(root.path(), scratch.join("output")).unwrap();
    let found = collect(Found::default(), &scratch, &workspace, &Keep::default(), &Changes::default());
    assert_eq!(reason(&found, "output"), Some("is not a folder"));
}

#[test]
fn checkpoints_leave_room_and_find_it() {
    let (root, scratch, workspace) = directories();
    let copies = root.path().join("copies");
    fs::create_dir_all(copies.join("checkpoint")).unwrap();
    for number in 0..3000 {
        fs::write(scratch.join(format!("output/{number}")), "").unwrap();
    }
    for number in 0..900 {
        fs::write(copies.join(format!("checkpoint/{number:0>120}")), "").unwrap();
    }
    let own = || Found::checkpoint(&copies, "talk".to_owned());
    let collected = |found: Found| {
        collect(found, &scratch, &workspace, &Keep::default(), &Changes::default()).sources.len()
    };
    let whole = own();
    assert_eq!((whole.conversation.as_deref(), whole.sources.len()), (Some("talk"), 900));
    let used = whole.list;
    let of_output = collected(Found::default());
    // One of the two is in the list.
    let next_to = collected(Found::default().reserve(used));
    assert!(next_to < of_output && next_to > 0, "{next_to} of {of_output}");
    assert_eq!(collected(own()), 900 + next_to);
    assert_eq!(collected(own().reserve(used)), 900 + next_to);
    // What is too long leaves its room to the rest.
    for number in 900..2000 {
        fs::write(copies.join(format!("checkpoint/{number:0>120}")), "").unwrap();
    }
    let long = own();
    assert!(long.conversation.is_none() && long.skipped[0].reason.contains("long names"));
    assert_eq!(collected(long), of_output);
}

#[test]
fn sizes_are_bounded() {
    let (_root, scratch, workspace) = directories();
    let output = scratch.join("output");
    let sparse = fs::File::create(output.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    fs::write(output.join("text"), "").unwrap();
    for number in 0..6000 {
        fs::write(output.join(format!("deep/{number}")), "").unwrap();
    }
    let found = collect(Found::default(), &scratch, &workspace, &Keep::default(), &Changes::default());
    assert!(reason(&found, "output/sparse").unwrap().contains("4 GiB"));
    assert!(names(&found).contains(&"output/text") && found.sources.len() < 6000);
    assert_eq!(found.skipped.len(), MAX_SKIPPED);
}

#[test]
fn files_without_end_are_not_all_looked_at() {
    let (_root, scratch, workspace) = directories();
    let deep = scratch.join("output/deep");
    for number in 0..=MAX_ENTRIES {
        fs::write(deep.join(number.to_string()), "").unwrap();
    }
    fs::create_dir_all(scratch.join("output/later")).unwrap();
    fs::write(scratch.join("output/later/file"), "").unwrap();
    let found = collect(Found::default(), &scratch, &workspace, &Keep::default(), &Changes::default());
    assert!(found.entries <= 2 * MAX_ENTRIES, "{}", found.entries);
    let more = |skipped: &SkippedFile| skipped.reason.contains("more than 100000 files and folders");
    assert!(found.skipped.iter().any(more) || found.skipped.len() == MAX_SKIPPED);
    assert!(!names(&found).contains(&"output/later/file"));
}
