//! From one swarm into another: who may, and what is written down on the way.
//!
//! The node first leaves its swarm as one that stops does. Then its keys, what it remembers of members and its ledger
//! change in one write, and only then does it start anew: at no moment are there logs of a swarm whose keys are gone.

use super::http::{ApiError, ErrorKind};
use super::identity::{self, Invite};
use super::{Exit, Node, NodeError, World};
use crate::seal::swarm_id;
use serde_json::{Value, json};
use tokio::sync::oneshot;

type Reply = oneshot::Sender<Result<Value, ApiError>>;

/// Whoever wants this machine in another swarm.
pub struct Rejoin {
    invite: Invite,
    reply: Reply,
}

impl Node {
    /// Begins to join another swarm. Answered once that is written down, or refused.
    pub(super) fn join(&mut self, code: &str, reply: Reply) {
        match self.may_join(code) {
            Ok(invite) if invite.swarm_key == self.identity.swarm_key => {
                let here = self.farm.roster().alive(self.clock.now()).count() - 1;
                let _ = reply.send(Ok(json!({"swarm": name_of(&invite), "nodes": here})));
            }
            Ok(invite) => self.exit = Some(Exit::Rejoin(Rejoin { invite, reply })),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn may_join(&self, code: &str) -> Result<Invite, ApiError> {
        let invite = Invite::parse(code).map_err(|error| ApiError::new(ErrorKind::BadCode, error.to_string()))?;
        let open = self.farm.jobs().values().filter(|job| !job.is_over() && job.owner() == Some(self.identity.node));
        let open = open.count();
        if open > 0 && invite.swarm_key != self.identity.swarm_key {
            let text = format!(
                "{open} jobs of this machine are unfinished in its present swarm; cancel them or let them end, then join"
            );
            return Err(ApiError::new(ErrorKind::JobState, text));
        }
        Ok(invite)
    }
}

impl Rejoin {
    /// Makes this machine a member of the other swarm, for the node that starts next.
    ///
    /// # Errors
    /// It could not be written. Then nothing has changed, and no node may start in this process: the store would still
    /// tell it of batches that were not its own.
    pub fn perform(self, world: &mut World) -> Result<(), NodeError> {
        let written = identity::join(&world.store, &self.invite).map_err(NodeError::from);
        // What was sent before is on disk too, and the next node must not take that for its own.
        while world.store_events.try_recv().is_ok() {}
        // Who is there shows in a moment, once the node has been started anew.
        let answer = written.as_ref().map(|()| json!({"swarm": name_of(&self.invite)}));
        let _ = self.reply.send(answer.map_err(ApiError::from));
        written
    }
}

fn name_of(invite: &Invite) -> String {
    swarm_id(&invite.swarm_key)[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}
