//! Stories of large swarms, told by small ones in which everyone tells a few.

use super::*;
use crate::farm::config::{DOUBT_AFTER, HEARTBEAT, RELAY_EVERY};
use crate::farm::id::ActorId;
use crate::farm::message::Heartbeat;
use crate::farm::roster::Roster;

#[test]
fn a_link_over_which_nothing_comes_is_given_up_once_a_request_over_it_fails() {
    let mut trio = Trio::with(2, |_, _| true, Some((0, 1)));
    trio.wait(Duration::from_secs(5));
    let (first, second) = (trio.names[0], trio.names[1]);
    let gives_up = |trio: &mut Trio| {
        let now = Now { mono: trio.now, wall_ms: 0 };
        let failed = Input::RequestFailed { from: second, blob: BUNDLE, index: None };
        let farm = &mut trio.machines.get_mut(&first).expect("a machine").farm;
        let effects = farm.handle(now, failed, &mut StdRng::seed_from_u64(1));
        effects.iter().any(|effect| matches!(effect, Effect::Disconnect { node } if *node == second))
    };
    assert!(!gives_up(&mut trio), "it was heard a moment ago");
    trio.now += SUSPECT_AFTER;
    assert!(gives_up(&mut trio), "whether or not others hear it");
}

#[test]
fn whom_a_member_talks_to_is_known_no_longer_than_it_says_so_itself() {
    let mut trio = Trio::with(1, |_, _| true, None);
    let farm = &mut trio.machines.get_mut(&trio.names[0]).expect("a machine").farm;
    let (far, boot) = (actor(2).node, actor(2).boot);
    let mut hears = |after: Duration, input: Input| {
        farm.handle(Now { mono: trio.now + after, wall_ms: 0 }, input, &mut trio.rng);
        farm.origin(actor(2)).is_some_and(|origin| origin.neighbours.contains(&actor(3).node))
    };
    hears(Duration::ZERO, Input::Connected { node: far, boot });
    let beat = Heartbeat {
        counter: 1,
        boot,
        load_percent: 0,
        free_memory_bytes: None,
        at_desk: false,
        in_hand: Vec::new(),
        neighbours: vec![actor(3).node],
    };
    let message = Message::Heartbeat(beat).into();
    assert!(hears(Duration::ZERO, Input::Received { from: far, message }));
    // From now on others tell that it lives, as in a swarm that has become large.
    let told = |count: u32| Input::Received { from: far, message: Message::Beats(vec![(boot, count.into())]).into() };
    let beats = SUSPECT_AFTER.as_millis().div_ceil(HEARTBEAT.as_millis()) as u32;
    for count in 1..=beats {
        let knows = hears(count * HEARTBEAT, told(1 + count));
        assert_eq!(knows, count < beats, "{count}");
    }
}

fn actor(byte: u8) -> ActorId {
    ActorId { node: NodeId([byte; 32]), boot: BootId([byte; 8]) }
}

/// A member that has counted to seven, of which this machine heard itself a moment ago.
struct Far {
    roster: Roster,
    now: Duration,
}

impl Far {
    const COUNTED: u64 = 7;

    fn new() -> Self {
        let now = Duration::from_secs(100);
        let mut roster = Roster::new(actor(1));
        roster.connected(actor(2).node, actor(2).boot, now);
        let mut far = Self { roster, now };
        assert!(far.tells(Self::COUNTED));
        far
    }

    fn tells(&mut self, counter: u64) -> bool {
        let beat = Heartbeat {
            counter,
            boot: actor(2).boot,
            load_percent: 0,
            free_memory_bytes: None,
            at_desk: false,
            in_hand: Vec::new(),
            neighbours: Vec::new(),
        };
        self.roster.drop_beats();
        self.roster.heartbeat(actor(2).node, &beat, self.now);
        self.roster.has_beats()
    }

    fn is_told_of(&mut self, counter: u64) -> bool {
        self.roster.drop_beats();
        self.roster.relayed_beats(&[(actor(2).boot, counter)], self.now);
        self.roster.has_beats()
    }

