//! A disk that loses what is copied from the log into the database: the writer ends, and the log stays.

use std::fs;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use rota_store::engine::Engine;
use rota_store::{Error, Reader};
use rusqlite::Connection;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::{NOW, create, scoped};

/// Open descriptors of a file in this process.
fn descriptors(path: &Path) -> Vec<RawFd> {
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let of_file = open.filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == path));
    of_file.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// Makes each sync of these fail in this thread, until it ends.
fn fail_syncs(descriptors: &[RawFd]) {
    let is_of = |&descriptor: &RawFd| {
        let value = u64::from(descriptor.unsigned_abs());
        let same = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap();
        SeccompRule::new(vec![same]).unwrap()
    };
    let rules: Vec<SeccompRule> = descriptors.iter().map(is_of).collect();
    let calls = [nix::libc::SYS_fsync, nix::libc::SYS_fdatasync].map(|call| (call, rules.clone()));
    let answer = SeccompAction::Errno(nix::libc::EIO.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(calls.into(), SeccompAction::Allow, answer, arch).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// Overwrites the pages of a database that its log has, as if a lost sync had dropped what was copied.
fn lose_copied_pages(database: &Path, log: &[u8]) {
    let number = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
    let size = usize::try_from(number(8)).unwrap();
    let file = fs::File::options().write(true).open(database).unwrap();
    for frame in (32..log.len()).step_by(24 + size) {
        file.write_all_at(&vec![0; size], u64::from(number(frame) - 1) * size as u64).unwrap();
    }
}

/// The checkpoint during which a reader uses the log is not synced. The next one does not copy the same pages again, and loses them in
/// its sync.
#[test]
fn lost_sync_of_database_keeps_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("rota.db");
    let log = path.with_file_name("rota.db-wal");
    let (writer, readers) = crate::open_connections(&path).unwrap();
    let mut engine = Engine::new(writer, 0).unwrap();
    let mut written = 0;
    let mut put =
        |engine: &mut Engine<_>| engine.run(vec![create(written, 100_000)], NOW).map(|_| written += 1);
    for _ in 0..10 {
        put(&mut engine).unwrap();
    }
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM tasks").unwrap();
    for _ in 0..50 {
        put(&mut engine).unwrap();
    }
    drop(reader);
    let database = descriptors(&path);
    let failing = thread::spawn(move || {
        fail_syncs(&database);
        let failed = engine.run(vec![create(100, 10)], NOW).map(drop);
        (engine, failed)
    });
    let (engine, failed) = failing.join().unwrap();
    assert!(matches!(failed, Err(Error::LostSync(_))), "{failed:?}");
    drop((engine, readers));
    lose_copied_pages(&path, &fs::read(&log).unwrap());
    // Twice: with the log, and with what the first opening has copied of it.
    for _ in 0..2 {
        let (writer, readers) = crate::open_connections(&path).unwrap();
        assert!(fs::metadata(&log).unwrap().len() < 100_000, "the log has ended");
        for number in (0..written).chain([100]) {
            assert!(readers.task(&scoped(number)).unwrap().is_some(), "{number}");
        }
        drop(writer);
    }
}
