//! The API's vocabulary: what may be asked, and the message that carries it to whoever answers.
//!
//! Both sides of the loopback use these types: the command line writes them, the adapter reads them. Answers are JSON
//! values of the shapes in DESIGN §8, made by whoever answers; nothing here looks into them.

use super::error::{ApiError, ErrorKind};
use crate::farm::frames::FrameSet;
use crate::farm::id::JobId;
use crate::farm::job::{Device, Series};
use crate::farm::op::JobSetting;
use crate::farm::overrides::Overrides;
use crate::farm::rules::{Chunk, Glob, Order, Rules};
use crate::farm::settings::SwarmSetting;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Events of a stream that may wait for a slow reader (guess: a terminal keeps up with far more). A reader that falls
/// further behind makes the sender wait or drop progress; it never grows a queue.
pub const STREAM_EVENTS: usize = 64;

/// One request and where its answer goes.
#[derive(Debug)]
pub struct ApiCall {
    /// What is asked.
    pub request: ApiRequest,
    /// Where to answer. [`ApiRequest::is_stream`] tells which of the two it is.
    pub reply: Reply,
}

/// Where an answer goes. Dropping it unanswered tells the caller that the daemon stopped.
#[derive(Debug)]
pub enum Reply {
    /// One value or an error.
    Once(oneshot::Sender<Result<Value, ApiError>>),
    /// Events, each with the key `event`, until the sender is dropped; an error is the last item. An error sent first
    /// becomes the status of the response. A failed `send` means that nobody reads any more.
    Stream(mpsc::Sender<Result<Value, ApiError>>),
}

/// What may be asked. `job` is what the user wrote: an id, a unique prefix, a unique name, or `last`.
#[derive(Clone, Debug, PartialEq)]
pub enum ApiRequest {
    /// Trace, bundle and submit; then follow the job unless detached. Stream: the events of `submit`.
    Submit(Box<SubmitRequest>),
    /// Array of jobs.
    Jobs,
    /// One job.
    Job {
        /// Which.
        job: String,
    },
    /// Array of a job's frames.
    Frames {
        /// Which job.
        job: String,
        /// This one alone.
        frame: Option<i32>,
    },
    /// Array of `{frame, node, attempt, state, message, start, text}`: what the renderer printed, from byte `start` of it
    /// on, and why it failed; state is one of `failed done rendering`. Without a frame: of the failed frames, or of the
    /// latest one if none failed.
    Log {
        /// Which job.
        job: String,
        /// Which frame.
        frame: Option<i32>,
    },
    /// Lay the scene of a frame out in a folder. Answer: `{directory, blend, image, command, command_line, blender, farm,
    /// scripts}`: the command (its words, and for a shell) that renders it here as the farm does, which leaves `image`; `farm`
    /// says how the farm did it, `scripts` whether Python of the job runs.
    Debug {
        /// Which job.
        job: String,
        /// Which frame.
        frame: i32,
        /// Where to.
        target: DebugRequest,
    },
    /// Follow a job. Stream: the events of `submit` from `submitted` on.
    Watch {
        /// Which job.
        job: String,
    },
    /// Answer: the job.
    Pause {
        /// Which job.
        job: String,
    },
    /// Answer: the job.
    Resume {
        /// Which job.
        job: String,
    },
    /// Answer: the job.
    Cancel {
        /// Which job.
        job: String,
    },
    /// Forget a job that is over, on every machine and for ever. Answer: the job as it was, with `deleted`.
    Delete {
        /// Which job.
        job: String,
    },
    /// Render frames again. Answer: the job, with `requeued`, the number of frames.
    Requeue {
        /// Which job.
        job: String,
        /// These frames; the failed ones if none are named.
        frames: Option<FrameSet>,
    },
    /// Change settings. Answer: the job.
    Set {
        /// Which job.
        job: String,
        /// To what.
        changes: Box<SetRequest>,
    },
    /// Array of `{id, name, can, reason}`: how each machine stands to a job.
    Why {
        /// Which job.
        job: String,
    },
    /// Fetch a job's frames to this machine and encode its video here. Stream: the events of `submit`.
    Collect {
        /// Which job.
        job: String,
        /// Where to.
        target: CollectRequest,
    },
    /// Array of nodes. The one of this machine also says `gpu_mode`, and in `slot_gpus` the GPU of each slot that has its own;
    /// in `sandbox` `{state, message}`, state one of `on some broken off none`; and whether each Blender is `sandboxed`.
    Nodes,
    /// Start no frame on this machine until resumed. Answer: this node.
    NodePause {
        /// Stop what it renders.
        drop: bool,
    },
    /// Answer: this node.
    NodeResume,
    /// Run scripts of what a machine submits, or not any more. Answer: `{name, members, trusts, except, told}`: this
    /// machine's name, whether it trusts every member, which it does and does not, each `{id, name}`, and all of that as
    /// the rest of a sentence that begins with its name.
    Trust {
        /// A machine's name, id, or a prefix of that; `None` for every member.
        whom: Option<String>,
        /// Whether.
        trusted: bool,
    },
    /// What is set for the whole swarm: array of `{name, value, by, machines}`. The value is null where none is set; `by` is
    /// `{id, name}` of who set or lifted it, or null; `machines` is how many of those known can do as it says, or null.
    Settings,
    /// Set something for the whole swarm. Answer: as of `Settings`.
    Setting(SwarmSetting),
    /// Array of `{name, ok, message, fix}`. One that is `ok` and has a `fix` is a warning.
    Doctor,
    /// `{"code"}`.
    Invite,
    /// Join the swarm of an invite code. Answer: `{"swarm", "nodes"}`, a short name of the swarm and, of the one this
    /// machine is in already, how many others are there.
    Join {
        /// As typed, trimmed.
        code: String,
    },
}

