//! The ffmpeg process: finding it, asking what it can, encoding one run of images.
//!
//! It runs in the encoder's own directory on links with plain names, so that no character of a user's path ever
//! meets ffmpeg's patterns, quoting or protocols. ffmpeg exits 0 on gaps and on torn images: its exit code is never
//! the proof, the count of frames in what it wrote is, and the caller takes that.

use super::VideoError;
use super::join::Timing;
use crate::node::polite;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Names the ffmpeg to use; the empty text means none.
const PROGRAM_VARIABLE: &str = "SWARM_FFMPEG";
/// Most bytes kept of what ffmpeg prints: its list of encoders is 20 KB (measured), errors are lines.
const MAX_OUTPUT_BYTES: u64 = 256 << 10;
/// Bytes of an error that a person is shown: the last lines (guess).
const SHOWN_ERROR_BYTES: usize = 600;
/// Most time for an answer about itself: 50 ms on a machine at rest (measured), and some are not.
const PROBE_DEADLINE: Duration = Duration::from_secs(20);
/// Most time for a run of images: this, and as much again as `FRAME_DEADLINE` for every frame and million pixels.
const RUN_DEADLINE: Duration = Duration::from_secs(60);
/// A hundred times what a frame of a million pixels takes on one old core (guess).
const FRAME_DEADLINE: Duration = Duration::from_secs(20);
/// Most time for the sound: `RUN_DEADLINE`, and as much again for every frame (guess: fifty times what an old core needs).
const DUB_DEADLINE: Duration = Duration::from_secs(1);
/// Ticks a second that players are used to see at least: ffmpeg's own floor.
const MIN_TIMESCALE: u32 = 10_000;
/// The folder of links to the images of the run in hand.
pub(super) const LINKS: &str = "in";

/// The ffmpeg that would be used: `SWARM_FFMPEG`, else the first on `PATH`. Not started to find out.
pub fn find_ffmpeg() -> Option<PathBuf> {
    match std::env::var_os(PROGRAM_VARIABLE) {
        Some(program) if program.is_empty() => None,
        Some(program) => Some(program.into()),
        None => {
            let name = format!("ffmpeg{}", std::env::consts::EXE_SUFFIX);
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).map(|folder| folder.join(&name)).find(|program| is_executable(program))
        }
    }
}

/// Whether there is an ffmpeg. What it can do is known when an encoder is opened.
pub fn ffmpeg_available() -> bool {
    find_ffmpeg().is_some_and(|program| is_executable(&program) || program.components().count() == 1)
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}

/// An exact rate, frames per second as a fraction that ffmpeg can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    numerator: u32,
    denominator: u32,
}

impl Rate {
    /// `fps / base`, both scaled down if the fraction does not fit. `None` for a rate of zero.
    pub fn new(fps: u32, base_millionths: u32) -> Option<Self> {
        let (mut a, mut b) = (u64::from(fps) * 1_000_000, u64::from(base_millionths));
        loop {
            let divisor = gcd(a, b).max(1);
            (a, b) = (a / divisor, b / divisor);
            if a <= i32::MAX as u64 && b <= i32::MAX as u64 {
                break;
            }
            (a, b) = (a.div_ceil(10), b.div_ceil(10));
        }
        (a > 0 && b > 0).then_some(Self { numerator: a as u32, denominator: b as u32 })
    }

    /// How long so many frames last.
    pub fn seconds(self, frames: usize) -> f64 {
        frames as f64 * f64::from(self.denominator) / f64::from(self.numerator)
    }

