//! How long things will take: a unit on a machine, and what is left of a job without this one.
//!
//! A machine's time for a unit is what it took for others of the job; else what others take for this job, corrected by
//! how the machine compares on other jobs; else by the benchmark, a frame that each machine renders once; else by its number
//! of cores. Medians of a scene are steadier than any of these, so that an estimate only ever decides between machines.

use super::config::{BACKUP_MARGIN, LATE_UNITS_PER_SLOT};
use super::id::{JobId, NodeId};
use super::message::Capability;
use super::roster::Member;
use super::schedule::View;
use super::state::JobState;
use std::cell::LazyCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

/// What is known of a machine before it renders, or on the average of several.
#[derive(Clone, Copy, Debug, Default)]
struct Strength {
    /// Milliseconds that the benchmark takes, if all that count were measured.
    benchmark: Option<u32>,
    cores: Option<u32>,
}

impl Strength {
    /// Time of a unit here that takes machines of other strength so long.
    fn time(self, millis: u64, theirs: Self) -> u128 {
        let by = match (self.benchmark.zip(theirs.benchmark), theirs.cores.zip(self.cores)) {
            // A multiple of the benchmark's time takes a multiple of theirs; a multiple of cores divides it.
            (Some(by), _) | (None, Some(by)) => by,
            (None, None) => (1, 1),
        };
        u128::from(millis) * u128::from(by.0) / u128::from(by.1)
    }
}

