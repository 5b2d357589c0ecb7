//! The command grammar: what may be typed. Values are parsed here into types that cannot be wrong.

use super::rules::{RuleArgs, tag};
use crate::farm::frames::FrameSet;
use crate::farm::job::{Device, Series};
use crate::farm::overrides::Property;
use crate::node::GpuMode;
use crate::node::http::FormatChoice;
use clap::builder::NonEmptyStringValueParser as Text;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Render Blender scenes on every machine of a studio, without a server.
#[derive(Debug, Parser)]
#[command(name = "swarm", version, about, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Where the daemon keeps its things; picks which daemon a command talks to
    /// [default: the user's data folder, such as ~/.local/share/swarm]
    #[arg(
        long,
        global = true,
        env = "SWARM_DATA_DIR",
        hide_env_values = true,
        value_name = "DIR",
        help_heading = "Everywhere"
    )]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print JSON, errors too
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
    /// How log lines on stderr look; SWARM_LOG says which there are, such as `debug` or `swarm=debug,warn`
    #[arg(long, global = true, value_enum, default_value = "text", value_name = "FORMAT", help_heading = "Everywhere")]
    pub(crate) log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run this machine's part of the farm until stopped
    Daemon(DaemonArgs),
    /// Render a .blend: bundle it, spread it, render it, collect frames and video
    Submit(Box<SubmitArgs>),
    /// List the jobs
    Jobs,
    /// Look at one job, or change it
    #[command(subcommand)]
    Job(JobCommand),
    /// List the machines
    Nodes,
    /// Change what this machine does
    #[command(subcommand)]
    Node(NodeCommand),
    /// List what is set for the whole swarm
    Settings,
    /// Set something for the whole swarm, from any machine of it
    #[command(subcommand)]
    Setting(SettingCommand),
    /// Check what this machine needs, and say how to mend what is missing
    Doctor,
    /// Print a code with which another machine joins this swarm
    Invite,
    /// Join the swarm of an invite code
    Join(JoinArgs),
    /// Run scripts of jobs that a machine submits with --scripts or --script, on this one
    Trust(TrustArgs),
    /// Run scripts of a machine's jobs on this one no more
    Untrust(TrustArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// Name of this machine in the swarm [default: its host name]
    #[arg(long, value_parser = Text::new())]
    pub(crate) name: Option<String>,
    /// TCP port for other machines; an error if it is taken [default: a fixed one, or the next that is free]
    #[arg(long, value_name = "N")]
    pub(crate) port: Option<u16>,
    /// Listen on this address only; may be repeated [default: all]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Vec<IpAddr>,
    /// Loopback address and port of the local API [default: 127.0.0.1 and any free port]
    #[arg(long, value_name = "ADDR:PORT", value_parser = loopback)]
    pub(crate) api: Option<SocketAddr>,
    /// Address of another machine of the swarm, where it is not found by itself; may be repeated
    #[arg(long, value_name = "ADDR", value_parser = Text::new())]
    pub(crate) peer: Vec<String>,
    /// Frames rendered here at the same time [default: 1, or one per GPU with --gpu-mode each]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: Option<u32>,
    /// What each of these is rendered on: all GPUs, or each on a GPU of its own
    #[arg(long, value_parser = gpu_mode, default_value = "all", value_name = "all|each")]
    pub(crate) gpu_mode: GpuMode,
    /// A Blender to use, or a Python with bpy; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) blender: Vec<PathBuf>,
    /// CPU threads of each Blender [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) threads: Option<u32>,
    /// A label that jobs can ask for, such as fast; may be repeated
    #[arg(long, value_name = "TAG", value_parser = tag)]
    pub(crate) tag: Vec<String>,
    /// Do not look for other machines by multicast
    #[arg(long)]
    pub(crate) no_mdns: bool,
    /// Render nothing on this machine
    #[arg(long)]
    pub(crate) no_render: bool,
    /// Run Blender as this user, with this user's files and network, also where there is a sandbox for it
    #[arg(long)]
    pub(crate) no_sandbox: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The .blend
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Name of the job [default: the file's]
    #[arg(long, value_name = "S", value_parser = Text::new())]
    pub(crate) name: Option<String>,
    /// Frames, such as 1-250, 1,5,9 or 1-100x2 [default: the scene's]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub(crate) frames: Option<FrameSet>,
    #[command(flatten)]
    pub(crate) overrides: OverrideArgs,
    /// Render engine, such as cycles, eevee or workbench [default: the scene's]
    #[arg(long, value_name = "E", value_parser = Text::new())]
    pub(crate) engine: Option<String>,
    /// Samples per pixel [default: the scene's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) samples: Option<u32>,
    /// Width and height in pixels, instead of the scene's size and percentage [default: the scene's]
    #[arg(long, value_name = "WxH", value_parser = resolution)]
    pub(crate) resolution: Option<(u32, u32)>,
    /// Percentage of the size the scene renders at, or of --resolution [default: 100]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) percent: Option<u32>,
    /// Frames per second of the video [default: the scene's]
    #[arg(long, value_name = "N", value_parser = fps)]
    pub(crate) fps: Option<f64>,
    /// Format of the frames [default: the scene's; PNG where that is a movie or one swarm cannot check]
    #[arg(long, value_name = "png|png16|jpeg|exr|exr-multilayer|tiff|webp")]
    pub(crate) format: Option<FormatChoice>,
    /// What to render on: auto takes a GPU where there is one, gpu never the CPU, each of the others that backend alone
    #[arg(long, default_value = "auto", value_name = "auto|cpu|gpu|cuda|optix|hip|oneapi|metal")]
    pub(crate) device: Device,
    /// Release series of Blender, such as 4.5 [default: the swarm's, see `swarm setting`, or the one that saved the file]
    #[arg(long, value_name = "X.Y")]
    pub(crate) series: Option<Series>,
    /// 0 to 100; jobs of higher priority come first [default: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) priority: Option<u8>,
    /// Folder of the frames; a last part with # is a name pattern, such as out/shot_#### [default: NAME-frames beside FILE]
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) video: VideoArgs,
    /// Make the video without the scene's sound
    #[arg(long)]
    pub(crate) no_audio: bool,
    #[command(flatten)]
    pub(crate) zip: ZipArgs,
    #[command(flatten)]
    pub(crate) rules: RuleArgs,
    /// Spread the scene, and start nothing until `swarm job resume`
    #[arg(long, help_heading = "Rules")]
    pub(crate) paused: bool,
    /// Return as soon as another machine has the scene
    #[arg(long)]
    pub(crate) detach: bool,
    /// Submit although files of the scene are missing
    #[arg(long)]
    pub(crate) allow_missing: bool,
    /// A file or folder that scripts or add-ons need; below FILE's folder it keeps its place relative to FILE, else it lies
    /// beside FILE; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) include: Vec<PathBuf>,
    /// Where paths of another machine are on this one, such as 'P:\=/mnt/p' or '\\server\share=/mnt/share'; may be repeated
    #[arg(long, value_name = "FROM=TO", value_parser = map)]
    pub(crate) map: Vec<(String, PathBuf)>,
    /// Only say what would happen: everything that is wrong, the files, the machines, the time; submit nothing
    #[arg(long, conflicts_with_all = ["update", "detach"])]
    pub(crate) check: bool,
    /// Submit although simulations of the scene are not baked: frames then depend on what is rendered before them
    #[arg(long)]
    pub(crate) allow_unbaked: bool,
    /// Render every frame anew, also those that another job has of the same scene with the same settings
    #[arg(long)]
    pub(crate) no_reuse: bool,
    /// Render only frames that are not in the output folder; those that are, whole and of the right size, stay as they are
    #[arg(long)]
    pub(crate) keep_existing: bool,
    /// Render frames of this job from FILE, all or those of --frames; the others stay, and the video is made anew
    #[arg(
        long,
        value_name = "JOB",
        value_parser = Text::new(),
        conflicts_with_all =
            ["name", "fps", "format", "series", "priority", "output", "VideoArgs", "no_audio", "ZipArgs", "RuleArgs", "paused", "keep_existing"]
    )]
    pub(crate) update: Option<String>,
}

