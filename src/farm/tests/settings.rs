//! What is set for the whole swarm.

use super::*;
use crate::farm::settings::SwarmSetting;

const SECOND: Duration = Duration::from_secs(1);

impl Trio {
    fn set_for_all(&mut self, at: usize, series: Option<&str>) {
        let node = self.names[at];
        let series = series.map(|series| series.parse().expect("a series"));
        self.give(node, Input::Setting(SwarmSetting::Series(series)));
    }

    /// The series as the machine at `at` knows it, and who said so.
    fn set_series(&mut self, at: usize) -> (Option<String>, Option<NodeId>) {
        let settings = self.at(at).farm.roster().settings();
        (settings.series().map(|series| series.to_string()), settings.series_by().map(|by| by.node))
    }
}

#[test]
fn a_setting_of_any_machine_reaches_every_other_also_those_that_come_later_and_outlasts_starts() {
    let mut trio = Trio::new(3);
    let (first, last) = (trio.names[0], trio.names[2]);
    trio.set_for_all(0, Some("4.5"));
    assert_eq!(trio.set_series(0), (Some("4.5".into()), Some(first)), "at once");
    trio.wait(SECOND);
    assert_eq!(trio.set_series(2), (Some("4.5".into()), Some(first)));
    trio.set_for_all(2, Some("4.2"));
    trio.start(4);
    trio.wait(5 * SECOND);
    (0..4).for_each(|at| assert_eq!(trio.set_series(at), (Some("4.2".into()), Some(last)), "{at}"));
    trio.kill(1);
    trio.set_for_all(0, None);
    trio.wait(SECOND);
    trio.restart(1, 40);
    trio.wait(5 * SECOND);
    (0..4).for_each(|at| assert_eq!(trio.set_series(at), (None, Some(first)), "{at}"));
}

#[test]
fn of_settings_that_two_halves_of_a_swarm_made_one_counts_everywhere() {
    let mut trio = Trio::new(2);
    trio.kill(1);
    trio.set_for_all(0, Some("4.5"));
    trio.kill(0);
    trio.restart(1, 41);
    trio.set_for_all(1, Some("3.4"));
    trio.restart(0, 42);
    trio.wait(5 * SECOND);
    let known = [0, 1].map(|at| trio.set_series(at));
    assert_eq!(known[0], known[1]);
    assert!(matches!(known[0].0.as_deref(), Some("4.5" | "3.4")), "{known:?}");
}
