//! What lies where the results are to go: what they replace, what they must not, and which frames are kept.

use super::{Looked, Problem};
use crate::farm::frames::FrameSet;
use crate::farm::job::{ImageFormat, JobSpec, OutputSpec};
use crate::node::answer::Stream;
use crate::node::http::{ApiError, ErrorKind, SubmitRequest};
use crate::node::kept::{Broken, Kept, Wanted};
use crate::node::output;
use crate::node::scene::RefKind;
use crate::node::submit::blocking;
use std::path::Path;

impl Looked {
    /// Whether results can be written, and take the place of nothing they must not; gives the frames that are kept.
    pub async fn check_output(
        &mut self,
        request: &SubmitRequest,
        output: OutputSpec,
        frames: FrameSet,
        (format, size): (ImageFormat, Option<(u32, u32)>),
        stream: &Stream,
    ) -> Result<Kept, ApiError> {
        let needed = self.trace.paths();
        let (at, views, total) = (output.directory.clone(), self.info.suffixes(format), frames.len());
        let wanted = size.filter(|_| request.keep_existing);
        let wanted = wanted.map(|size| Wanted { sets: self.info.file_sets(format), format, size });
        let told = stream.clone();
        let (written, there, others, looked_at) = blocking(move || {
            let written =
                output::spare(&output, &frames, (format, &views), &needed).and_then(|()| output::check(&output));
            let path = |frame, view: &String| Path::new(&output.directory).join(output.view_name(frame, format, view));
            let is_there = |frame| views.iter().any(|view| path(frame, view).exists());
            let there = frames.iter().filter(|frame| is_there(*frame)).count();
            let looked_at = wanted.map(|wanted| Kept::look(&output, &frames, &wanted, |done| tell(&told, done, total)));
            let others = [("video", output.video), ("ZIP file", output.zip)];
            let others = others.map(|(what, path)| (what, path.filter(|path| Path::new(path).exists())));
            (written, there, others, looked_at.unwrap_or_else(|| Ok(Default::default())))
        })
        .await?;
        self.keep(request, written);
        let (kept, broken) = self.keep(request, looked_at).unwrap_or_default();
        if request.keep_existing {
            self.tell_kept(request, &at, (kept.len(), total), &broken);
        } else if there > 0 {
            let text = format!("{there} frames already in {at} will be replaced by new ones");
            self.problems.push(Problem::warning("replaces", at, text, ""));
        }
        for (what, path) in others {
            if let Some(path) = path {
                let text = format!("{path} will be replaced by the new {what}");
                self.problems.push(Problem::warning("replaces", path, text, ""));
            }
        }
        Ok(kept)
    }

    fn tell_kept(&mut self, request: &SubmitRequest, at: &str, (kept, total): (usize, usize), broken: &Broken) {
        let text = match kept {
            0 if broken.frames > 0 => {
                format!("none of the {total} frames can be kept as it is in {at}, so all are rendered")
            }
            0 => format!("none of the {total} frames is in {at}, so all are rendered"),
            _ if kept == total => format!("all {total} frames are in {at} already and are kept: nothing is rendered"),
            _ => format!("{kept} of {total} frames are in {at} already and are kept; {} to render", total - kept),
        };
        self.problems.push(Problem::warning("kept", at, text, ""));
        if broken.frames > 0 {
            let count = if broken.frames == 1 { "1 frame".to_owned() } else { format!("{} frames", broken.frames) };
            let text = format!("{count} in {at} cannot be kept and will be replaced ({})", broken.why);
            self.problems.push(Problem::warning("replaces", at, text, ""));
        }
        if kept > 0 && self.survey.file_outputs {
            let text = "what the compositor's File Output nodes write is not looked for: of frames that are kept, it stays as it is";
            self.problems.push(Problem::warning("kept", request.file.to_string_lossy(), text, ""));
        }
    }

    /// Refuses to keep frames where that cannot come out right.
    pub fn refuse_to_keep(
        &mut self,
        request: &SubmitRequest,
        simulate_from: Option<i32>,
        format: ImageFormat,
        output: Option<&OutputSpec>,
    ) {
        if !request.keep_existing {
            return;
        }
        let mut refuse = |message: &str, fix: &str| {
            let subject = request.file.to_string_lossy();
            self.problems.push(Problem::error(ErrorKind::BadRequest, subject, message, fix));
        };
        if simulate_from.is_some() {
            refuse(
                "--keep-existing does not go with a simulation that one machine plays forward (--chunk all): a frame that is \
                 kept need not fit those around it",
                "submit without it, or bake the simulation",
            );
        }
        if format.has_preview() && output.is_some_and(|output| output.video.is_some()) {
            refuse(
                "the video of OpenEXR frames is made of previews that Blender writes as it renders, and frames that are kept \
                 have none",
                "submit with --no-video, or without --keep-existing",
            );
        }
    }

    /// That nobody is to mix the sound, where files of the scene would be heard.
    pub fn tell_unmixed(&mut self, request: &SubmitRequest, spec: &JobSpec, kept: usize) {
        let is_heard = self.trace.files.iter().any(|file| file.kind == RefKind::Sound);
        if kept == spec.frames.len() && is_heard && spec.soundtrack().is_some() {
            let first = spec.frames.first();
            let text = "the video has no sound: that is mixed with the first frame that is rendered, and all are kept";
            let fix =
                format!("move the file of frame {first} away before, or `swarm job requeue --frames {first}` after it");
            self.problems.push(Problem::warning("sound", request.file.to_string_lossy(), text, &fix));
        }
    }
}

/// Tells every hundredth part, since a long look would pass in silence; whether anybody still wants to know.
pub(in crate::node) fn tell(stream: &Stream, done: usize, total: usize) -> bool {
    if done.is_multiple_of((total / 100).max(1)) {
        stream.try_progress("keep", done as u64, total as u64, "frames");
    }
    !stream.is_gone()
}
