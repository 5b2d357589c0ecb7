//! The same work under others' policies, and what no policy could better.
//!
//! Each policy renders the same frames, at the same times per machine, on machines that are away when they were away in
//! the simulation. They are granted what no real farm has: no transfer, no messages, and a server that knows at once that
//! a machine died. Nothing a policy loses to a death is counted beyond the frame that was being rendered.
//! - [`Policy::Fifo`]: a central queue hands out one frame at a time in order, as OpenCue, Deadline and Flamenco do.
//! - [`Policy::Chunks`]: the same with ten frames at a time, a common setting; a chunk is one machine's.
//! - [`Policy::Static`]: the frames are split evenly among the slots beforehand; nobody helps anybody.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

/// How the same workload went under each policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Makespan of a central queue.
    pub fifo: Duration,
    /// Makespan of fixed chunks of ten frames.
    pub chunks: Duration,
    /// Makespan of a static equal split.
    pub fixed: Duration,
}

/// Who renders what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Fifo,
    Chunks,
    Static,
}

/// Frames of a fixed chunk.
const CHUNK_FRAMES: usize = 10;

/// Why a machine rendered nothing for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Away {
    /// It was not there, or its owner had all of it: what it was rendering was lost.
    Gone,
    /// It was suspended: what it was rendering stood still.
    Asleep,
    /// It was paused: what it was rendering went on, and nothing new began.
    Paused,
}

/// From when to when which machine was away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    pub machine: usize,
    pub from: Duration,
    pub to: Duration,
    pub away: Away,
}

/// What there was to do, and with what.
#[derive(Debug, Default)]
pub(super) struct Workload {
    /// Per job: when it was submitted, and its frames' times at speed 1, in order.
    pub jobs: Vec<(Duration, Vec<Duration>)>,
    /// Per machine: hundredths of speed 1, and slots.
    pub machines: Vec<(u32, u32)>,
    pub outages: Vec<Outage>,
}

/// Time in seconds.
type Seconds = f64;

/// One slot's time line.
struct Slot {
    speed: f64,
    /// In order of time.
    outages: Vec<(Seconds, Seconds, Away)>,
}

impl Slot {
    /// The first time from `at` on at which it may begin something.
    fn on_duty(&self, at: Seconds) -> Seconds {
        self.outages.iter().fold(at, |at, (from, to, _)| if *from <= at && at < *to { *to } else { at })
    }

    /// Renders `work` from `at` on: when it ends, or when it is lost.
    fn render(&self, at: Seconds, work: Seconds) -> Result<Seconds, Seconds> {
        let mut end = at + work / self.speed;
        for (from, to, away) in self.outages.iter().filter(|(_, to, _)| *to > at) {
            if *from >= end {
                break;
            }
            match away {
                Away::Gone => return Err(from.max(at)),
                Away::Asleep => end += to - from.max(at),
                Away::Paused => {}
            }
        }
        Ok(end)
    }
}

impl Workload {
    /// How each policy does.
    pub fn peers(&self) -> Peers {
        let of = |policy| Duration::try_from_secs_f64(self.run(policy)).unwrap_or_default();
        Peers { fifo: of(Policy::Fifo), chunks: of(Policy::Chunks), fixed: of(Policy::Static) }
    }

    fn began(&self) -> Seconds {
        self.jobs.iter().map(|(at, _)| at.as_secs_f64()).reduce(f64::min).unwrap_or(0.0)
    }

    fn slots(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        for (machine, (speed, count)) in self.machines.iter().enumerate() {
            let of = self.outages.iter().filter(|outage| outage.machine == machine && outage.to > outage.from);
            let mut outages: Vec<_> = of.map(|o| (o.from.as_secs_f64(), o.to.as_secs_f64(), o.away)).collect();
            outages.sort_by(|a, b| a.0.total_cmp(&b.0));
            slots.extend((0..*count).map(|_| Slot { speed: f64::from(*speed) / 100.0, outages: outages.clone() }));
        }
        slots
    }

