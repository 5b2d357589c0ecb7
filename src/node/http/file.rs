//! `api.json`: how a command finds the daemon of a data directory, and proves that it may talk to it.
//!
//! Whoever can read the file may command the daemon, so nobody but its owner can.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Its name in the data directory.
pub const FILE_NAME: &str = "api.json";
/// Longest `api.json` that is read, bytes (guess; a real one has about 150).
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// Where a daemon listens and what it wants to hear.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiFile {
    /// A loopback address.
    pub address: SocketAddr,
    /// The bearer token, 64 hexadecimal digits drawn at every start.
    pub token: String,
    /// Process id of the daemon, for messages.
    pub pid: u32,
    /// Whether it is no daemon but another command, with whose end it ends.
    #[serde(default)]
    pub embedded: bool,
}

impl std::fmt::Debug for ApiFile {
    /// Without the token: logs are shown around.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiFile({} of process {})", self.address, self.pid)
    }
}

impl ApiFile {
    /// The path in this data directory.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(FILE_NAME)
    }

    /// Writes it so that it appears whole and is readable by its owner alone from its first byte on.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let path = Self::path(data_dir);
        let half = data_dir.join(format!("{FILE_NAME}.{}.part", self.pid));
        let result = (|| {
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            // A part left by a dead process of the same id would have rights of its own.
            match fs::remove_file(&half) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = options.open(&half)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&half, &path)
        })();
        if result.is_err() {
            let _ = fs::remove_file(&half);
        }
        result
    }

    /// Reads it; `None` when there is none, or none that makes sense (no daemon wrote that).
    pub fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        let file = match fs::File::open(Self::path(data_dir)) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(FILE_MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes).ok())
    }

    /// Removes it when the daemon stops, unless another one has put its own there meanwhile.
    pub fn remove(&self, data_dir: &Path) -> io::Result<()> {
        if Self::read(data_dir)?.as_ref() == Some(self) { fs::remove_file(Self::path(data_dir)) } else { Ok(()) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(pid: u32) -> ApiFile {
        ApiFile { address: "127.0.0.1:1".parse().unwrap(), token: "00".repeat(32), pid, embedded: false }
    }

    #[test]
    fn the_file_is_its_owners_alone_and_goes_only_with_its_own_daemon() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ApiFile::read(dir.path()).unwrap(), None);
        file(1).write(dir.path()).unwrap();
        file(2).write(dir.path()).unwrap();
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(
                &fs::metadata(ApiFile::path(dir.path())).unwrap().permissions(),
            );
            assert_eq!(mode & 0o777, 0o600);
        }
        file(1).remove(dir.path()).unwrap();
        assert_eq!(ApiFile::read(dir.path()).unwrap(), Some(file(2)));
        file(2).remove(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_torn_file_means_no_daemon() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(ApiFile::path(dir.path()), b"{\"address\": \"127.0").unwrap();
        assert_eq!(ApiFile::read(dir.path()).unwrap(), None);
    }
}
