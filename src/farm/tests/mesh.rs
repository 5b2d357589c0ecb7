//! Stories of large swarms, told by small ones in which everyone tells a few.

use super::*;

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