    pub fn timing(self) -> Timing {
        let factor = MIN_TIMESCALE.div_ceil(self.numerator);
        // A rate so slow that this does not fit has a frame every 50 hours.
        Timing { timescale: self.numerator * factor, delta: self.denominator.saturating_mul(factor) }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// An ffmpeg that encodes H.264.
#[derive(Clone, Debug)]
pub(super) struct Ffmpeg {
    program: PathBuf,
    /// The first line it prints: two that differ may not make pieces that fit together.
    pub version: String,
}

/// One run of images to encode.
#[derive(Debug)]
pub(super) struct Run {
    /// The encoder's directory.
    pub folder: PathBuf,
    /// Images in playing order.
    pub images: Vec<PathBuf>,
    /// File name extension that tells ffmpeg the format of all of them.
    pub extension: &'static str,
    pub rate: Rate,
    pub pixels: u64,
    /// File name in `folder`.
    pub out: String,
}

/// A video to get its sound. Paths are absolute.
#[derive(Debug)]
pub(super) struct Dub<'a> {
    /// An MP4 without sound.
    pub pictures: &'a Path,
    /// A FLAC file.
    pub sound: &'a Path,
    pub frames: usize,
    /// How long the pictures last.
    pub seconds: f64,
    pub rate: Rate,
    /// The MP4 with both.
    pub out: &'a Path,
}

impl Ffmpeg {
    /// Asks the program what it is.
    pub async fn probe(program: PathBuf) -> Result<Self, VideoError> {
        let answer = match run(&program, &["-nostdin", "-encoders"], Path::new("."), PROBE_DEADLINE).await {
            Ok(answer) => answer,
            Err(Failure::Start(source)) => return Err(VideoError::CannotStart { program, source }),
            Err(Failure::Deadline) => return Err(VideoError::Deadline { doing: "saying what it can encode".into() }),
        };
        if !answer.out.split_whitespace().any(|word| word == "libx264") {
            return Err(VideoError::NoX264 { program });
        }
        let version = answer.err.lines().next().unwrap_or_default().to_owned();
        Ok(Self { program, version })
    }

    /// Encodes the run as one closed MP4. What it wrote is still to be checked.
    pub async fn encode(&self, job: &Run) -> Result<(), VideoError> {
        let links = job.folder.join(LINKS);
        let (images, extension) = (job.images.clone(), job.extension);
        let folder = links.clone();
        tokio::task::spawn_blocking(move || link_all(&folder, &images, extension))
            .await
            .map_err(|_| VideoError::Stopped)?
            .map_err(|source| VideoError::Io { path: links.clone(), source })?;
        let frames = job.images.len();
        let cost = job.pixels * frames as u64 / 1_000_000 + frames as u64;
        let deadline = RUN_DEADLINE + FRAME_DEADLINE * u32::try_from(cost).unwrap_or(u32::MAX / 100);
        self.write(&arguments(job), &job.folder, deadline, format!("encoding {frames} frames")).await
    }

    /// Writes the pictures of a video, untouched, and its sound as one MP4. What it wrote is still to be checked.
    pub async fn add_sound(&self, job: &Dub<'_>) -> Result<(), VideoError> {
        let deadline = RUN_DEADLINE + DUB_DEADLINE * u32::try_from(job.frames).unwrap_or(u32::MAX);
        let folder = job.out.parent().unwrap_or(Path::new("/"));
        self.write(&dub_arguments(job), folder, deadline, "adding the sound".to_owned()).await
    }

    /// Runs it in the folder it writes to.
    async fn write(
        &self,
        args: &[OsString],
        folder: &Path,
        deadline: Duration,
        doing: String,
    ) -> Result<(), VideoError> {
        match run(&self.program, args, folder, deadline).await {
            Ok(answer) if answer.success => Ok(()),
            Ok(answer) => {
                let (folder, detail) = (folder.to_path_buf(), last_lines(&answer.err));
                Err(VideoError::Ffmpeg { folder, doing, detail })
            }
            Err(Failure::Start(source)) => Err(VideoError::CannotStart { program: self.program.clone(), source }),
            Err(Failure::Deadline) => Err(VideoError::Deadline { doing }),
        }
    }
}

/// The command line. Colours are converted to and tagged as BT.709: players assume that and untagged video loses 9 dB
/// in those that do (measured). Odd sizes are padded, since 4:2:0 halves both.
fn arguments(job: &Run) -> Vec<OsString> {
    let Rate { numerator, denominator } = job.rate;
    let rate = format!("{numerator}/{denominator}");
    let input = format!("{LINKS}/%06d.{}", job.extension);
    let (frames, timescale) = (job.images.len().to_string(), job.rate.timing().timescale.to_string());
    let mut args: Vec<&str> =
        "-nostdin -hide_banner -v error -xerror -y -f image2 -start_number 0".split(' ').collect();
    args.extend(["-framerate", &rate]);
    if job.extension == "exr" {
        // Linear light otherwise, far too dark.
        args.extend(["-apply_trc", "iec61966_2_1"]);
    }
    args.extend(["-i", &input, "-frames:v", &frames, "-vf"]);
    args.push("scale=out_color_matrix=bt709:out_range=tv,pad=ceil(iw/2)*2:ceil(ih/2)*2,format=yuv420p");
    args.extend("-an -c:v libx264 -preset medium -crf 20 -color_range tv".split(' '));
    args.extend("-colorspace bt709 -color_primaries bt709 -color_trc bt709".split(' '));
    args.extend(["-map_metadata", "-1", "-video_track_timescale", &timescale, "-f", "mp4", &job.out]);
    args.into_iter().map(OsString::from).collect()
}

/// The command line. The sound is read for as long as the pictures last; that way round no picture is cut off. Its bytes
/// come from another machine, so nothing but the one decoder is to meet them.
fn dub_arguments(job: &Dub<'_>) -> Vec<OsString> {
    let file = |path: &Path| {
        let mut name = OsString::from("file:");
        name.push(path);
        name
    };
    let (seconds, timescale) = (format!("{:.6}", job.seconds), job.rate.timing().timescale.to_string());
    let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
    let mut args = words("-nostdin -hide_banner -v error -xerror -y -f mov -i");
    args.push(file(job.pictures));
    args.extend(words(&format!("-t {seconds} -f flac -codec_whitelist flac -i")));
    args.push(file(job.sound));
    args.extend(words("-map 0:v:0 -map 1:a:0 -c:v copy -c:a aac -b:a 192k -map_metadata -1 -movflags +faststart"));
    args.extend(words(&format!("-video_track_timescale {timescale} -f mp4")));
    args.push(file(job.out));
    args
}

fn link_all(folder: &Path, images: &[PathBuf], extension: &str) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => std::fs::create_dir(folder)?,
    }
    for (number, image) in images.iter().enumerate() {
        link(image, &folder.join(format!("{number:06}.{extension}")))?;
    }
    Ok(())
}