impl View<'_> {
    /// Time of one unit of a job on a machine; `None` while nobody has rendered any.
    pub fn estimate(&self, job: &JobState, node: NodeId) -> Option<Duration> {
        self.estimate_by(job, node, || self.renderers(job))
    }

    /// The same with [`Self::renderers`], which looks at each of them: for who asks about many machines.
    fn estimate_by(&self, job: &JobState, node: NodeId, theirs: impl Fn() -> Strength) -> Option<Duration> {
        if let Some(own) = job.mean_millis(Some(node)) {
            return Some(Duration::from_millis(own));
        }
        let elsewhere = job.mean_millis(None)?;
        let millis = match self.against_others(job.id, node) {
            Some((here, there)) if there > 0 => u128::from(elsewhere) * u128::from(here) / u128::from(there),
            _ => self.strength(node).time(elsewhere, theirs()),
        };
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    /// Over all other jobs that a machine and others rendered: the sum of its mean times, and of all machines'.
    fn against_others(&self, but: JobId, node: NodeId) -> Option<(u64, u64)> {
        let others = self.jobs.values().filter(|job| job.id != but);
        let pairs = others.filter_map(|job| Some((job.mean_millis(Some(node))?, job.mean_millis(None)?)));
        pairs.reduce(|sum, one| (sum.0.saturating_add(one.0), sum.1.saturating_add(one.1)))
    }

    fn strength(&self, node: NodeId) -> Strength {
        let told = self.roster.member(node).and_then(|member| member.capability.as_ref());
        let known = |number: u32| Some(number).filter(|number| *number > 0);
        let number = |of: fn(&Capability) -> u32| told.and_then(|told| known(of(told)));
        Strength { benchmark: number(|told| told.benchmark_millis), cores: number(|told| told.cores) }
    }

    /// That of the machines that rendered a job, on the average.
    fn renderers(&self, job: &JobState) -> Strength {
        let rendered = job.speeds().iter().filter(|(_, (frames, _))| *frames > 0);
        let all: Vec<Strength> = rendered.map(|(node, _)| self.strength(*node)).collect();
        let benchmarks: Option<Vec<u32>> = all.iter().map(|one| one.benchmark).collect();
        let cores: Vec<u32> = all.iter().filter_map(|one| one.cores).collect();
        Strength { benchmark: benchmarks.and_then(|benchmarks| mean(&benchmarks)), cores: mean(&cores) }
    }

    /// Whether a unit begun here now would end only after the others have ended the job without it. Of two machines that
    /// look at the same estimates the faster one never holds back, so that somebody takes what is open.
    pub fn would_end_late(&self, job: &JobState) -> bool {
        let Some(own) = self.estimate(job, self.me.node) else { return false };
        self.end_without_me(job, own).is_some_and(|end| own > end + BACKUP_MARGIN)
    }

    /// When the others will have ended a job, from now; `None` when that is later than `limit`, or cannot be told.
    fn end_without_me(&self, job: &JobState, limit: Duration) -> Option<Duration> {
        let others = || self.roster.alive(self.now).filter(|(node, _)| *node != self.me.node);
        let slots_of = |member: &Member| member.capability.as_ref().map_or(0, |capability| capability.slots as usize);
        // Far from the end the answer is plain, and not worth the walk: also when all that could be running is.
        let most: usize = others().map(|(_, member)| slots_of(member).max(member.in_hand.len())).sum();
        if job.unfinished().len().saturating_sub(most) > LATE_UNITS_PER_SLOT * most {
            return None;
        }
        let holders: BTreeSet<NodeId> = job.current_specs().flat_map(|spec| job.having(spec.bundle)).collect();
        let mut estimates: BTreeMap<NodeId, Duration> = BTreeMap::new();
        let mut slots: BinaryHeap<Reverse<(Duration, NodeId)>> = BinaryHeap::new();
        let theirs = LazyCell::new(|| self.renderers(job));
        let estimate = |node| self.estimate_by(job, node, || *theirs);
        let (mut end, mut running, mut rate) = (Duration::ZERO, 0usize, 0f64);
        for (node, member) in others() {
            for hand in member.in_hand.iter().filter(|hand| hand.job == job.id) {
                running += 1;
                let since = member.since.get(&(hand.job, hand.unit)).copied().unwrap_or(self.now);
                let left = self.remaining(estimate(node), hand.percent, since);
                end = end.max(left);
                slots.push(Reverse((left, node)));
            }
            // One that renders something else may stay there; one without the scene or kept off does not come.
            let is_elsewhere = member.in_hand.iter().any(|hand| hand.job != job.id);
            let comes = !is_elsewhere && self.fits_now(job, node) && holders.contains(&node);
            let Some(time) = comes.then(|| estimate(node)).flatten().filter(|time| !time.is_zero()) else {
                continue;
            };
            let count = slots_of(member);
            rate += count as f64 / time.as_secs_f64();
            estimates.insert(node, time);
            let idle = count.saturating_sub(member.in_hand.len());
            (0..idle).for_each(|_| slots.push(Reverse((Duration::ZERO, node))));
        }
        let left = job.unfinished().len().saturating_sub(running);
        if left > LATE_UNITS_PER_SLOT * slots.len() || left as f64 > rate * limit.as_secs_f64() {
            return None;
        }
        for _ in 0..left {
            // A slot whose machine does not come takes nothing more.
            let (free, node) = std::iter::from_fn(|| slots.pop())
                .map(|Reverse(slot)| slot)
                .find(|(_, node)| estimates.contains_key(node))?;
            let ends = free + *estimates.get(&node)?;
            if ends >= limit {
                return None;
            }
            end = end.max(ends);
            slots.push(Reverse((ends, node)));
        }
        Some(end)
    }
}

/// The mean of some numbers, at least 1.
fn mean(numbers: &[u32]) -> Option<u32> {
    let count = u64::try_from(numbers.len()).ok().filter(|count| *count > 0)?;
    let sum: u64 = numbers.iter().map(|number| u64::from(*number)).sum();
    u32::try_from(sum / count).ok().map(|mean| mean.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_compared_by_the_benchmark_where_all_have_it_and_else_by_cores() {
        let of = |benchmark, cores| Strength { benchmark, cores };
        let theirs = of(Some(500), Some(8));
        assert_eq!(of(Some(2000), Some(16)).time(1000, theirs), 4000);
        assert_eq!(of(None, Some(16)).time(1000, theirs), 500);
        assert_eq!(of(Some(2000), Some(16)).time(1000, of(None, Some(8))), 500);
        assert_eq!(of(Some(2000), None).time(1000, of(None, Some(8))), 1000);
        assert_eq!((mean(&[]), mean(&[300, 900]), mean(&[u32::MAX; 3])), (None, Some(600), Some(u32::MAX)));
    }
}