    /// Seconds from the first submission to the last frame.
    fn run(&self, policy: Policy) -> Seconds {
        let slots = self.slots();
        if slots.is_empty() {
            return 0.0;
        }
        // Pieces of work: (when it may begin, whose it is if it is somebody's, frames).
        let mut pieces: Vec<(Seconds, Option<usize>, VecDeque<Seconds>)> = Vec::new();
        for (at, frames) in &self.jobs {
            let size = match policy {
                Policy::Fifo => 1,
                Policy::Chunks => CHUNK_FRAMES,
                Policy::Static => frames.len().div_ceil(slots.len()).max(1),
            };
            for (i, part) in frames.chunks(size).enumerate() {
                let whose = (policy == Policy::Static).then_some(i);
                pieces.push((at.as_secs_f64(), whose, part.iter().map(Duration::as_secs_f64).collect()));
            }
        }
        let mut open: Vec<BTreeSet<usize>> =
            vec![BTreeSet::new(); if policy == Policy::Static { slots.len() } else { 1 }];
        for (i, (_, whose, _)) in pieces.iter().enumerate() {
            open[whose.unwrap_or(0)].insert(i);
        }
        let mut free: BinaryHeap<Reverse<(Duration, usize)>> =
            (0..slots.len()).map(|i| Reverse((Duration::ZERO, i))).collect();
        let mut idle: BTreeSet<usize> = BTreeSet::new();
        let mut last = self.began();
        while let Some(Reverse((at, i))) = free.pop() {
            let mine = &mut open[if policy == Policy::Static { i } else { 0 }];
            let now = at.as_secs_f64();
            let Some(piece) = mine.iter().copied().find(|piece| pieces[*piece].0 <= now + 1e-6) else {
                // Something lost elsewhere may still come back; it is known by then when.
                let next = mine.iter().map(|piece| pieces[*piece].0).reduce(f64::min);
                match next {
                    Some(next) => free.push(Reverse((seconds(next), i))),
                    None => drop(idle.insert(i)),
                }
                continue;
            };
            let begin = slots[i].on_duty(now);
            if begin > now + 1e-6 {
                free.push(Reverse((seconds(begin), i)));
                continue;
            }
            mine.remove(&piece);
            let mut at = now;
            while let Some(work) = pieces[piece].2.front().copied() {
                match slots[i].render(slots[i].on_duty(at), work) {
                    Ok(end) => {
                        pieces[piece].2.pop_front();
                        (at, last) = (end, last.max(end));
                    }
                    Err(lost) => {
                        (at, pieces[piece].0) = (lost.max(at), lost.max(at));
                        open[if policy == Policy::Static { i } else { 0 }].insert(piece);
                        // Whoever had nothing left looks again.
                        free.extend(std::mem::take(&mut idle).into_iter().map(|other| Reverse((seconds(at), other))));
                        break;
                    }
                }
            }
            free.push(Reverse((seconds(at), i)));
        }
        last - self.began()
    }

    /// No schedule ends sooner; see [`lower_bound`].
    pub fn bound(&self) -> Duration {
        let began = self.began();
        let after = (0..self.jobs.len()).map(|i| {
            let from = self.jobs[i].0.as_secs_f64();
            let frames: Vec<Seconds> = self
                .jobs
                .iter()
                .filter(|(at, _)| at.as_secs_f64() >= from)
                .flat_map(|(_, frames)| frames.iter().map(Duration::as_secs_f64))
                .collect();
            from - began + self.by_work(from, frames.iter().sum()).max(self.by_counting(frames))
        });
        Duration::try_from_secs_f64(after.fold(0.0, f64::max)).unwrap_or_default()
    }

    /// All work at all the speed there was from `from` on: machines that are gone or asleep add none.
    fn by_work(&self, from: Seconds, mut work: Seconds) -> Seconds {
        let slots = self.slots();
        let mut times: Vec<Seconds> = slots
            .iter()
            .flat_map(|slot| slot.outages.iter().flat_map(|(a, b, _)| [*a, *b]))
            .filter(|t| *t > from)
            .collect();
        times.sort_by(f64::total_cmp);
        times.dedup();
        times.push(f64::MAX);
        let mut at = from;
        for next in times {
            let away =
                |slot: &&Slot| !slot.outages.iter().any(|(a, b, away)| *away != Away::Paused && *a <= at && at < *b);
            let speed: f64 = slots.iter().filter(away).map(|slot| slot.speed).sum();
            if speed > 0.0 && work <= speed * (next - at) {
                return at + work / speed - from;
            }
            work -= speed * (next - at);
            at = next;
        }
        0.0
    }

