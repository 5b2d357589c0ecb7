//! The state of what never ended, for the report of a violation.

use super::World;

impl World {
    /// The state of what never ended, for the report of a violation.
    pub(super) fn what_is_left(&self) -> String {
        let mut text = String::new();
        for (i, machine) in self.machines.iter().enumerate() {
            let Some(farm) = &machine.farm else {
                text += &format!("\n  machine {i} is down");
                continue;
            };
            text += &format!("\n  machine {i} {} digest {:02x?}", machine.node.short(), &farm.ledger().digest()[..3]);
            text += &format!(", neighbours {}, hands {:?}", farm.roster().neighbours().count(), farm.hands());
            text += &format!(", renders {:?}", machine.renders.keys().collect::<Vec<_>>());
            for (id, job) in farm.jobs().iter().filter(|(_, job)| !job.is_over()) {
                let units: Vec<String> = job
                    .unfinished()
                    .iter()
                    .map(|unit| {
                        let state = job.unit(*unit);
                        let failures = state.current_failures().count();
                        format!("{unit}: epoch {} failures {failures} claims {:?}", state.epoch, state.claims)
                    })
                    .collect();
                let paused = job.is_paused();
                let collector = farm.collectors().get(id).map(|c| {
                    format!("pending {:?} delivering {:?} finished {:?}", c.pending, c.delivering, c.finished)
                });
                let results: Vec<String> = farm
                    .collectors()
                    .get(id)
                    .iter()
                    .flat_map(|collector| &collector.pending)
                    .flat_map(|unit| {
                        job.unit(*unit).current_results().map(move |(actor, result)| (unit, actor, result))
                    })
                    .flat_map(|(unit, actor, result)| {
                        result.outputs.iter().map(move |output| (unit, actor, output.blob))
                    })
                    .map(|(unit, actor, blob)| {
                        let holders = job.holders(blob);
                        format!(
                            "{unit} by {actor:?}: {blob:?} held by {holders:?}, wanted {:?}",
                            farm.wanted.get(&blob)
                        )
                    })
                    .collect();
                text += &format!("\n    pending {results:?}\n    {:?}", farm.transfer);
                let ready = job.spec.as_ref().map(|spec| farm.has_bundle(spec.bundle));
                text += &format!(
                    "\n    {id:?} owner {:?} paused {paused} bundle {ready:?} unfinished {units:?} collector {collector:?}",
                    job.owner().map(|owner| owner.short())
                );
            }
        }
        text
    }
}
