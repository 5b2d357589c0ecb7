//! Whose scripts this machine runs, as its owner says: `swarm trust`.

use super::http::{ApiError, ErrorKind};
use super::{Node, view};
use crate::farm::Farm;
use crate::farm::event::Input;
use crate::farm::id::NodeId;
use crate::farm::message::SWARM_LOG;
use crate::farm::scripts::EVERYONE;
use serde_json::{Value, json};

impl Node {
    /// Trusts a machine, or every member where none is named, or does so no more.
    pub(super) fn trust(&mut self, whom: Option<&str>, trusted: bool) -> Result<Value, ApiError> {
        let node = whom.map_or(Ok(EVERYONE), |whom| view::find_node(&self.farm, whom))?;
        if node == self.identity.node {
            let text = "this machine runs scripts of its own jobs, whatever it is told; name another";
            return Err(ApiError::new(ErrorKind::BadRequest, text));
        }
        self.turn(Input::Trust { node, trusted });
        is_in_force(&self.farm, node, trusted)?;
        Ok(to_json(&self.farm))
    }
}

/// Refuses to say that a word counts which this machine could not write to the swarm's log.
fn is_in_force(farm: &Farm, node: NodeId, trusted: bool) -> Result<(), ApiError> {
    let (me, trusts) = (farm.me().node, farm.roster().trusts());
    let counts = match node {
        EVERYONE => trusts.trusts_members(me) == trusted,
        node => trusts.trusts(me, node) == trusted,
    };
    if counts {
        return Ok(());
    }
    let (told, why) = (told(farm), why_no_word(farm));
    Err(ApiError::new(ErrorKind::DataDir, format!("nothing is changed, and this machine still {told}: {why}")))
}

/// Why the swarm's log has no new word of this machine.
pub(super) fn why_no_word(farm: &Farm) -> &'static str {
    let is_forked = farm.ledger().forked().any(|(log, actor)| (log, actor) == (SWARM_LOG, farm.me()));
    match is_forked {
        true => {
            "another machine writes to the swarm's log in the name of this daemon, whose data directory was copied while \
             it ran; start it anew, then say this again"
        }
        false => "the swarm's log takes no word of this machine; the daemon's own log says why",
    }
}

fn to_json(farm: &Farm) -> Value {
    let me = farm.me().node;
    let (trusted, except) = named(farm);
    let all = |nodes: Vec<NodeId>| {
        let one = |node: NodeId| json!({"id": node.to_string(), "name": view::node_name(farm, node)});
        nodes.into_iter().map(one).collect::<Vec<_>>()
    };
    json!({
        "name": view::node_name(farm, me),
        "members": farm.roster().trusts().trusts_members(me),
        "trusts": all(trusted),
        "except": all(except),
        "told": told(farm),
    })
}

/// The members that this machine spoke of: those it trusts, and the others.
fn named(farm: &Farm) -> (Vec<NodeId>, Vec<NodeId>) {
    let me = farm.me().node;
    let named = farm.roster().trusts().named(me).filter(|(node, _)| *node != me);
    let (trusted, except): (Vec<_>, Vec<_>) = named.partition(|(_, trusted)| *trusted);
    let nodes = |words: Vec<(NodeId, bool)>| words.into_iter().map(|(node, _)| node).collect();
    (nodes(trusted), nodes(except))
}

/// Whose scripts this machine runs, as the rest of a sentence that begins with its name.
pub(super) fn told(farm: &Farm) -> String {
    let (trusted, except) = named(farm);
    let list = |nodes: &[NodeId]| {
        // Anybody may call a machine by another's name: the id tells them apart.
        let one = |node: &NodeId| format!("{} ({})", view::node_name(farm, *node), node.short());
        nodes.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    match (farm.roster().trusts().trusts_members(farm.me().node), &*trusted, &*except) {
        (true, _, []) => "runs scripts of every member's jobs".to_owned(),
        (true, _, except) => format!("runs scripts of every member's jobs but those of {}", list(except)),
        (false, [], _) => "runs scripts of its own jobs alone".to_owned(),
        (false, trusted, _) => format!("runs scripts of its own jobs and those of {}", list(trusted)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::event::Now;
    use crate::farm::id::BootId;
    use crate::seal::Sealer;

    #[test]
    fn a_word_that_does_not_count_is_refused_and_says_what_does() {
        let now = Now { mono: std::time::Duration::ZERO, wall_ms: 0 };
        let sealer = Sealer::from_seed(&[7; 32]);
        let mut farm = Farm::new(sealer, BootId([1; 8]), [0; 32], Vec::new(), now);
        let other = NodeId([9; 32]);
        for node in [other, EVERYONE] {
            let error = is_in_force(&farm, node, true).err();
            let says = "nothing is changed, and this machine still runs scripts of its own jobs alone: ";
            assert!(error.is_some_and(|error| error.message.starts_with(says)));
            for trusted in [true, false] {
                farm.handle(now, Input::Trust { node, trusted }, &mut rand::rng());
                assert_eq!(is_in_force(&farm, node, trusted), Ok(()));
            }
        }
    }
}