    fn lives(&self) -> bool {
        self.roster.is_alive(actor(2).node, self.now)
    }
}

#[test]
fn whatever_others_tell_of_a_member_its_own_word_counts() {
    for wrong in [Far::COUNTED + 1, Far::COUNTED + 10, 1 << 40, u64::MAX] {
        let mut far = Far::new();
        far.is_told_of(wrong);
        assert!(!far.tells(Far::COUNTED), "said before");
        assert!(far.tells(Far::COUNTED + 1), "{wrong}");
        far.now += HEARTBEAT;
        assert!(far.tells(Far::COUNTED + 2), "{wrong}");
        assert_eq!(far.roster.take_beats(9), [(actor(2).boot, Far::COUNTED + 2)], "and is what is handed on");
        assert!(far.roster.take_beats(9).is_empty(), "once");
    }
}

#[test]
fn signs_of_life_that_one_message_cannot_hold_are_handed_on_with_the_next() {
    let mut far = Far::new();
    far.roster.drop_beats();
    far.roster.connected(actor(3).node, actor(3).boot, far.now);
    let beats = [(actor(2).boot, Far::COUNTED + 1), (actor(3).boot, 1)];
    far.roster.relayed_beats(&beats, far.now);
    far.roster.relayed_beats(&beats, far.now);
    assert_eq!(far.roster.take_beats(1), beats[..1]);
    assert!(far.roster.has_beats());
    assert_eq!(far.roster.take_beats(1), beats[1..]);
    assert!(!far.roster.has_beats(), "each once");
    // A counter that says nothing is not handed on, whoever tells it.
    far.now += DOUBT_AFTER;
    far.roster.relayed_beats(&[(actor(3).boot, 0)], far.now);
    assert!(far.roster.take_beats(9).is_empty());
    far.roster.relayed_beats(&[(actor(3).boot, 2)], far.now);
    far.roster.disconnected(actor(3).node, far.now);
    far.roster.connected(actor(3).node, actor(4).boot, far.now);
    assert!(far.roster.take_beats(9).is_empty(), "nothing of a start that is no more");
}

#[test]
fn a_wrong_word_about_a_member_does_not_silence_what_others_truly_tell_of_it() {
    for wrong in [0, 1, Far::COUNTED + 10, Far::COUNTED + 20, 1 << 40, u64::MAX] {
        let mut far = Far::new();
        for count in 1..20 {
            far.now += HEARTBEAT;
            far.is_told_of(Far::COUNTED + count);
            far.now += RELAY_EVERY / 2;
            // Now and again, for as long as it pleases.
            far.is_told_of(wrong);
            assert!(far.lives(), "{wrong}, {count}");
        }
    }
    let mut far = Far { roster: Roster::new(actor(1)), now: Duration::ZERO };
    far.roster.connected(actor(2).node, actor(2).boot, far.now);
    assert!(far.is_told_of(u64::MAX), "the first word of all");
    for count in 0..20 {
        far.now += HEARTBEAT;
        far.is_told_of(Far::COUNTED + count);
        assert!(far.lives(), "{count}");
    }
}

#[test]
fn a_wrong_word_about_a_dead_member_does_not_keep_it_alive_for_long() {
    for wrong in [1, Far::COUNTED + 10, u64::MAX] {
        let mut far = Far::new();
        let dead = far.now;
        while far.lives() {
            far.now += RELAY_EVERY;
            far.is_told_of(wrong);
        }
        assert!(far.now - dead < 2 * SUSPECT_AFTER, "{wrong}");
        // Words that were long on their way.
        for old in 0..=wrong.min(Far::COUNTED) {
            far.is_told_of(old);
            assert!(!far.lives(), "{wrong}, {old}");
        }
    }
}

#[test]
fn a_member_that_was_away_for_long_is_heard_again_by_what_others_tell_of_it() {
    let mut far = Far::new();
    far.now += Duration::from_secs(3600);
    assert!(!far.lives());
    assert!(far.is_told_of(Far::COUNTED + 1800), "counted all the while");
    assert!(far.lives());
}
