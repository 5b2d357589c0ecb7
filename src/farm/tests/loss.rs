//! What becomes of results whose files are gone.

use super::*;
use crate::farm::state::JobState;

const SECOND: Duration = Duration::from_secs(1);

impl Trio {
    /// The second of two machines renders this much of a job of the first.
    fn of_two(frames: i32) -> (Self, JobId) {
        let mut trio = Self::new(2);
        trio.slots(0, 0);
        let job = trio.submit(0, frames);
        trio.wait(SECOND);
        (trio, job)
    }

    /// Two machines, the second of which rendered all of a job while the first, which submitted it, was away; it renders
    /// nothing more before it is told to.
    fn of_one_that_is_away(frames: i32) -> (Self, JobId) {
        let (mut trio, job) = Self::of_two(frames);
        trio.kill(0);
        trio.finish();
        assert!(trio.job(1, job).unfinished().is_empty());
        trio.slots(1, 0);
        (trio, job)
    }

    /// The file of a frame, of its first epoch, is gone from a machine.
    fn lose(&mut self, at: usize, frame: u8) {
        let (node, blob) = (self.names[at], BlobId([frame; 32]));
        assert!(self.at(at).store.remove(&blob));
        self.give(node, Input::BlobsGone { blobs: vec![blob] });
        self.wait(SECOND);
    }

    /// A machine ends the first frame of a job, whose files are these.
    fn rendered(&mut self, at: usize, job: JobId, files: &[u8]) {
        let (node, unit) = (self.names[at], Unit::whole(1));
        assert!(self.at(at).rendering.remove(&(job, unit)));
        let role = |place: usize| if place == 0 { OutputRole::Image } else { OutputRole::Preview };
        let output = |(place, file): (usize, &u8)| Output {
            path: format!("{place}.png"),
            blob: BlobId([*file; 32]),
            bytes: 1,
            role: role(place),
        };
        let outputs: Vec<Output> = files.iter().enumerate().map(output).collect();
        self.at(at).store.extend(outputs.iter().map(|output| output.blob));
        let (device, build) = ("CPU".into(), "b".into());
        let result = Rendered { outputs, millis: 60_000, device, build, blank: None, warnings: Vec::new() };
        self.give(node, Input::Rendered { job, unit, epoch: 0, result });
        self.wait(SECOND);
    }

    fn comes_back(&mut self, at: usize) {
        self.restart(at, 50);
        self.slots(at, 0);
        self.wait(SECOND);
    }

    /// The submitter comes back and its job ends, with these epochs of its frames.
    fn ends_with_the_submitter(&mut self, job: JobId, epochs: &[u32]) {
        self.comes_back(0);
        self.finish();
        assert!(self.job(0, job).is_over());
        assert_eq!(self.epochs(0, job), epochs);
    }

    fn job(&self, at: usize, job: JobId) -> &JobState {
        &self.machines[&self.names[at]].farm.jobs()[&job]
    }

    fn epochs(&self, at: usize, job: JobId) -> Vec<u32> {
        let state = self.job(at, job);
        state.all_units().map(|unit| state.unit(unit).epoch).collect()
    }
}

#[test]
fn what_its_only_holder_lost_gets_a_new_epoch_from_the_submitter_and_is_rendered_anew() {
    let (mut trio, job) = Trio::of_one_that_is_away(3);
    trio.lose(1, 2);
    assert_eq!(trio.epochs(1, job), [0, 0, 0], "the submitter decides");
    trio.comes_back(0);
    assert_eq!((trio.epochs(0, job), trio.epochs(1, job)), (vec![0, 1, 0], vec![0, 1, 0]));
    assert!(
        trio.job(0, job).history.iter().any(|entry| entry.action == "frames 2 requeued by the loss of their files")
    );
    trio.slots(1, 1);
    trio.finish();
    assert!(trio.job(0, job).is_over());
    assert_eq!(trio.at(0).delivered, [1, 3, 2]);
    assert_eq!(trio.epochs(0, job), [0, 1, 0], "once");
}

#[test]
fn while_the_submitter_is_away_what_is_lost_is_rendered_anew_in_the_epoch_it_has() {
    let (mut trio, job) = Trio::of_one_that_is_away(3);
    trio.lose(1, 2);
    assert!(!trio.machines[&trio.names[1]].farm.is_done(trio.job(1, job), Unit::whole(2), trio.now));
    let begun = trio.at(1).begun.len();
    trio.slots(1, 1);
    trio.finish();
    assert_eq!(trio.at(1).begun[begun..], [(2, 0, BUNDLE)]);
    trio.ends_with_the_submitter(job, &[0, 0, 0]);
}

