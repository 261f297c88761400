//! Directories that programs of attempts may write, as the worker opens them. It has more rights than those programs, so it follows
//! no link out of a directory, waits for no pipe, and blames what is in the way on them. Knows no names within.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

/// Opens a directory by an absolute path, no part of which may be a link: a program may have put it there.
pub(crate) fn open(path: &Path) -> io::Result<Dir> {
    let step = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut parts = path.components().peekable();
    if parts.next() != Some(Component::RootDir) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "the path is not absolute"));
    }
    // Directories on the way need not be readable.
    let flags = |is_last| if is_last { step } else { step | OFlag::O_PATH };
    let mut folder: OwnedFd = openat(AT_FDCWD, "/", flags(parts.peek().is_none()), Mode::empty())?;
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the path leads back"));
        };
        folder = openat(folder.as_fd(), name, flags(parts.peek().is_none()), Mode::empty())?;
    }
    Ok(Dir::from_std_file(File::from(folder)))
}

/// Makes sure that a directory has this one, which is no link.
pub(crate) fn make(folder: &Dir, name: &Path) -> io::Result<()> {
    match folder.create_dir(name) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            match folder.symlink_metadata(name)?.is_dir() {
                true => Ok(()),
                false => {
                    let text = format!("{} is not a directory", name.display());
                    Err(io::Error::new(ErrorKind::NotADirectory, text))
                }
            }
        }
        made => made,
    }
}

/// Removes what is there, if anything is.
pub(crate) fn remove(folder: &Dir, path: &Path) -> io::Result<()> {
    let removed = match folder.symlink_metadata(path) {
        Ok(found) if found.is_dir() => folder.remove_dir_all(path),
        Ok(_) => folder.remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Writes a new file that only this user can read, in place of what is there.
pub(crate) fn replace(folder: &Dir, path: &Path, text: &[u8]) -> io::Result<()> {
    remove(folder, path)?;
    let mut options = OpenOptions::new();
    let mut file = folder.open_with(path, options.write(true).create_new(true).mode(0o600))?;
    file.write_all(text)
}

/// Opens a file with these options, unless something else is there.
pub(crate) fn open_file(folder: &Dir, path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let irregular = || io::Error::other("is not a regular file");
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = folder.open_with(path, options.custom_flags(flags.bits()));
    let file = opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        // A link; a pipe without a reader.
        Some(Errno::ELOOP | Errno::ENXIO) => irregular(),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file.into_std()) } else { Err(irregular()) }
}

/// Whether an error is of the machine or its disk, and not of what programs have put there.
pub(crate) fn is_of_machine(error: &io::Error) -> bool {
    const ERRORS: [Errno; 9] = [
        Errno::EDQUOT,
        Errno::EIO,
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::ENODEV,
        Errno::ENOMEM,
        Errno::ENOSPC,
        Errno::EROFS,
        Errno::ESTALE,
    ];
    match error.raw_os_error() {
        Some(code) => ERRORS.contains(&Errno::from_raw(code)),
        // One with the path in its text keeps only the kind.
        None => matches!(
            error.kind(),
            ErrorKind::OutOfMemory
                | ErrorKind::QuotaExceeded
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::StaleNetworkFileHandle
                | ErrorKind::StorageFull
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A directory that programs may write, and a file outside of it.
    fn folders() -> (tempfile::TempDir, Dir, std::path::PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (inside, outside) = (root.path().join("inside"), root.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "of the user").unwrap();
        let folder = open(&inside).unwrap();
        (root, folder, outside)
    }

    #[test]
    fn directories_behind_links_are_not_opened() {
        let (root, _, outside) = folders();
        symlink(&outside, root.path().join("link")).unwrap();
        fs::create_dir(outside.join("deep")).unwrap();
        for path in ["link", "link/deep", "inside/../outside", "outside/file"] {
            assert!(open(&root.path().join(path)).is_err(), "{path}");
        }
        assert!(open(Path::new("relative")).is_err());
        open(Path::new("/")).unwrap().entries().unwrap();
        // One that cannot be listed is in the way of none below.
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o300)).unwrap();
        assert!(open(&outside.join("deep")).is_ok());
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn what_is_in_the_way_is_replaced() {
        let (root, folder, outside) = folders();
        let (inside, name) = (root.path().join("inside"), Path::new("settings"));
        let mut ways: Vec<Box<dyn Fn()>> = vec![Box::new(|| {})];
        ways.push(Box::new(|| symlink(outside.join("file"), inside.join(name)).unwrap()));
        ways.push(Box::new(|| {
            fs::create_dir(inside.join(name)).unwrap();
            symlink(&outside, inside.join(name).join("deep")).unwrap();
        }));
        ways.push(Box::new(|| nix::unistd::mkfifo(&inside.join(name), Mode::S_IRWXU).unwrap()));
        for put in ways {
            remove(&folder, name).unwrap();
            put();
            replace(&folder, name, b"of Rota").unwrap();
            assert_eq!(fs::read_to_string(inside.join(name)).unwrap(), "of Rota");
            assert_eq!(fs::symlink_metadata(inside.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "of the user");
    }

    #[test]
    fn only_files_within_are_opened() {
        let (root, folder, outside) = folders();
        let inside = root.path().join("inside");
        symlink(outside.join("file"), inside.join("link")).unwrap();
        symlink(&outside, inside.join("folder")).unwrap();
        symlink(outside.join("made"), inside.join("dangling")).unwrap();
        nix::unistd::mkfifo(&inside.join("pipe"), Mode::S_IRWXU).unwrap();
        for path in ["link", "folder/file", "folder/made", "dangling", "pipe", "../outside/file"] {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            let failed = open_file(&folder, Path::new(path), &mut options).unwrap_err();
            assert!(!is_of_machine(&failed), "{path}: {failed}");
        }
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "of the user");
        assert!(!outside.join("made").exists());
        assert!(make(&folder, Path::new("folder")).is_err() && make(&folder, Path::new("link")).is_err());
        make(&folder, Path::new("new")).unwrap();
        make(&folder, Path::new("new")).unwrap();
    }

    #[test]
    fn machine_has_these_faults() {
        let all: Vec<_> = (1..=133).map(io::Error::from_raw_os_error).collect();
        let code = |error: &&io::Error| error.raw_os_error().map(Errno::from_raw).unwrap();
        let mut faults: Vec<_> =
            all.iter().filter(|error| is_of_machine(error)).map(|error| code(&error)).collect();
        faults.sort_by_key(|errno| format!("{errno:?}"));
        use Errno::{EDQUOT, EIO, EMFILE, ENFILE, ENODEV, ENOMEM, ENOSPC, EROFS, ESTALE};
        assert_eq!(faults, [EDQUOT, EIO, EMFILE, ENFILE, ENODEV, ENOMEM, ENOSPC, EROFS, ESTALE]);
        // With a text, as far as they have kinds of their own.
        let named = |error: &io::Error| is_of_machine(&io::Error::new(error.kind(), "at /path"));
        let faults: Vec<_> = all.iter().filter(|error| named(error)).map(|error| code(&error)).collect();
        assert_eq!(faults, [ENOMEM, ENOSPC, EROFS, ESTALE, EDQUOT]);
    }
}