#[cfg(unix)]
fn link(image: &Path, name: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(image, name)
}

/// Symbolic links need a privilege elsewhere, hard links one volume; a copy always works.
#[cfg(not(unix))]
fn link(image: &Path, name: &Path) -> std::io::Result<()> {
    std::fs::hard_link(image, name).or_else(|_| std::fs::copy(image, name).map(drop))
}

fn last_lines(text: &str) -> String {
    let text = text.trim();
    let mut from = text.len().saturating_sub(SHOWN_ERROR_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    if text.is_empty() { "it said nothing".into() } else { text[from..].replace('\n', "; ") }
}

struct Answer {
    success: bool,
    out: String,
    err: String,
}

enum Failure {
    Start(std::io::Error),
    Deadline,
}

/// Kills the child and all it started, unless it has ended by itself.
struct Group {
    #[cfg(unix)]
    id: Option<rustix::process::Pid>,
}

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        #[cfg(unix)]
        {
            Self { id: child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)) }
        }
        #[cfg(not(unix))]
        {
            let _ = child;
            Self {}
        }
    }

    fn ended(mut self) {
        #[cfg(unix)]
        {
            self.id = None;
        }
        #[cfg(not(unix))]
        {
            let _ = &mut self;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(id) = self.id {
            // Gone already is what is wanted.
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }
}

async fn run(program: &Path, args: &[impl AsRef<OsStr>], folder: &Path, deadline: Duration) -> Result<Answer, Failure> {
    let mut command = tokio::process::Command::new(program);
    command.args(args).current_dir(folder).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = polite::spawn(command).map_err(Failure::Start)?;
    let group = Group::of(&child);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let all = async { tokio::join!(drain(out), drain(err), child.wait()) };
    let (out, err, status) = tokio::time::timeout(deadline, all).await.map_err(|_| Failure::Deadline)?;
    group.ended();
    let success = status.map_err(Failure::Start)?.success();
    Ok(Answer { success, out, err })
}

/// Reads to the end, keeping the first part.
async fn drain(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        // A pipe that breaks ends what can be known; the exit status follows.
        let _ = (&mut pipe).take(MAX_OUTPUT_BYTES).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_exact_fractions_and_tick_fast_enough() {
        let check = |fps, base, rate: (u32, u32), timing: (u32, u32)| {
            let found = Rate::new(fps, base).unwrap();
            assert_eq!((found.numerator, found.denominator), rate);
            assert_eq!(found.timing(), Timing { timescale: timing.0, delta: timing.1 });
        };
        check(24, 1_000_000, (24, 1), (10_008, 417));
        check(60, 1_000_000, (60, 1), (10_020, 167));
        check(24, 1_001_000, (24_000, 1001), (24_000, 1001));
        check(24, 1_001_001, (8_000_000, 333_667), (8_000_000, 333_667));
        assert_eq!(Rate::new(0, 1_000_000), None);
        assert_eq!(Rate::new(24, 0), None);
        assert!(Rate::new(u32::MAX, 999_983).is_some());
        assert!(Rate::new(1, u32::MAX).is_some());
    }
}