#[test]
fn a_frame_that_lost_one_of_its_files_is_rendered_anew_while_the_submitter_is_away() {
    let (mut trio, job) = Trio::of_two(1);
    trio.kill(0);
    trio.wait(SUSPECT_AFTER);
    trio.rendered(1, job, &[1, 50]);
    trio.slots(1, 0);
    trio.lose(1, 50);
    let begun = trio.at(1).begun.len();
    trio.slots(1, 1);
    trio.wait(SECOND);
    assert_eq!(trio.at(1).begun[begun..], [(1, 0, BUNDLE)]);
    trio.rendered(1, job, &[1, 50]);
    trio.wait(SECOND);
    assert!(trio.at(1).rendering.is_empty(), "once");
}

#[test]
fn what_another_still_holds_is_fetched_from_there_and_not_rendered_anew() {
    let mut trio = Trio::new(3);
    trio.slots(0, 0);
    trio.slots(2, 0);
    let job = trio.submit(0, 2);
    trio.wait(SECOND);
    trio.kill(0);
    trio.finish();
    // The third made the second copy.
    let holders = trio.job(1, job).holders(BlobId([1; 32]));
    assert_eq!(holders, trio.names[1..].iter().copied().collect());
    trio.lose(1, 1);
    trio.ends_with_the_submitter(job, &[0, 0]);
}

#[test]
fn a_frame_under_its_name_is_not_lost_whoever_lost_its_copies() {
    let (mut trio, job) = Trio::of_two(3);
    trio.render(1);
    trio.wait(SECOND);
    let frame = trio.at(0).delivered.clone();
    let [first] = frame[..] else { panic!("one frame is delivered: {frame:?}") };
    trio.lose(1, first as u8);
    trio.lose(0, first as u8);
    assert_eq!(trio.job(0, job).holders(BlobId([first as u8; 32])), BTreeSet::new());
    assert_eq!(trio.epochs(0, job), [0, 0, 0]);
    // The next start knows of no delivery, and looks.
    trio.kill(0);
    trio.comes_back(0);
    assert_eq!(trio.at(0).delivered, [first, first]);
    trio.finish();
    assert!(trio.job(0, job).is_over());
    assert_eq!(trio.epochs(0, job), [0, 0, 0]);
}

#[test]
fn a_job_that_is_over_stays_over_whatever_is_lost_of_it() {
    let (mut trio, job) = Trio::of_two(2);
    trio.finish();
    assert!(trio.job(0, job).is_over());
    trio.lose(1, 1);
    assert_eq!(trio.job(0, job).holders(BlobId([1; 32])), BTreeSet::new());
    trio.kill(0);
    trio.comes_back(0);
    trio.finish();
    assert!(trio.job(0, job).is_over() && trio.job(1, job).is_over());
    assert_eq!(trio.epochs(0, job), [0, 0]);
}

#[test]
fn the_collection_of_a_canceled_job_ends_without_what_is_lost() {
    let (mut trio, job) = Trio::of_one_that_is_away(2);
    trio.lose(1, 1);
    let node = trio.names[1];
    trio.give(node, Input::Command { job, command: JobCommand::Cancel("user".into()) });
    trio.comes_back(0);
    trio.finish();
    assert_eq!((trio.at(0).delivered.clone(), trio.epochs(0, job)), (vec![2], vec![0, 0]));
    let collector = trio.at(0).farm.collectors()[&job].clone();
    assert!(collector.ended);
    assert_eq!(collector.lost(trio.job(0, job)).collect::<Vec<_>>(), [Unit::whole(1)]);
}

#[test]
fn whoever_asks_learns_of_every_frame_that_is_lost() {
    let (mut trio, job) = Trio::of_one_that_is_away(5);
    [1, 2, 4].into_iter().for_each(|frame| trio.lose(1, frame));
    let node = trio.names[1];
    trio.give(node, Input::Command { job, command: JobCommand::Cancel("user".into()) });
    trio.comes_back(0);
    trio.finish();
    assert_eq!(trio.at(0).delivered, [3, 5]);
    let collector = trio.at(0).farm.collectors()[&job].clone();
    let said = "the files of frames 1-2,4 are gone from every machine that had them";
    assert_eq!((collector.ended, collector.reason.as_deref()), (true, Some(said)));
}

