//! When a job's results are safe, fetched and encodable, and by whom.
//!
//! A collector exists for every job whose results this machine brings together: its own, and those somebody asked for
//! here. It knows which frames are under their final names and what is left; fetching and encoding are effects.

use super::config::RETRY_DELIVERY;
use super::frames::FrameSet;
use super::id::{BlobId, BootId, NodeId, Unit};
use super::job::OutputSpec;
use super::state::JobState;
use super::unit::Outcome;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Lost frames are named in so many bytes, and the rest left out.
const NAMED_BYTES: usize = 200;

/// How the video is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VideoState {
    /// Not begun, or not wanted.
    #[default]
    None,
    /// Segments are being encoded.
    Encoding,
    /// Under its final name.
    Ready,
    /// It could not be made.
    Failed,
}

impl VideoState {
    /// The word of the JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Encoding => "encoding",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }
}

/// What was asked for last, once everything there will be is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The video.
    Video,
    /// The ZIP file, which comes after it.
    Zip,
    /// Neither: the job is canceled.
    Cancel,
}

/// What one machine brings together of one job.
#[derive(Clone, Debug)]
pub struct Collector {
    /// Tells it from the job's earlier ones, whose answers may still come.
    pub collection: u64,
    /// Where to.
    pub output: OutputSpec,
    /// Units that may have something to deliver, to be looked at.
    pub pending: BTreeSet<Unit>,
    /// Those that were looked at and wait: for their files, or for an earlier result to be delivered.
    waiting: BTreeSet<Unit>,
    /// Who was alive when they were, in which start.
    alive: Vec<(NodeId, Option<BootId>)>,
    /// Units being delivered, and the epoch and revision of the result.
    pub delivering: BTreeMap<Unit, (u32, u32)>,
    /// Units under their final names, and the epoch and revision of the result.
    pub delivered: BTreeMap<Unit, (u32, u32)>,
    /// Which files of each were taken last.
    taken: BTreeMap<Unit, Vec<BlobId>>,
    /// Results, by their files, that are not under their names either.
    absent: BTreeMap<Unit, BTreeSet<Vec<BlobId>>>,
    /// Units of which a new epoch was asked for, since their files are lost, and the epoch and revision of those.
    reopened: BTreeMap<Unit, (u32, u32)>,
    /// Units given up because their files are lost and nobody renders them anew, and the epoch and revision of those.
    lost: BTreeMap<Unit, (u32, u32)>,
    /// Not before this, after a failure.
    pub retry_at: Option<Duration>,
    /// Why it does not get on, for people.
    pub reason: Option<String>,
    /// The video.
    pub video: VideoState,
    /// The revision whose video and ZIP file were finished, or are being.
    pub finished: Option<u64>,
    /// Why it could not be made, for people.
    pub no_video: Option<String>,
    /// The video or the ZIP file is being finished.
    pub finishing: Option<Ending>,
    /// Everything is as it should be: nothing of this revision is left to do here.
    pub ended: bool,
}

impl Collector {
    /// Everything there is of `job`, to go to `output`.
    pub fn new(collection: u64, job: &JobState, output: OutputSpec) -> Self {
        Self {
            collection,
            output,
            pending: job.finished().collect(),
            waiting: BTreeSet::new(),
            alive: Vec::new(),
            delivering: BTreeMap::new(),
            delivered: BTreeMap::new(),
            taken: BTreeMap::new(),
            absent: BTreeMap::new(),
            reopened: BTreeMap::new(),
            lost: BTreeMap::new(),
            retry_at: None,
            reason: None,
            video: VideoState::None,
            finished: None,
            no_video: None,
            finishing: None,
            ended: false,
        }
    }

    /// A unit may have a new result.
    pub fn look_at(&mut self, unit: Unit) {
        self.pending.insert(unit);
    }

    /// The job's ops tell something new: who holds what, for example, also of what was given up.
    pub fn look_at_waiting(&mut self) {
        self.pending.append(&mut self.waiting);
        self.pending.extend(self.lost.keys());
    }

