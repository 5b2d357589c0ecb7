//! The sound of a job's video: of which frames it is, and whether there is any.
//!
//! One machine mixes it, the one that renders the first frame (of those that were not there before the job), and it travels
//! as an output of that.

use super::id::Unit;
use super::job::{FrameRate, JobSpec};

/// The sound of a video: what is heard in the scene from one frame to the end of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Soundtrack {
    /// First frame.
    pub first: i32,
    /// Last frame.
    pub last: i32,
    /// Rate of the video.
    pub rate: FrameRate,
}

impl Soundtrack {
    /// How long it is, seconds.
    pub fn seconds(&self) -> f64 {
        (f64::from(self.last) - f64::from(self.first) + 1.0) / self.rate.per_second()
    }
}

impl JobSpec {
    /// The sound of its video. `None` without a video, where none is wanted, and where frames are left out, so that pictures
    /// and sound would run apart.
    pub fn soundtrack(&self) -> Option<Soundtrack> {
        let wanted = self.output.video.is_some() && self.may_sound();
        wanted.then(|| Soundtrack { first: self.frames.first(), last: self.frames.last(), rate: self.rate })
    }

    /// The sound that a frame brings along, if it is the one that does.
    pub fn sound_with(&self, unit: Unit) -> Option<Soundtrack> {
        self.soundtrack().filter(|sound| unit == Unit::whole(self.mixed_with.unwrap_or(sound.first)))
    }

    /// Whether a video of it, which was not wanted when it was submitted, lacks the sound for that alone.
    pub fn is_unmixed(&self) -> bool {
        self.output.video.is_none() && self.may_sound()
    }

    fn may_sound(&self) -> bool {
        !self.settings.silent && self.frames.is_contiguous()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::id::BlobId;
    use super::super::job::Series;
    use super::*;

    #[test]
    fn sound_is_for_videos_of_frames_without_a_gap_unless_it_is_not_wanted() {
        let of = |frames: &str, change: fn(&mut JobSpec)| {
            let series = Series { major: 4, minor: 5 };
            let mut spec = JobSpec::new(BlobId([0; 32]), frames.parse().unwrap(), series);
            change(&mut spec);
            let without = spec.output.video.is_none() && !spec.settings.silent;
            assert_eq!(spec.is_unmixed(), without, "told of where a video came to be wanted later");
            spec.soundtrack()
        };
        let sound = of("-2-21", |_| {}).unwrap();
        assert_eq!((sound.first, sound.last, sound.seconds()), (-2, 21, 1.0));
        assert_eq!(of("1-3,4-9", |_| {}).map(|sound| sound.last), Some(9));
        assert_eq!(of("1-9x2", |_| {}), None);
        assert_eq!(of("1-3,5-9", |_| {}), None);
        assert_eq!(of("1-9", |spec| spec.output.video = None), None);
        assert_eq!(of("1-9", |spec| spec.settings.silent = true), None);
        let ntsc = FrameRate { fps: 24, base_millionths: 1_001_000 };
        assert!(ntsc.plays_as(FrameRate { fps: 24, base_millionths: 1_001_001 }));
        assert!(!ntsc.plays_as(FrameRate { fps: 24, base_millionths: 1_000_000 }));
    }
}