#[test]
fn what_was_given_up_too_early_comes_once_somebody_has_it() {
    let (mut trio, job) = Trio::of_one_that_is_away(2);
    trio.lose(1, 1);
    let node = trio.names[1];
    trio.give(node, Input::Command { job, command: JobCommand::Cancel("user".into()) });
    trio.comes_back(0);
    trio.finish();
    assert_eq!((trio.at(0).delivered.clone(), trio.at(0).videos), (vec![2], 1));
    // It has the file again, for another job, and says so.
    let blob = BlobId([1; 32]);
    trio.at(1).store.insert(blob);
    trio.machines.get_mut(&node).expect("a machine").farm.say(job, &Op::Holds { blobs: vec![blob] });
    trio.wait(3 * SECOND);
    assert_eq!((trio.at(0).delivered.clone(), trio.at(0).videos), (vec![2, 1], 2));
    let collector = trio.at(0).farm.collectors()[&job].clone();
    assert!(collector.ended && collector.lost(trio.job(0, job)).next().is_none());
}

#[test]
fn a_result_that_shares_a_file_with_one_that_is_not_under_its_name_is_looked_for_too() {
    let (mut trio, job) = Trio::of_two(1);
    trio.kill(0);
    trio.wait(SUSPECT_AFTER);
    trio.rendered(1, job, &[1, 50]);
    for file in [50, 51] {
        trio.lose(1, file);
        if file == 50 {
            trio.wait(SECOND);
            trio.rendered(1, job, &[1, 51]);
            trio.slots(1, 0);
        }
    }
    assert_eq!(trio.job(1, job).unit(Unit::whole(1)).current_results().count(), 2);
    // That of which the second file is another lies in the user's folder.
    trio.at(0).folder.extend([1, 51].map(|file| BlobId([file; 32])));
    trio.comes_back(0);
    assert_eq!((trio.at(0).delivered.clone(), trio.epochs(0, job)), (vec![1], vec![0]));
}

#[test]
fn what_a_collector_lost_it_fetches_again_and_says_so() {
    let (mut trio, job) = Trio::of_two(3);
    trio.at(0).is_slow = true;
    trio.render(1);
    trio.wait(SECOND);
    let first = trio.at(0).delivered[0] as u8;
    // Gone before it got under its name: its store lacks it by then.
    trio.at(0).unanswered.clear();
    trio.at(0).folder.clear();
    let (collection, blob) = (trio.at(0).farm.collectors()[&job].collection, BlobId([first; 32]));
    trio.at(0).store.remove(&blob);
    let node = trio.names[0];
    trio.give(node, Input::Undeliverable { job, collection, unit: Unit::whole(i32::from(first)), gone: vec![blob] });
    trio.wait(SECOND);
    trio.answer(0);
    assert!(trio.at(0).folder.contains(&blob));
    assert_eq!(trio.job(1, job).holders(blob), trio.names.iter().copied().collect());
    assert_eq!(trio.epochs(0, job), [0, 0, 0]);
}

#[test]
fn a_bundle_of_which_something_is_gone_is_looked_through_again() {
    let (mut trio, job) = Trio::of_two(3);
    let node = trio.names[1];
    for gone in [BUNDLE, BlobId([200; 32])] {
        trio.at(1).store.remove(&gone);
        // What it has is told when the test says so.
        trio.at(1).unheard.insert(BUNDLE);
        trio.give(node, Input::BlobsGone { blobs: vec![gone] });
        assert!(!trio.at(1).farm.has_bundle(BUNDLE), "{gone:?}");
        assert_eq!(trio.job(0, job).holders(BUNDLE).contains(&node), gone != BUNDLE);
        trio.at(1).unheard.clear();
        trio.at(1).store.insert(BUNDLE);
        trio.give(node, Input::BlobComplete { blob: BUNDLE });
        trio.wait(SECOND);
        assert!(trio.at(1).farm.has_bundle(BUNDLE) && trio.job(0, job).holders(BUNDLE).contains(&node), "{gone:?}");
    }
}

#[test]
fn a_result_that_is_rendered_here_is_fetched_no_more() {
    let (mut trio, job) = Trio::of_two(1);
    let blob = BlobId([1; 32]);
    trio.at(0).unheard.insert(blob);
    trio.render(1);
    trio.wait(SECOND);
    assert!(trio.at(0).farm.transfer.wants(blob) && trio.at(0).delivered.is_empty());
    // Lost there meanwhile, and rendered here: the same bytes.
    trio.at(0).rendering.insert((job, Unit::whole(1)));
    trio.render(0);
    trio.wait(SECOND);
    assert!(!trio.at(0).farm.transfer.wants(blob));
    assert_eq!(trio.at(0).delivered, [1]);
}
