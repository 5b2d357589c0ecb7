//! Every tunable of the farm, with its unit and where the number comes from.

use std::time::Duration;

/// Between heartbeats. DESIGN §3. Measured with `scripts/sim --gate`, 30 seeds, each with its four times in
/// [`SUSPECT_AFTER`]: from 1.1 to 2.8 s makespans and duplicates of faulty farms differ by no more than chance.
pub const HEARTBEAT: Duration = Duration::from_secs(2);
/// A node unheard of for this long has no live claims. DESIGN §3: four heartbeats.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(8);
/// A node whose connection ended and did not come back within this has no live claims either: its process died, or its
/// machine. Four times the redial of a lost peer (guess); being wrong costs frames rendered twice, never lost ones.
pub const GONE_AFTER: Duration = Duration::from_secs(4);
/// A connection that ends so soon after the last word of a node ended with its process; later, the network may be cut, and
/// a cut is noticed by silence. Half as long again as [`HEARTBEAT`], for one that is late.
pub const BROKE_OFF_WITHIN: Duration = Duration::from_secs(3);
/// A start of which nothing new was told for this long may have been told wrongly of before: half as long again as
/// [`HEARTBEAT`], so that one late heartbeat is no reason, and two more come before [`SUSPECT_AFTER`].
pub const DOUBT_AFTER: Duration = Duration::from_secs(3);
/// A heartbeat may be told of by others that is this much further ahead than one for every [`TICK`] since the last: a
/// machine that begins short frames tells them as early (guess: twice what one counts between two heartbeats).
pub const BEATS_AHEAD: u64 = 16;
/// Between digests, before jitter of up to as much again divided by four. DESIGN §2.
pub const DIGEST_EVERY: Duration = Duration::from_secs(1);
/// A loop this late was suspended or starved, and distrusts its own timers (guess: two missed ticks of a busy machine).
pub const LATE_LOOP: Duration = Duration::from_secs(3);
/// Most units looked at at once for results whose holders are away: with a million, all of them take a second and more,
/// 10,000 some 20 ms.
pub const UNITS_LOOKED_AT: usize = 10_000;
/// Between looks for results of an absent submitter that need a second holder (guess; each at [`UNITS_LOOKED_AT`] units).
pub const REPLICATE_EVERY: Duration = Duration::from_secs(1);
/// A machine that found nothing to begin looks again no sooner than this, whatever it hears (guess: nobody notices).
pub const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Between ticks while something is going on.
pub const TICK: Duration = Duration::from_millis(250);
/// Units are picked among the earliest open ones, this many times the swarm's slots. Measured with `scripts/sim`, 8 seeds:
/// claims lost in `modal-gpu` 7.4%, 4.4%, 2.3% with 1, 2, 4; frames rendered twice in `light` 12.9%, 3.0%, 1.2%.
pub const WINDOW_PER_SLOT: usize = 4;
/// Never a smaller window than this.
pub const WINDOW_MIN: usize = 8;
/// Most candidates whose rivals are counted for one choice: with 500 nodes half a million draws would be 2 ms.
pub const RANKED_AT_MOST: usize = 64;
/// Units of a member that vanished are left for last for this long: a cut heals by then or its work is not coming back
/// (guess).
pub const MISSED_FOR: Duration = Duration::from_secs(600);
/// What only machines hold that were silent for this long is rendered anew once nothing else is open: a cut heals, and a
/// machine that crashed is back, more often than not before that (guess).
pub const ORPHAN_AFTER: Duration = Duration::from_secs(30);
/// A claim reaches this far ahead when frames are short. DESIGN §3 "sized in seconds". Measured with `scripts/sim`, 8 seeds
/// of `light`: frames rendered twice 2.4%, 1.0%, 0.9%, 0.9% with 0.5, 1, 2, 4 s, makespan 1.15, 1.11, 1.13, 1.14; longer
/// frames do not care.
pub const CLAIM_AHEAD: Duration = Duration::from_secs(2);
/// Most units claimed ahead.
pub const CLAIM_MAX_UNITS: usize = 16;
/// A unit further on than this, in hundredths, is not yielded. DESIGN §3.
pub const YIELD_BELOW_PERCENT: u8 = 10;
/// A unit begun this long ago is not yielded either, whatever is known of its progress: short frames tell none (guess).
pub const YIELD_WITHIN: Duration = Duration::from_secs(2);
/// Most copies of a unit rendering at once. DESIGN §3.
pub const MAX_COPIES: usize = 2;
/// A backup must be expected to end this much sooner than the holder, at least. Keeps twins from racing (guess).
pub const BACKUP_MARGIN: Duration = Duration::from_millis(500);
/// Attempts of one node at one unit. DESIGN §3.
pub const ATTEMPTS_PER_NODE: usize = 2;
/// Failures of a job that keep a node off it. DESIGN §3.
pub const FAILURES_PER_NODE: usize = 3;
/// Failures a machine knows of for this long are forgiven. DESIGN §3.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(5 * 3600);
/// Jobs in which others rendered what failed here, from which on this machine is sick. DESIGN §3.
pub const SICK_JOBS: usize = 2;
/// After a failed test frame the next is rendered this much later (guess).
pub const SELF_TEST_EVERY: Duration = Duration::from_secs(600);
/// With more units left per slot than this nobody asks whether it would end last: machines differ by less (DESIGN §9
/// simulates up to 8×).
pub const LATE_UNITS_PER_SLOT: usize = 16;
/// What others were expected to take and have not is begun here this much after it would have ended here (guess: longer
/// than a dead machine is believed in).
pub const PATIENCE: Duration = Duration::from_secs(8);
/// From this many failed units on, [`STOP_PERCENT`] stops the job. DESIGN §3.
pub const STOP_FROM: usize = 10;
/// Share of failed units that stops a job, hundredths. DESIGN §3.
pub const STOP_PERCENT: usize = 10;
/// Up to here everyone talks to everyone. DESIGN §2.
pub const FULL_MESH: usize = 64;
/// Above that, neighbours a machine draws to talk to; about as many draw it. Measured with `scripts/sweep
/// MESH_DRAWS=3,4,6 -- --scenario hundred --seeds 4`: an op is everywhere in 62, 59, 55 ms (median) and 164, 154, 150 ms (99
/// of 100; of 10 seeds 194 ms with 3, 155 with 4), for 49.2, 64.7, 96.1 bytes a frame and link; no makespan
/// is longer for it: `big --nodes 150 --frames 6000 --seeds 3`, 3 and 4: 1.044 and 1.046. A graph in which everyone draws k
/// is still connected when any k − 1 of them are gone, with near certainty (Fenner and Frieze 1982). `big --nodes 300
/// --frames 200`, one thread, 4 and 3: 70.6 and 54.0 s of processor time, 201 and 247 ms, 48.6 and 38.5 bytes.
pub const MESH_DRAWS: usize = 3;
/// Between batches of ops handed on above that. DESIGN §2: ops may wait 100 ms. Measured with `scripts/sim --scenario
/// hundred`, 2 seeds: an op is everywhere in 152, 301, 595, 1180 ms (99 of 100) with 50, 100, 200, 400 ms, for 83.6, 83.4,
/// 83.0, 89.4 bytes a frame and link. Links that only announce, along a tree (Plumtree, Leitão et al. 2007), made it 287 ms
/// for 29.7 bytes, and spared a swarm of 200 (`big --nodes 200 --frames 400`) 14% of processor time: not kept.
pub const PUSH_EVERY: Duration = Duration::from_millis(50);
/// Between batches of signs of life handed on above that: a handful of hops is well under [`SUSPECT_AFTER`].
pub const RELAY_EVERY: Duration = Duration::from_millis(500);
/// Between digests above that: they hardly ever agree, since something is always on its way, and then cost two lists of
/// everyone. Measured with `hundred`, 4 seeds, 1 and 2 s: p99 154 and 155 ms, 64.1 and 62.7 bytes a frame and link; in the
/// first 160 s of `big` answers to digests took 6.5 and 2.8 of 86 s of processor time.
pub const FEW_DIGEST_EVERY: Duration = Duration::from_secs(2);
/// Bytes asked for and not yet arrived, per peer. DESIGN §4.
pub const IN_FLIGHT_PER_PEER_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes asked for and not yet arrived, in all. DESIGN §4.
pub const IN_FLIGHT_BYTES: u64 = 64 * 1024 * 1024;
/// Chunk requests under way at once per peer: with a map for each active fetch they fit the adapter's 64.
pub const REQUESTS_PER_PEER: usize = 24;
/// Blobs fetched at once; the rest wait in order.
pub const ACTIVE_FETCHES: usize = 32;
/// A peer that downloads too is asked what it has this often.
pub const ASK_HAVE_EVERY: Duration = Duration::from_millis(500);
/// A blob with fewer chunks is not worth asking half-complete peers for.
pub const ASK_HAVE_FROM_CHUNKS: usize = 8;
/// A request unanswered for this long is made elsewhere (guess; the adapter answers every request while connected).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A blob that nobody has, or that the store cannot take, is asked about again this much later (guess).
pub const REST: Duration = Duration::from_secs(1);
/// After a failed delivery (disk full, unwritable) the next attempt is made this much later.
pub const RETRY_DELIVERY: Duration = Duration::from_secs(5);
/// A job that is over, or whose submitter is away, is forgotten after so long. DESIGN §8: `--keep 14d`.
pub const KEEP: Duration = Duration::from_secs(14 * 24 * 3600);
/// Between looks at how long jobs have lain idle: what a crash takes from that time at most (guess).
pub const KEEP_REVIEW: Duration = Duration::from_secs(3600);
/// Most ledger bytes sent in answer to one `Versions`.
pub const REPAIR_BYTES: u64 = 4 * 1024 * 1024;