impl ApiRequest {
    /// Whether it is answered by a stream of events.
    pub fn is_stream(&self) -> bool {
        match self {
            Self::Submit(_) | Self::Watch { .. } | Self::Collect { .. } => true,
            Self::Jobs
            | Self::Job { .. }
            | Self::Frames { .. }
            | Self::Log { .. }
            | Self::Debug { .. }
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Cancel { .. }
            | Self::Delete { .. }
            | Self::Requeue { .. }
            | Self::Set { .. }
            | Self::Why { .. }
            | Self::Nodes
            | Self::NodePause { .. }
            | Self::NodeResume
            | Self::Trust { .. }
            | Self::Settings
            | Self::Setting(_)
            | Self::Doctor
            | Self::Invite
            | Self::Join { .. } => false,
        }
    }
}

/// Body of `POST /v1/jobs`. `None` leaves what the scene says, or the default of DESIGN §8.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// Absolute path of the .blend.
    pub file: PathBuf,
    /// Login name of the caller.
    pub user: String,
    /// Name of the job; the file's without extension by default.
    #[serde(default)]
    pub name: Option<String>,
    /// Frames as text, such as `1-250,300-400x2`.
    #[serde(default)]
    pub frames: Option<String>,
    /// Engine, as the user wrote it: Blender's name, or `cycles`, `eevee`, `workbench`.
    #[serde(default)]
    pub engine: Option<String>,
    /// Samples per pixel, at least 1.
    #[serde(default)]
    pub samples: Option<u32>,
    /// Width and height in pixels, instead of the scene's size and percentage.
    #[serde(default)]
    pub resolution: Option<(u32, u32)>,
    /// Percentage of the size the scene renders at, or of `resolution`; at least 1.
    #[serde(default)]
    pub percent: Option<u32>,
    /// Frames per second of the video alone.
    #[serde(default)]
    pub fps: Option<f64>,
    /// Format of the frames.
    #[serde(default)]
    pub format: Option<FormatChoice>,
    /// Compute device.
    #[serde(default)]
    pub device: Device,
    /// Release series of Blender; the swarm's, if one is set, else one that suits the file.
    #[serde(default)]
    pub series: Option<Series>,
    /// 0 to 100; 50 by default.
    #[serde(default)]
    pub priority: Option<u8>,
    /// Absolute; a trailing slash or a last component with `#` is kept as the user wrote it.
    #[serde(default)]
    pub output: Option<PathBuf>,
    /// Which video to make.
    #[serde(default)]
    pub video: VideoChoice,
    /// Make the video without the scene's sound.
    #[serde(default)]
    pub no_audio: bool,
    /// Put all results into a ZIP file too.
    #[serde(default)]
    pub zip: bool,
    /// End the stream once another node holds the whole bundle.
    #[serde(default)]
    pub detach: bool,
    /// Submit although files of the scene are missing.
    #[serde(default)]
    pub allow_missing: bool,
    /// Where paths of other machines that the scene stores are on this one; the first that fits counts.
    #[serde(default)]
    pub map: Vec<MapRequest>,
    /// Absolute paths of files and folders that travel too. Below the folder of the .blend they keep their place relative to
    /// it; others lie beside it under their own names.
    #[serde(default)]
    pub include: Vec<PathBuf>,
    /// The OpenColorIO configuration that the caller works with; without one the job has Blender's own colours, whatever the
    /// environment of a node says.
    #[serde(default)]
    pub ocio: Option<OcioRequest>,
    /// Only check it: the last event is `checked`, with what DESIGN §8 lists, and nothing is submitted.
    #[serde(default)]
    pub check: bool,
    /// Submit although simulations of the scene are not baked; frames then depend on what is rendered before them.
    #[serde(default)]
    pub allow_unbaked: bool,
    /// Render every frame anew, also those that another job has of the same scene with the same settings.
    #[serde(default)]
    pub no_reuse: bool,
    /// Do not render frames whose files are in the output folder, whole.
    #[serde(default)]
    pub keep_existing: bool,
    /// Render frames of this job from the file, instead of submitting a new one. What belongs to the whole job (its name,
    /// output, video, rate, series and priority) stays as it is.
    #[serde(default)]
    pub update: Option<String>,
    /// Which machines may render it, how, and until when.
    #[serde(default)]
    pub rules: RulesRequest,
    /// What of the file is rendered, and properties set before that.
    #[serde(default)]
    pub overrides: Overrides,
    /// Run scripts and Python drivers in its files, where the machine trusts this one.
    #[serde(default)]
    pub scripts: bool,
    /// Absolute path of a Python script that is run in the open scene before its first frame, on machines that trust this one.
    #[serde(default)]
    pub script: Option<PathBuf>,
}

