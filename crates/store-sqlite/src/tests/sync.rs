//! A disk that loses what is copied from the log into the database: the writer ends, and the log stays.

use std::fs;
use std::os::fd::RawFd;
use std::path::Path;
use std::thread;

use rota_store::Error;
use rota_store::engine::Engine;
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

#[test]
fn lost_sync_of_database_keeps_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("rota.db");
    let (writer, readers) = crate::open_connections(&path).unwrap();
    let mut engine = Engine::new(writer, 0).unwrap();
    let database = descriptors(&path);
    let (engine, written) = thread::spawn(move || {
        fail_syncs(&database);
        let mut written = 0;
        while written < 100 {
            match engine.run(vec![create(written, 100_000)], NOW) {
                Ok(_) => written += 1,
                Err(Error::LostSync(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
        (engine, written)
    })
    .join()
    .unwrap();
    assert!((1..100).contains(&written), "{written}");
    drop(engine);
    drop(readers);
    let log = fs::metadata(folder.path().join("rota.db-wal")).unwrap();
    assert!(log.len() > 100_000, "{}", log.len());
    let (writer, readers) = crate::open_connections(&path).unwrap();
    drop(writer);
    for number in 0..written {
        assert!(rota_store::Reader::task(&readers, &scoped(number)).unwrap().is_some(), "{number}");
    }
}
