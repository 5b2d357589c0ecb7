//! What a node is told at its start, and why it may not run.

use super::gpus::GpuMode;
use super::http::{ApiError, ErrorKind};
use super::net::NetError;
use super::store::StoreError;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// What a node is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Made if it is not there.
    pub data_dir: PathBuf,
    /// Name in the swarm; `None`: the host's.
    pub name: Option<String>,
    /// TCP port for members: given and taken is an error; `None`: the default one or the next free.
    pub port: Option<u16>,
    /// Addresses to listen on; none: all.
    pub listen: Vec<IpAddr>,
    /// Loopback address of the API; `None`: 127.0.0.1 and a port the system picks.
    pub api: Option<SocketAddr>,
    /// Addresses of other machines, as typed.
    pub peers: Vec<String>,
    /// Frames rendered at the same time; 0: Blender is looked for and not used.
    pub slots: Option<u32>,
    /// How those share the GPUs.
    pub gpu_mode: GpuMode,
    /// Blenders to use beside those found.
    pub blender: Vec<PathBuf>,
    /// CPU threads of each Blender.
    pub threads: Option<u32>,
    /// Labels that jobs can ask for.
    pub tags: Vec<String>,
    /// Look for other machines by multicast.
    pub mdns: bool,
    /// Render here; otherwise not even look for Blender.
    pub render: bool,
    /// Render in a sandbox where there is one.
    pub sandbox: bool,
    /// Inside another command.
    pub embedded: bool,
}

impl Options {
    /// What a node inside another command is started with.
    pub fn embedded(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            name: None,
            port: None,
            listen: Vec::new(),
            api: None,
            peers: Vec::new(),
            slots: None,
            gpu_mode: GpuMode::All,
            blender: Vec::new(),
            threads: None,
            tags: Vec::new(),
            mdns: true,
            render: true,
            sandbox: true,
            embedded: true,
        }
    }
}

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that writes the store.
    #[error("the thread that writes the store has ended; start swarm again, and report this with the log above")]
    Storage,
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The API's socket.
    #[error("the API cannot listen on {address}: {source}; choose another address with --api")]
    Api {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the data directory.
    #[error("{} cannot be written: {source}; check that the disk has room and this user may write there", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl From<&NodeError> for ApiError {
    fn from(error: &NodeError) -> Self {
        let kind = match error {
            NodeError::Store(StoreError::InUse { .. }) => ErrorKind::DataDirInUse,
            NodeError::Store(StoreError::Newer { .. }) => ErrorKind::StoreNewer,
            NodeError::Store(StoreError::Unreadable { .. }) => ErrorKind::StoreUnreadable,
            NodeError::Store(_) | NodeError::DataDir { .. } => ErrorKind::DataDir,
            NodeError::Net(NetError::PortTaken(_) | NetError::NoPort { .. }) => ErrorKind::PortTaken,
            NodeError::Net(NetError::Listen { .. } | NetError::Peer(_)) => ErrorKind::BadAddress,
            NodeError::Net(NetError::Encryption(_)) | NodeError::Storage => ErrorKind::Internal,
            NodeError::Api { .. } => ErrorKind::PortTaken,
        };
        Self::new(kind, error.to_string())
    }
}