    /// What is to be looked at now. What waits is, whenever others are alive than were, or one of them started anew and has
    /// dropped what it claimed: it depends on nothing else, beside what [`Self::look_at`] and [`Self::look_at_waiting`] are
    /// called for.
    pub fn take_pending(&mut self, alive: &[(NodeId, Option<BootId>)]) -> BTreeSet<Unit> {
        if self.alive != alive {
            self.alive = alive.to_vec();
            self.look_at_waiting();
        }
        for unit in &self.pending {
            self.waiting.remove(unit);
        }
        std::mem::take(&mut self.pending)
    }

    /// A unit that was looked at has a result and cannot be delivered yet.
    pub fn waits(&mut self, unit: Unit) {
        self.waiting.insert(unit);
    }

    /// A result is on its way to its final names.
    pub fn takes(&mut self, unit: Unit, version: (u32, u32), outcome: &Outcome) {
        self.delivering.insert(unit, version);
        self.taken.insert(unit, outcome.blobs().collect());
    }

    /// The job was folded anew: what was taken of results that do not count any more is replaced once there are others.
    pub fn look_again(&mut self, job: &JobState) {
        let counts = |unit: &Unit| {
            let is_taken = |outcome: &Outcome| self.taken.get(unit).is_some_and(|taken| outcome.is_of(taken));
            job.unit(*unit).current_results().any(|(_, outcome)| is_taken(outcome))
        };
        let gone: Vec<Unit> = job.all_units().filter(|unit| !counts(unit)).collect();
        for unit in gone {
            self.delivering.remove(&unit);
            self.delivered.remove(&unit);
        }
        self.pending = job.finished().collect();
        self.waiting.clear();
    }

    /// A unit's files are under their final names.
    pub fn delivered(&mut self, unit: Unit, epoch: u32) {
        if self.waiting.remove(&unit) {
            self.pending.insert(unit);
        }
        let Some(version) = self.delivering.remove(&unit).filter(|version| version.0 == epoch) else {
            // Of a result that does not count any more.
            self.pending.insert(unit);
            return;
        };
        self.absent.remove(&unit);
        if self.delivered.insert(unit, version).is_none() {
            // The video of a job that had given this frame up shows another in its place.
            self.finished = None;
        }
        self.reason = None;
        if self.output.video.is_some() && self.video == VideoState::None {
            self.video = VideoState::Encoding;
        }
    }

    /// They could not be; all of it waits a little.
    pub fn delivery_failed(&mut self, unit: Unit, reason: String, now: Duration) {
        self.delivering.remove(&unit);
        self.pending.insert(unit);
        self.reason = Some(reason);
        self.retry_at = Some(now + RETRY_DELIVERY);
    }

    /// A unit's files are neither in the store nor under their names: not to be tried again as they are.
    pub fn undeliverable(&mut self, unit: Unit) {
        self.delivering.remove(&unit);
        self.pending.insert(unit);
        if let Some(blobs) = self.taken.get(&unit) {
            self.absent.entry(unit).or_default().insert(blobs.clone());
        }
    }

    /// Whether a result lay where this puts it before the job: the user may have changed it since.
    pub fn is_at_home(&self, job: &JobState, outcome: &Outcome) -> bool {
        let place = |output: &OutputSpec| {
            (output.directory.clone(), output.prefix.clone(), output.suffix.clone(), output.digits)
        };
        outcome.is_kept && job.spec.as_ref().is_some_and(|spec| place(&spec.output) == place(&self.output))
    }

    /// Whether a result is known not to be under its names.
    pub fn is_absent(&self, unit: Unit, outcome: &Outcome) -> bool {
        self.absent.get(&unit).is_some_and(|absent| absent.iter().any(|blobs| outcome.is_of(blobs)))
    }

    /// A new epoch of a unit is to be opened; whether that was not done already.
    pub fn reopens(&mut self, unit: Unit, version: (u32, u32)) -> bool {
        self.reopened.insert(unit, version) != Some(version)
    }