/// Stored paths that begin with `from` are found in `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapRequest {
    /// As stored: `P:\`, `\\server\share`, `/home/me`.
    pub from: String,
    /// A folder on this machine, absolute.
    pub to: PathBuf,
}

/// The caller's `OCIO`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OcioRequest {
    /// Absolute path of the configuration, or the name of one that is built into OpenColorIO, `ocio://…`.
    pub config: String,
    /// Environment variables of the caller that occur in it.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
}

/// Body of `POST /v1/jobs/JOB/set`. What is not named stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SetRequest {
    /// 0 to 100.
    pub priority: Option<u8>,
    /// The rest.
    pub rules: RulesRequest,
}

/// Rules of a job, as in [`Rules`](crate::farm::rules::Rules). What is not named stays as it is; `null` lifts a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RulesRequest {
    /// Most machines at once.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub max_nodes: Option<Option<u32>>,
    /// Labels a machine needs; an empty list lifts the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeSet<String>>,
    /// Pattern of a usable card's name.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub gpu_name: Option<Option<Glob>>,
    /// Memory a machine needs free, bytes.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub min_memory_bytes: Option<Option<u64>>,
    /// Which frames come first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// Frames a machine claims at once: `"auto"`, `"all"` or `{"units": N}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk: Option<Chunk>,
    /// Attempts elsewhere after a failed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u8>,
    /// Longest time of a frame.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub time_limit_seconds: Option<Option<u64>>,
    /// Time from the submission until the job is canceled.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<Option<u64>>,
    /// The job that comes first, as people name one.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub after: Option<Option<String>>,
    /// Nothing starts until the job is resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

