//! Python that a job brings along, and which machines run it.
//!
//! Blender's own Python runs everywhere. What comes with a scene may do whatever Blender may, so that it runs only where
//! the job asks for it and the machine's owner said that whoever asks is trusted. Each machine says so in the swarm's own
//! log, where the others read it; what another says about trust never counts for this one.

use super::id::{ActorId, BootId, NodeId};
use super::job::JobSpec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Stands for every member where a machine says whom it trusts. No key is all zeros.
pub const EVERYONE: NodeId = NodeId([0; 32]);
/// The ops a machine must understand to know that a job asks for scripts: [`super::op::OP_VERSION`] as it was then.
const SCRIPTS_SINCE: u16 = 2;

/// What a job asks to be run beside Blender's own Python.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scripts {
    /// Drivers in Python, texts that register themselves and their handlers, in the files of the scene.
    pub in_files: bool,
    /// A file of the bundle that is run in the open scene before its first frame, by its place relative to the .blend.
    pub file: Option<String>,
}

impl Scripts {
    /// Whether nothing is asked for.
    pub fn is_none(&self) -> bool {
        !self.in_files && self.file.is_none()
    }

    /// The least op version a machine must understand to render what asks for this.
    pub fn op_version(&self) -> u16 {
        if self.is_none() { 1 } else { SCRIPTS_SINCE }
    }
}

/// Whose scripts each machine runs, by its own word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusts {
    /// The latest word of each machine about each other, or about [`EVERYONE`].
    words: BTreeMap<(NodeId, NodeId), Word>,
}

/// When it was said, which orders the words of a machine, and what.
type Word = ((BootId, u64), bool);

impl Trusts {
    /// An actor said so, as the `seq`-th of its log.
    pub fn say(&mut self, by: ActorId, seq: u64, whom: NodeId, trusted: bool) {
        let word = ((by.boot, seq), trusted);
        let latest = self.words.entry((by.node, whom)).or_insert(word);
        *latest = word.max(*latest);
    }

    /// Whether a machine runs what another asks for. A word about that one outweighs one about all.
    pub fn trusts(&self, node: NodeId, whom: NodeId) -> bool {
        let word = |whom| self.words.get(&(node, whom)).map(|(_, trusted)| *trusted);
        node == whom || word(whom).or_else(|| word(EVERYONE)).unwrap_or(false)
    }

    /// Whether a machine runs the scripts of a job, if it has any.
    pub fn runs(&self, node: NodeId, spec: &JobSpec) -> bool {
        spec.settings.scripts.is_none() || spec.author.is_some_and(|author| self.trusts(node, author))
    }

    /// Whether a machine trusts every member that it did not except.
    pub fn trusts_members(&self, node: NodeId) -> bool {
        self.words.get(&(node, EVERYONE)).is_some_and(|(_, trusted)| *trusted)
    }

    /// The members a machine spoke of one by one, and whether it trusts them, by id.
    pub fn named(&self, node: NodeId) -> impl Iterator<Item = (NodeId, bool)> + '_ {
        let own = self.words.range((node, NodeId([0; 32]))..=(node, NodeId([0xff; 32])));
        own.filter(|((_, whom), _)| *whom != EVERYONE).map(|((_, whom), (_, trusted))| (*whom, *trusted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn actor(n: u8, boot: u8) -> ActorId {
        ActorId { node: node(n), boot: BootId([boot; 8]) }
    }

    #[test]
    fn the_latest_word_about_a_machine_counts_in_whatever_order_words_come() {
        let words = [(actor(1, 1), 0, true), (actor(1, 1), 1, false), (actor(1, 2), 0, true), (actor(3, 9), 7, false)];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
            let mut trusts = Trusts::default();
            let mut trusted = Vec::new();
            for at in order {
                let (by, seq, trusted) = words[at];
                trusts.say(by, seq, node(2), trusted);
            }
            trusted.extend([node(1), node(3)].map(|of| trusts.trusts(of, node(2))));
            assert_eq!(trusted, [true, false], "{order:?}");
            assert!(!trusts.trusts(node(2), node(1)), "trust goes one way");
        }
    }

    #[test]
    fn a_machine_trusts_itself_whatever_is_said_and_a_word_about_one_outweighs_one_about_all() {
        let mut trusts = Trusts::default();
        assert!(trusts.trusts(node(1), node(1)) && !trusts.trusts(node(1), node(2)));
        trusts.say(actor(1, 1), 0, node(1), false);
        trusts.say(actor(1, 1), 1, EVERYONE, true);
        assert!(trusts.trusts(node(1), node(1)) && trusts.trusts(node(1), node(2)) && trusts.trusts_members(node(1)));
        trusts.say(actor(1, 1), 2, node(2), false);
        assert!(!trusts.trusts(node(1), node(2)) && trusts.trusts(node(1), node(3)));
        trusts.say(actor(1, 1), 3, EVERYONE, false);
        assert!(!trusts.trusts(node(1), node(3)) && !trusts.trusts_members(node(1)));
        assert_eq!(trusts.named(node(1)).collect::<Vec<_>>(), [(node(1), false), (node(2), false)]);
        assert_eq!(trusts.named(node(2)).count(), 0);
    }
}