    /// A unit is lost for good, or no longer.
    pub fn gives_up(&mut self, unit: Unit, version: Option<(u32, u32)>) {
        match version {
            Some(version) => self.lost.insert(unit, version),
            None => self.lost.remove(&unit),
        };
    }

    /// Units given up as they are now.
    pub fn lost(&self, job: &JobState) -> impl Iterator<Item = Unit> {
        self.lost.iter().filter(|(unit, version)| job.unit(**unit).version() == **version).map(|(unit, _)| *unit)
    }

    /// What people should know once everything is written: why there is no video, and which frames are lost.
    pub fn last_word(&self, job: &JobState) -> Option<String> {
        let lost: Vec<i32> = self.lost(job).map(|unit| unit.frame).collect();
        let frames = if lost.len() == 1 { "frame" } else { "frames" };
        let gone =
            |set: FrameSet| format!("the files of {frames} {} are gone from every machine that had them", cut(&set));
        let words: Vec<String> =
            self.no_video.clone().into_iter().chain(FrameSet::from_frames(lost).map(gone)).collect();
        Some(words.join("; ")).filter(|words| !words.is_empty())
    }

    /// Whether deliveries may be tried now.
    pub fn may_deliver(&mut self, now: Duration) -> bool {
        if self.retry_at.is_some_and(|at| now < at) {
            return false;
        }
        self.retry_at = None;
        true
    }

    /// Whether everything there will be is delivered.
    pub fn is_complete(&self, job: &JobState, given_up: impl Fn(Unit) -> bool) -> bool {
        self.pending.is_empty()
            && self.waiting.is_empty()
            && self.delivering.is_empty()
            && job.spec.is_some()
            // First: of a job that goes on, the earliest unit without a result tells.
            && job.unfinished().iter().all(|unit| given_up(*unit))
            && job.all_units().all(|unit| {
                let state = job.unit(unit);
                let is_settled = |at: &BTreeMap<Unit, _>| at.get(&unit) == Some(&state.version());
                !state.has_result() || is_settled(&self.delivered) || is_settled(&self.lost)
            })
    }
}

/// Frames by name, no more than are read.
fn cut(frames: &FrameSet) -> String {
    let text = frames.to_string();
    match text.get(..NAMED_BYTES).and_then(|start| start.rsplit_once(',')) {
        Some((start, _)) => format!("{start},..."),
        None => text,
    }
}

/// The result to take: one whose files are all here already, else the first. One that was there before the job comes before
/// those that others have.
pub fn pick(job: &JobState, unit: Unit, is_local: impl Fn(&Outcome) -> bool) -> Option<&Outcome> {
    let results = || job.unit(unit).current_results().map(|(_, outcome)| outcome);
    let (kept, others) =
        (|| results().filter(|outcome| outcome.is_kept), || results().filter(|outcome| !outcome.is_kept));
    let local = kept().chain(others()).find(|outcome| is_local(outcome));
    local.or_else(|| kept().chain(others()).next())
}

