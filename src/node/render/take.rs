//! Taking what a sandboxed Blender wrote out of its reach, before anybody looks at it.
//!
//! It goes on running while its results are checked and stored, outside the sandbox. A link to a file of the user's, put
//! in a result's place, would be followed then, and what it leads to sent to whoever submitted the job. So files are
//! moved to where Blender has nothing, by names that lead through no link, and are looked at there.

use super::files::ENTRIES_MAX;
use std::io;
use std::path::Path;

/// Moves a file; there need be none.
pub(super) fn take_file(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => is_file(to),
    }
}

/// Whether what was moved is a file itself; else it goes.
fn is_file(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_file() {
        return Ok(());
    }
    crate::node::leftover::remove_tree(path)?;
    let name = path.file_name().unwrap_or_default().display();
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is no file")))
}

/// Moves the files of a folder and of those below it to the folder `to`, which is made. There need be none.
#[cfg(target_os = "linux")]
pub(super) fn take_folder(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(CWD, from, flags, Mode::empty()).map_err(io::Error::from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(from) => take_all(&from, to, &mut 0),
    }
}

#[cfg(target_os = "linux")]
fn take_all(from: &std::os::fd::OwnedFd, to: &Path, seen: &mut usize) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, renameat, statat};
    use std::os::unix::ffi::OsStrExt;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    std::fs::create_dir(to)?;
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        *seen += 1;
        if *seen > ENTRIES_MAX {
            return Err(io::Error::other(format!("there are more than {ENTRIES_MAX} files and folders")));
        }
        let target = to.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            take_all(&openat(from, name, flags, Mode::empty())?, &target, seen)?;
        } else {
            renameat(from, name, CWD, &target)?;
            // Asked of what is out of reach: it may be another than the one that was looked at.
            is_file(&target)?;
        }
    }
    Ok(())
}

/// Nothing is sandboxed here.
#[cfg(not(target_os = "linux"))]
pub(super) fn take_folder(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_taken_is_files_and_never_what_a_link_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(place("user")).unwrap();
        std::fs::create_dir_all(place("files/a")).unwrap();
        std::fs::write(place("user/photo.png"), "private").unwrap();
        std::fs::write(place("files/a/b.png"), "b").unwrap();
        take_folder(&place("files"), &place("taken")).unwrap();
        assert_eq!(std::fs::read(place("taken/a/b.png")).unwrap(), b"b");
        take_folder(&place("nothing"), &place("none")).unwrap();
        take_file(&place("nothing"), &place("none")).unwrap();
        assert!(!place("none").exists());

        symlink(place("user/photo.png"), place("files/a/link.png")).unwrap();
        assert!(take_folder(&place("files"), &place("one")).unwrap_err().to_string().contains("link.png is no file"));
        symlink(place("user"), place("files/b")).unwrap();
        assert!(take_folder(&place("files"), &place("two")).unwrap_err().to_string().contains("b is no file"));
        symlink(place("user"), place("folder")).unwrap();
        assert!(take_folder(&place("folder"), &place("three")).is_err());
        symlink(place("user/photo.png"), place("image.png")).unwrap();
        assert!(take_file(&place("image.png"), &place("four")).is_err());
        assert!(take_file(&place("files"), &place("four")).is_err(), "a folder");
        assert!(!place("four").exists());
        assert_eq!(std::fs::read(place("user/photo.png")).unwrap(), b"private", "where it was");
    }

    #[test]
    fn not_more_is_taken_than_a_frame_may_have() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("files")).unwrap();
        for number in 0..=ENTRIES_MAX {
            std::fs::write(dir.path().join(format!("files/{number}")), "").unwrap();
        }
        assert!(take_folder(&dir.path().join("files"), &dir.path().join("taken")).is_err());
    }
}
