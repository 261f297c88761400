//! Processes of the node, where the node is a part of this machine.

/// How many processes have this command line; `None` where the cluster is elsewhere.
pub fn processes(words: &str) -> Option<usize> {
    rota_telemetry::env::var_os("ROTA_CLUSTER_AUDIT")?;
    let folders = std::fs::read_dir("/proc").ok()?.flatten();
    let lines = folders.filter_map(|folder| std::fs::read(folder.path().join("cmdline")).ok());
    let same = |line: &Vec<u8>| {
        let line = String::from_utf8_lossy(line).replace('\0', " ");
        line.trim_end() == words
    };
    Some(lines.filter(same).count())
}