    /// Frames are whole: for any k, the k longest frames all take as long as the k-th, and by some time each slot can have
    /// ended only so many of those.
    fn by_counting(&self, mut frames: Vec<Seconds>) -> Seconds {
        frames.sort_by(|a, b| b.total_cmp(a));
        let speeds: Vec<f64> =
            self.machines.iter().flat_map(|(speed, count)| (0..*count).map(|_| f64::from(*speed) / 100.0)).collect();
        let fastest = speeds.iter().copied().fold(0.0, f64::max);
        if frames.is_empty() || fastest <= 0.0 {
            return 0.0;
        }
        // Every k would cost n log n each; a few dozen tell as much.
        let steps = 48.min(frames.len());
        let ks = (1..=steps).map(|step| (frames.len() as f64).powf(step as f64 / steps as f64).round() as usize);
        let bound = |k: usize| {
            let k = k.clamp(1, frames.len());
            let each = frames[k - 1];
            let whole =
                |time: Seconds| speeds.iter().map(|speed| (time * speed / each + 1e-9).floor() as usize).sum::<usize>();
            let (mut short, mut long) = (0.0, each * k as f64 / fastest);
            for _ in 0..40 {
                let middle = (short + long) / 2.0;
                if whole(middle) >= k { long = middle } else { short = middle }
            }
            short
        };
        ks.map(bound).fold(bound(1), f64::max)
    }
}

fn seconds(time: Seconds) -> Duration {
    Duration::try_from_secs_f64(time.max(0.0)).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(frames: usize, machines: &[u32]) -> Workload {
        let jobs = vec![(Duration::from_secs(3), vec![Duration::from_secs(10); frames])];
        Workload { jobs, machines: machines.iter().map(|speed| (*speed, 1)).collect(), outages: Vec::new() }
    }

    fn secs(time: Duration) -> f64 {
        (time.as_secs_f64() * 1000.0).round() / 1000.0
    }

    #[test]
    fn equal_frames_on_equal_machines_take_whole_rounds_under_every_policy() {
        let work = even(25, &[100; 10]);
        let peers = work.peers();
        assert_eq!((secs(work.bound()), secs(peers.fifo), secs(peers.chunks)), (30.0, 30.0, 100.0));
        assert_eq!(secs(peers.fixed), 30.0);
    }

    #[test]
    fn one_machine_half_as_fast_costs_as_much_as_one_frame_twice() {
        let work = even(10, &[100, 100, 100, 100, 100, 100, 100, 100, 100, 50]);
        assert_eq!((secs(work.bound()), secs(work.peers().fifo), secs(work.peers().fixed)), (20.0, 20.0, 20.0));
    }

    #[test]
    fn the_longest_frame_takes_as_long_as_the_fastest_machine_needs() {
        let mut work = even(2, &[100, 200]);
        work.jobs[0].1[1] = Duration::from_secs(100);
        assert_eq!(secs(work.bound()), 50.0);
    }

    #[test]
    fn who_is_gone_loses_its_frame_and_who_sleeps_keeps_it() {
        let mut work = even(1, &[100]);
        let outage = |away| Outage { machine: 0, from: Duration::from_secs(8), to: Duration::from_secs(20), away };
        work.outages = vec![outage(Away::Gone)];
        assert_eq!((secs(work.peers().fifo), secs(work.peers().fixed)), (27.0, 27.0));
        work.outages = vec![outage(Away::Asleep)];
        assert_eq!((secs(work.peers().fifo), secs(work.bound())), (22.0, 22.0));
        work.outages = vec![outage(Away::Paused)];
        assert_eq!(secs(work.peers().fifo), 10.0);
    }
}
