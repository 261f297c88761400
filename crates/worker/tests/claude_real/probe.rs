//! What the worker uses of the CLI and the CLI does not document, in a worker of its own at its start.

use std::path::Path;

use super::case::CLI;

#[tokio::test]
async fn the_tested_version_lacks_nothing() {
    let state = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let missing = rota_worker::runtimes::claude::missing(Path::new(CLI.as_str()), state.path()).await;
        assert_eq!(missing, Vec::<String>::new());
    }
    // Nothing is left but the result and the lock of those who look for it.
    let mut left: Vec<_> =
        std::fs::read_dir(state.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    left.sort();
    assert_eq!(left, ["claude-probe.json", "claude-probe.lock"]);
}
