//! Processes of the node, if the node runs on this machine.

use std::ffi::OsString;

/// File of the API server's audit log, if the node runs on this machine. In CI it does: what is checked there alone must not
/// be left out.
pub(crate) fn audit_log() -> Option<OsString> {
    let log = rota_telemetry::env::var_os("ROTA_CLUSTER_AUDIT");
    let may_be_elsewhere = rota_telemetry::env::var("CI").is_none();
    assert!(log.is_some() || may_be_elsewhere, "the tests do not run in the cluster of tests/cluster");
    log
}

/// Counts the processes with this command line. Returns `None` if the cluster runs elsewhere, which fails in CI.
pub fn processes(command_line: &str) -> Option<usize> {
    audit_log()?;
    let folders = match std::fs::read_dir("/proc") {
        Ok(folders) => folders.flatten(),
        Err(error) => panic!("/proc: {error}"),
    };
    let lines = folders.filter_map(|folder| std::fs::read(folder.path().join("cmdline")).ok());
    let same = |line: &Vec<u8>| {
        let line = String::from_utf8_lossy(line).replace('\0', " ");
        line.trim_end() == command_line
    };
    Some(lines.filter(same).count())
}