/// Results that have one live holder while the submitter is away, for which this node is the one to make a second copy:
/// the strongest live node that has none. Of a large job those of one [`part`](JobState::some_units).
pub fn to_replicate<'a>(
    job: &'a JobState,
    me: NodeId,
    alive: &BTreeSet<NodeId>,
    part: u64,
) -> Vec<(Unit, &'a Outcome)> {
    if job.is_over() || job.owner().is_none_or(|owner| alive.contains(&owner)) {
        return Vec::new();
    }
    // Of several results of a unit any will do; one of the absent submitter's own does not count.
    let live_holders = |outcome: &'a Outcome| {
        let all = |node: &NodeId| outcome.outputs.iter().all(|output| job.holding(output.blob).any(|one| one == *node));
        let first = outcome.outputs.first().map(|output| job.holding(output.blob)).into_iter().flatten();
        first.filter(|node| alive.contains(node)).filter(all).take(2).collect::<Vec<NodeId>>()
    };
    let replicates = |unit: Unit| {
        let results: Vec<_> = job.unit(unit).current_results().map(|(_, one)| (live_holders(one), one)).collect();
        if results.iter().any(|(live, _)| live.len() > 1) {
            return None;
        }
        let (live, outcome) = results.into_iter().find(|(live, _)| live.len() == 1)?;
        let epoch = job.unit(unit).epoch;
        let rank = |node: NodeId| (super::rendezvous::strength(node, 1, job.id, unit, epoch), node);
        let own = rank(me);
        // Most find a stronger one soon.
        let lacks = alive.contains(&me) && !live.contains(&me);
        let is_strongest = lacks && alive.iter().filter(|node| !live.contains(node)).all(|node| rank(*node) <= own);
        is_strongest.then_some((unit, outcome))
    };
    job.some_units(part).filter_map(replicates).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::id::JobId;

    fn output() -> OutputSpec {
        let (directory, prefix, suffix) = ("/r".into(), String::new(), String::new());
        OutputSpec { directory, prefix, suffix, digits: 4, video: None, zip: None }
    }

    #[test]
    fn what_waits_is_looked_at_again_once_anything_it_depends_on_changed() {
        let mut collector = Collector::new(1, &JobState::new(JobId([0; 16])), output());
        let (one, two) = (Unit::whole(1), Unit::whole(2));
        let started = |node: u8, boot: u8| (NodeId([node; 32]), Some(BootId([boot; 8])));
        let (alone, both, anew) = ([started(1, 1)], [started(1, 1), started(2, 2)], [started(1, 1), started(2, 3)]);
        let look = |collector: &mut Collector, alive: &[(NodeId, Option<BootId>)]| {
            let units = collector.take_pending(alive);
            units.iter().for_each(|unit| collector.waits(*unit));
            Vec::from_iter(units)
        };
        collector.look_at(one);
        collector.look_at(two);
        assert_eq!(look(&mut collector, &alone), [one, two]);
        assert_eq!(look(&mut collector, &alone), []);
        assert_eq!(look(&mut collector, &both), [one, two], "somebody came back");
        assert_eq!(look(&mut collector, &anew), [one, two], "somebody started anew");
        assert_eq!(look(&mut collector, &both), [one, two]);
        collector.look_at(one);
        assert_eq!(look(&mut collector, &both), [one], "its files are here, or it has another result");
        collector.delivering.insert(two, (0, 0));
        collector.delivered(two, 0);
        assert_eq!(look(&mut collector, &both), [two], "an earlier result of it is delivered");
        collector.look_at_waiting();
        assert_eq!(look(&mut collector, &both), [one, two], "the job's ops tell something new");
    }

    #[test]
    fn all_lost_frames_are_named_beside_the_video_that_could_not_be_made_and_many_cut_short() {
        let job = JobState::new(JobId([0; 16]));
        let mut collector = Collector::new(1, &job, output());
        assert_eq!(collector.last_word(&job), None);
        let mut says = |frames: &mut dyn Iterator<Item = i32>, no_video: Option<&str>| {
            frames.for_each(|frame| collector.gives_up(Unit::whole(frame), Some((0, 0))));
            collector.no_video = no_video.map(str::to_owned);
            collector.last_word(&job).expect("a word")
        };
        let one = says(&mut [5].into_iter(), None);
        assert_eq!(one, "the files of frame 5 are gone from every machine that had them");
        let some = says(&mut (6..9), Some("no ffmpeg"));
        assert_eq!(some, "no ffmpeg; the files of frames 5-8 are gone from every machine that had them");
        let many = says(&mut (10..100).map(|root| root * root), None);
        assert!(many.starts_with("the files of frames 5-8,100-121x21,144-169x25,"), "{many}");
        assert!(many.ends_with(",... are gone from every machine that had them") && many.len() < 300, "{many}");
    }
}
