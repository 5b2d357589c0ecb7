//! Everything the API can answer instead of an answer: one table of kinds.
//!
//! A kind is for programs (`--json` prints it, scripts match on it) and is never renamed; the message is for people and
//! says what happened, to what, and what to do.

use serde_json::{Value, json};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $exit:literal;)*) => {
        /// What kind of error it is. Each has a name in JSON (its own in snake case), an HTTP status and an exit code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ErrorKind { $($(#[$doc])* $name,)* }

        impl ErrorKind {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name in JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status it is answered with.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// The exit code of a command that ends with it: 1 failed, 2 usage, 4 no daemon.
            pub fn exit_code(self) -> u8 {
                match self { $(Self::$name => $exit,)* }
            }
        }
    };
}

kinds! {
    // -- how it was asked ---------------------------------------------------------------------------------------------
    /// The command line is not one `swarm` understands.
    Usage = "usage", 400, 2;
    /// The frames asked for are reversed, empty or not numbers.
    BadFrames = "bad_frames", 400, 2;
    /// The request is not one the API understands, or its values make no sense.
    BadRequest = "bad_request", 400, 1;
    /// The token is missing or wrong.
    Unauthorized = "unauthorized", 401, 1;
    /// The `Host` header names another machine: a web page may be behind it.
    ForbiddenHost = "forbidden_host", 403, 1;
    /// No such address in the API.
    NotFound = "not_found", 404, 1;
    /// The request is longer than any real one.
    TooLarge = "too_large", 413, 1;
    // -- the daemon ---------------------------------------------------------------------------------------------------
    /// No daemon runs for this data directory.
    NoDaemon = "no_daemon", 503, 4;
    /// The daemon is there and does not answer in time, or breaks off.
    DaemonSilent = "daemon_silent", 504, 1;
    /// The daemon is stopping, or has more requests in hand than it takes.
    Busy = "busy", 503, 1;
    /// Another daemon uses this data directory.
    DataDirInUse = "data_dir_in_use", 409, 1;
    /// The data directory cannot be created, read or written.
    DataDir = "data_dir", 500, 1;
    /// The store cannot be read.
    StoreUnreadable = "store_unreadable", 500, 1;
    /// The store was written by a newer `swarm`.
    StoreNewer = "store_newer", 500, 1;
    /// The port asked for is taken.
    PortTaken = "port_taken", 409, 1;
    /// The address to listen on, or of a peer, is not usable.
    BadAddress = "bad_address", 400, 1;
    // -- the scene ----------------------------------------------------------------------------------------------------
    /// No such file.
    FileNotFound = "file_not_found", 404, 1;
    /// The file is there and cannot be read, or changed while being read.
    FileUnreadable = "file_unreadable", 409, 1;
    /// The file is not a .blend.
    NotABlend = "not_a_blend", 422, 1;
    /// The file is a .blend, cut short or damaged.
    BlendDamaged = "blend_damaged", 422, 1;
    /// The scene has no camera.
    NoCamera = "no_camera", 422, 1;
    /// The file has no such scene, camera or view layer as is asked for.
    NotInFile = "not_in_file", 422, 1;
    /// The scene refers to files that are not there.
    MissingFiles = "missing_files", 422, 1;
    /// The scene has simulations without a bake, whose frames would depend on the order they are rendered in.
    NotBaked = "not_baked", 422, 1;
    /// The scene asks for an engine or setting that cannot be rendered.
    Unsupported = "unsupported", 422, 1;
    // -- who could render it ------------------------------------------------------------------------------------------
    /// No machine here has a Blender.
    NoBlender = "no_blender", 409, 1;
    /// No machine here has a Blender of the series wanted, or one that may open the file.
    NoSeries = "no_series", 409, 1;
    /// There is a Blender and it cannot start.
    BlenderBroken = "blender_broken", 409, 1;
    /// The scene denoises and no Blender of the series can.
    NoDenoiser = "no_denoiser", 409, 1;
    /// The job asks for a GPU and no machine has a usable one.
    NoGpu = "no_gpu", 409, 1;
    /// The job has scripts, and no machine that could render it trusts the one that submits.
    Untrusted = "untrusted", 409, 1;
    // -- the results --------------------------------------------------------------------------------------------------
    /// The output folder or video file cannot be written.
    OutputUnwritable = "output_unwritable", 409, 1;
    /// A disk is full.
    NoSpace = "no_space", 507, 1;
    /// The video could not be encoded; the frames are kept.
    VideoFailed = "video_failed", 500, 1;
    /// The job ended with failed frames or was canceled.
    JobFailed = "job_failed", 409, 3;
    // -- jobs ---------------------------------------------------------------------------------------------------------
    /// No job has this id or name.
    JobNotFound = "job_not_found", 404, 1;
    /// Several jobs have ids that begin so, or this name.
    JobAmbiguous = "job_ambiguous", 409, 1;
    /// The job is in a state that does not allow it, such as pausing one that is over.
    JobState = "job_state", 409, 1;
    /// The frame is not one of the job's.
    FrameNotFound = "frame_not_found", 404, 1;
    // -- the swarm ----------------------------------------------------------------------------------------------------
    /// The invite code is not one, or was mistyped.
    BadCode = "bad_code", 400, 1;
    /// No machine has this name or id.
    NodeNotFound = "node_not_found", 404, 1;
    /// Several machines have this name, or ids that begin so.
    NodeAmbiguous = "node_ambiguous", 409, 1;
    // -- the rest -----------------------------------------------------------------------------------------------------
    /// Something that is a fault of `swarm`.
    Internal = "internal", 500, 1;
}

impl ErrorKind {
    /// The kind with this name; `Internal` for one that a newer daemon may have.
    pub fn from_name(name: &str) -> Self {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name).unwrap_or(Self::Internal)
    }
}

/// An error as it is answered: `{"error": {"kind", "message"}}`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For programs.
    pub kind: ErrorKind,
    /// For people: one sentence, without a trailing period where it reads well, never a backtrace.
    pub message: String,
}

impl ApiError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The object that travels.
    pub fn to_json(&self) -> Value {
        json!({"error": {"kind": self.kind.as_str(), "message": self.message}})
    }

    /// Reads [`to_json`](Self::to_json) back; `None` when it is something else.
    pub fn from_json(value: &Value) -> Option<Self> {
        let error = value.get("error")?;
        let text = |key: &str| error.get(key).and_then(Value::as_str);
        Some(Self { kind: ErrorKind::from_name(text("kind")?), message: text("message")?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_named_once_and_survives_its_json() {
        for (at, kind) in ErrorKind::ALL.iter().enumerate() {
            assert_eq!(ErrorKind::ALL.iter().position(|other| other.as_str() == kind.as_str()), Some(at));
            let error = ApiError::new(*kind, "what happened");
            assert_eq!(ApiError::from_json(&error.to_json()), Some(error));
            assert!((400..600).contains(&kind.status()) && (1..=4).contains(&kind.exit_code()), "{kind:?}");
        }
        assert_eq!(ErrorKind::from_name("of_a_later_version"), ErrorKind::Internal);
    }
}