impl RulesRequest {
    /// The settings it comes to; `after` is the job it names.
    ///
    /// # Errors
    /// What no job can have.
    pub fn settings(self, after: Option<JobId>) -> Result<Vec<JobSetting>, ApiError> {
        let seconds = |time: Option<u64>| time.map(Duration::from_secs);
        let settings: Vec<JobSetting> = [
            self.max_nodes.map(JobSetting::MaxNodes),
            self.tags.map(JobSetting::Tags),
            self.gpu_name.map(JobSetting::GpuName),
            self.min_memory_bytes.map(JobSetting::MinMemory),
            self.order.map(JobSetting::Order),
            self.chunk.map(JobSetting::Chunk),
            self.retries.map(JobSetting::Retries),
            self.time_limit_seconds.map(|time| JobSetting::TimeLimit(seconds(time))),
            self.deadline_seconds.map(|time| JobSetting::Deadline(seconds(time))),
            self.after.map(|_| JobSetting::After(after)),
            self.paused.map(JobSetting::Paused),
        ]
        .into_iter()
        .flatten()
        .collect();
        let (mut priority, mut rules) = (0, Rules::default());
        settings.iter().for_each(|setting| setting.apply(&mut priority, &mut rules));
        let cannot = |why| ApiError::new(ErrorKind::BadRequest, format!("no job can have these rules: {why}"));
        rules.check().map_err(cannot)?;
        Ok(settings)
    }
}

/// Tells a value that is `null` from one that is not named.
fn named<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// Body of `POST /v1/jobs/JOB/collect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectRequest {
    /// Absolute path of the caller's working directory: the default output is made there if the job's own folder does
    /// not exist on this machine.
    pub cwd: PathBuf,
    /// Absolute, as in [`SubmitRequest::output`].
    #[serde(default)]
    pub output: Option<PathBuf>,
    /// Which video to make.
    #[serde(default)]
    pub video: VideoChoice,
    /// Put all results into a ZIP file too.
    #[serde(default)]
    pub zip: bool,
}

/// Body of `POST /v1/jobs/JOB/debug`, beside the frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebugRequest {
    /// Absolute path of the caller's working directory, below which the default folder is.
    pub cwd: PathBuf,
    /// The folder, absolute.
    #[serde(default)]
    pub output: Option<PathBuf>,
}

/// Which video a job makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VideoChoice {
    /// `NAME.mp4` beside the frames.
    #[default]
    Default,
    /// None.
    None,
    /// This file, absolute.
    File(PathBuf),
}

/// Which format frames have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FormatChoice {
    /// PNG of 8 bits a channel.
    Png,
    /// PNG of 16 bits a channel.
    Png16,
    /// JPEG.
    Jpeg,
    /// OpenEXR.
    Exr,
    /// OpenEXR with all passes.
    ExrMultilayer,
    /// TIFF.
    Tiff,
    /// WebP.
    Webp,
}

impl std::str::FromStr for FormatChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "png" => Self::Png,
            "png16" => Self::Png16,
            "jpeg" => Self::Jpeg,
            "exr" => Self::Exr,
            "exr-multilayer" => Self::ExrMultilayer,
            "tiff" => Self::Tiff,
            "webp" => Self::Webp,
            _ => return Err("it is png, png16, jpeg, exr, exr-multilayer, tiff or webp".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_called_the_same_on_the_command_line_and_in_requests() {
        for word in ["png", "png16", "jpeg", "exr", "exr-multilayer", "tiff", "webp"] {
            let choice: FormatChoice = word.parse().expect("a format");
            assert_eq!(serde_json::to_value(choice).expect("serializes"), word);
        }
    }

    #[test]
    fn a_submit_request_needs_no_more_than_file_and_user_and_keeps_output_patterns() {
        let json = r##"{"file": "/s/a.blend", "user": "anna", "output": "/s/out/f_###", "video": "none"}"##;
        let request: SubmitRequest = serde_json::from_str(json).expect("valid");
        assert_eq!(request.output.as_deref().and_then(|p| p.to_str()), Some("/s/out/f_###"));
        assert_eq!((request.device, request.video.clone()), (Device::Auto, VideoChoice::None));
        let again = serde_json::to_string(&request).expect("serializes");
        assert_eq!(serde_json::from_str::<SubmitRequest>(&again).expect("valid"), request);
        assert!(serde_json::from_str::<SubmitRequest>(r#"{"file": "/a", "user": "u", "fast": 1}"#).is_err());
    }
}