/// What of FILE is rendered, and properties.
#[derive(Debug, Args)]
pub(crate) struct OverrideArgs {
    /// Render this scene of FILE [default: the one that was open when FILE was saved]
    #[arg(long, value_name = "S", value_parser = Text::new())]
    pub(crate) scene: Option<String>,
    /// Render through this camera, also where markers bind others [default: the scene's]
    #[arg(long, value_name = "C", value_parser = Text::new())]
    pub(crate) camera: Option<String>,
    /// Render this view layer and no other; may be repeated [default: those the scene says]
    #[arg(long, value_name = "L", value_parser = Text::new())]
    pub(crate) view_layer: Vec<String>,
    /// Set a property before rendering, such as scene.cycles.max_bounces=4 or 'bpy.data.objects["Cube"].hide_render=true';
    /// may be repeated
    #[arg(long, value_name = "PATH=VALUE", value_parser = str::parse::<Property>)]
    pub(crate) set: Vec<Property>,
    /// Run scripts and Python drivers in FILE; only machines do that trust this one (see `swarm trust`)
    #[arg(long)]
    pub(crate) scripts: bool,
    /// Run this Python script in the open scene, after all else is set and before the first frame; only machines do that
    /// trust this one (see `swarm trust`)
    #[arg(long, value_name = "FILE.py")]
    pub(crate) script: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VideoArgs {
    /// The video file [default: NAME.mp4, or NAME-FIRST-LAST.mp4 of a part of the scene's frames]
    #[arg(long, value_name = "FILE", conflicts_with = "no_video")]
    pub(crate) video: Option<PathBuf>,
    /// Make no video
    #[arg(long)]
    pub(crate) no_video: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ZipArgs {
    /// Put frames, video and logs into NAME.zip too, beside the video, or without one beside the folder of the frames
    #[arg(long)]
    pub(crate) zip: bool,
}

/// Which job, as people name one.
#[derive(Debug, Args)]
pub(crate) struct JobArg {
    /// The job: its id, the beginning of it, its name, or `last`
    #[arg(value_name = "JOB", value_parser = Text::new())]
    pub(crate) job: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Show one job
    Show(JobArg),
    /// Follow a job until it is over
    Watch(JobArg),
    /// Show the state of a job's frames
    Frames(JobArg),
    /// Print what Blender said
    Log {
        #[command(flatten)]
        job: JobArg,
        /// This frame [default: the failed ones, else the latest]
        #[arg(long, value_name = "N", allow_hyphen_values = true)]
        frame: Option<i32>,
        /// Go on until the frame is done or given up
        #[arg(long, requires = "frame")]
        follow: bool,
    },
    /// Start no more of a job's frames
    Pause(JobArg),
    /// Go on with a paused job
    Resume(JobArg),
    /// End a job; frames that are done are kept
    Cancel(JobArg),
    /// Forget a job that is over, on every machine; its frames and video stay where they are
    Delete(JobArg),
    /// Render frames again
    Requeue {
        #[command(flatten)]
        job: JobArg,
        /// These frames [default: the failed ones]
        #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
        frames: Option<FrameSet>,
    },
    /// Change a job's settings: priority, or any rule of submit
    Set {
        #[command(flatten)]
        job: JobArg,
        /// 0 to 100
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100))]
        priority: Option<u8>,
        #[command(flatten)]
        rules: Box<RuleArgs>,
    },
    /// Say what each machine does about a job, or why it does nothing
    Why(JobArg),
    /// Lay a frame's scene out in a folder, and print the command that renders it by hand as the farm does
    Debug {
        #[command(flatten)]
        job: JobArg,
        /// Which frame
        #[arg(long, value_name = "N", allow_hyphen_values = true)]
        frame: i32,
        /// The folder, new or empty [default: NAME-frame-N-debug here]
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// Fetch a job's frames to this machine and make its video here
    Collect {
        #[command(flatten)]
        job: JobArg,
        /// Folder of the frames, or a pattern as in submit
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
        #[command(flatten)]
        video: VideoArgs,
        #[command(flatten)]
        zip: ZipArgs,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Start no more frames on this machine
    Pause {
        /// Stop what it renders, at once; other machines take that over
        #[arg(long)]
        drop: bool,
    },
    /// Render on this machine again
    Resume,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SettingCommand {
    /// Which release series of Blender renders jobs that are submitted without --series
    Series {
        /// Such as 4.5, or none to leave it to the file
        #[arg(value_name = "X.Y|none", value_parser = series_or_none)]
        series: SeriesOrNone,
    },
}

/// A release series, or that none is to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeriesOrNone(pub(crate) Option<Series>);

fn series_or_none(text: &str) -> Result<SeriesOrNone, String> {
    match text {
        "none" => Ok(SeriesOrNone(None)),
        text => text.parse().map(|series| SeriesOrNone(Some(series))),
    }
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct TrustArgs {
    /// The machine: its name, its id, or the beginning of that
    #[arg(value_name = "NODE", value_parser = Text::new())]
    pub(crate) node: Option<String>,
    /// Every member of the swarm, also those that come later
    #[arg(long)]
    pub(crate) members: bool,
}

impl TrustArgs {
    /// As the API takes it.
    pub(crate) fn to_json(&self) -> Value {
        match &self.node {
            Some(node) => json!({"node": node}),
            None => json!({"members": self.members}),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The code that `swarm invite` printed, or - to read it from standard input
    #[arg(value_name = "CODE", value_parser = Text::new())]
    pub(crate) code: String,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "write an address and a port, such as 127.0.0.1:7000".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("the API is only served on this machine itself: 127.0.0.1 or [::1]".to_owned())
    }
}

fn resolution(text: &str) -> Result<(u32, u32), String> {
    /// Most pixels a side, Blender's own limit of `resolution_x`.
    const SIDE_MAX_PIXELS: u32 = 65_536;
    let side = |word: &str| word.trim().parse().ok().filter(|side| (1..=SIDE_MAX_PIXELS).contains(side));
    let sides = text.split_once(['x', 'X', '×']).and_then(|(w, h)| Some((side(w)?, side(h)?)));
    sides.ok_or_else(|| format!("write width and height in pixels, 1 to {SIDE_MAX_PIXELS}, such as 1920x1080"))
}

fn map(text: &str) -> Result<(String, PathBuf), String> {
    let (from, to) = text.split_once('=').unwrap_or_default();
    if from.is_empty() || to.is_empty() {
        return Err(
            r"write how the stored paths begin, =, and the folder on this machine, such as 'P:\=/mnt/p'".to_owned()
        );
    }
    Ok((from.to_owned(), to.into()))
}

fn fps(text: &str) -> Result<f64, String> {
    /// Fastest and slowest video (guess): what players and H.264 levels take without complaint.
    const FPS: std::ops::RangeInclusive<f64> = 0.01..=1000.0;
    let fps = text.parse().ok().filter(|fps| FPS.contains(fps));
    fps.ok_or_else(|| {
        format!("write frames per second between {} and {}, such as 24 or 23.976", FPS.start(), FPS.end())
    })
}

fn gpu_mode(text: &str) -> Result<GpuMode, String> {
    match text {
        "all" => Ok(GpuMode::All),
        "each" => Ok(GpuMode::Each),
        _ => Err("it is all or each".to_owned()),
    }
}
