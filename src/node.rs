//! The world: network, disk, Blender, ffmpeg, HTTP, and the one loop that joins them to the farm.
//!
//! The loop reads the clock once per turn, turns what happened into one [`Input`], calls the farm and performs its
//! effects. It never waits for a disk, a peer or a process: those are tasks and threads that report back as events
//! through one bounded channel. Adapters do not know one another; only this file knows them all. It decides nothing: what
//! is claimed, fetched, rendered and delivered is the farm's choice.

mod answer;
mod benchmark;
mod calls;
mod capability;
mod cards;
mod cause;
pub mod chunk;
mod clock;
mod confinement;
mod debug;
mod deliver;
mod effects;
mod event;
pub mod fail;
mod format;
mod gpus;
mod holdings;
pub mod http;
mod identity;
mod kept;
mod leftover;
mod logs;
pub mod machine;
pub mod net;
mod options;
mod output;
mod polite;
mod preflight;
mod prospect;
mod rejoin;
pub mod render;
mod rows;
pub mod scene;
mod self_test;
mod settings;
mod slots;
pub mod store;
mod submit;
mod sweep;
mod trust;
mod unwritten;
mod update;
pub mod video;
mod view;

use crate::farm::Farm;
use crate::farm::event::{Input, Now, Token};
use crate::farm::id::{JobId, NodeId};
use crate::farm::message::{Capability, Problem};
use crate::farm::op::OP_VERSION;
use crate::seal::{self, Sealer};
pub use effects::Chunks;
pub use gpus::GpuMode;
pub use options::{NodeError, Options};

use answer::{Stream, Until, Watcher};
use clock::Clock;
use deliver::Delivery;
use event::{Event, WhoCan};
use http::{ApiCall, ApiError, ApiFile, ErrorKind, Reply};
use identity::Identity;
use logs::Logs;
use net::{NetConfig, NetEvent, NetHandle, PortChoice};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rejoin::Rejoin;
use render::Confinement;
use slots::Slots;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use store::{Store, StoreError, StoreEvent, StoreWriter};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use unwritten::Unwritten;
use update::Update;

/// Reports of tasks that wait for the loop. Tasks wait when it is full; news that can be missed is dropped.
const MAX_EVENTS: usize = 1024;
/// Between looks at the machine's load, idle Blenders and members to remember.
const HOUSEKEEPING: Duration = Duration::from_secs(2);
/// Watchers are told at most this often.
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for the disk and for frames being checked when the node ends (guess: a slow group commit).
const LEAVE: Duration = Duration::from_secs(2);
/// What was said last is given this long to reach the network's sockets (guess).
const LAST_WORDS: Duration = Duration::from_millis(50);
/// A question who could render a scene is held this long after the start while nobody can: members are still arriving.
const ARRIVAL: Duration = Duration::from_secs(8);

/// Runs a node until `stop`. `ready` hears when its API answers.
///
/// # Errors
/// The node cannot start, or cannot start anew in another swarm.
pub async fn run(options: Options, ready: oneshot::Sender<()>, stop: CancellationToken) -> Result<(), NodeError> {
    let (mut world, file, api) = World::open(options).await?;
    let data_dir = world.options.data_dir.clone();
    let told = || {
        file.write(&data_dir).map_err(|source| NodeError::DataDir { path: ApiFile::path(&data_dir), source })?;
        let _ = ready.send(());
        Ok(())
    };
    let ended = live(&mut world, told, &stop).await;
    if let Err(error) = file.remove(&data_dir) {
        tracing::debug!(%error, "api.json was not removed");
    }
    api.abort();
    if let Err(error) = world.store.close() {
        tracing::warn!(%error, "the store was not closed cleanly; the next start checks what it left");
    }
    ended
}

/// One membership after another; `up` is called once, when the first has begun.
async fn live(
    world: &mut World,
    up: impl FnOnce() -> Result<(), NodeError>,
    stop: &CancellationToken,
) -> Result<(), NodeError> {
    let mut node = Node::start(world).await?;
    up()?;
    loop {
        match node.run(world, stop).await {
            Exit::Stop => return Ok(()),
            Exit::Failed(error) => return Err(error),
            Exit::Rejoin(rejoin) => {
                tracing::info!("joining another swarm");
                rejoin.perform(world)?;
            }
        }
        node = Node::start(world).await?;
    }
}

/// What lasts as long as the process: the store, the API's socket, and the options.
struct World {
    options: Options,
    store: Arc<Store>,
    writer: StoreWriter,
    store_events: mpsc::Receiver<StoreEvent>,
    calls: mpsc::Receiver<ApiCall>,
}

impl World {
    async fn open(options: Options) -> Result<(Self, ApiFile, JoinHandle<()>), NodeError> {
        let store = Store::open(&options.data_dir)?;
        let store_events = store.events().ok_or(StoreError::Closed)?;
        let address = options.api.unwrap_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
        let cannot = |source| NodeError::Api { address, source };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let bound = listener.local_addr().map_err(cannot)?;
        let token: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
        let (calls_in, calls) = mpsc::channel(http::CALLS_WAITING);
        let file =
            ApiFile { address: bound, token: token.clone(), pid: std::process::id(), embedded: options.embedded };
        let api = tokio::spawn(async move {
            if let Err(error) = http::serve(listener, token, calls_in).await {
                tracing::error!("{}", cause::with_causes(&error));
            }
        });
        let writer = store.writer();
        Ok((Self { options, store, writer, store_events, calls }, file, api))
    }
}

/// Why the loop ended.
enum Exit {
    Stop,
    /// It cannot go on.
    Failed(NodeError),
    /// Another swarm is wanted.
    Rejoin(Rejoin),
}

/// Whoever waits for a submission to be written down.
struct Submission {
    stream: Stream,
    detach: bool,
    /// Until the job names them, nobody else says that its files are needed.
    _held: sweep::Held,
}

/// Members and where they answer, and what they can do.
type Met = (Vec<(NodeId, Vec<String>)>, BTreeMap<NodeId, Capability>);

/// One membership of one process in one swarm.
struct Node {
    options: Options,
    store: Arc<Store>,
    writer: StoreWriter,
    identity: Identity,
    clock: Clock,
    farm: Farm,
    rng: StdRng,
    net: NetHandle,
    net_events: mpsc::Receiver<NetEvent>,
    events: mpsc::Receiver<Event>,
    tell: mpsc::Sender<Event>,
    slots: Slots,
    logs: Arc<Logs>,
    delivery: Delivery,
    sweep: sweep::Sweep,
    unwritten: Unwritten,
    /// Requests the network had no room for: told to the farm a tick later, so that it does not ask in circles.
    unasked: Vec<Input>,
    capability: Capability,
    discovered: bool,
    render_problems: Vec<Problem>,
    confinement: Confinement,
    questions: Vec<WhoCan>,
    log_questions: Vec<logs::Question>,
    doctors: Vec<Reply>,
    submissions: BTreeMap<u64, Submission>,
    next_call: u64,
    watchers: Vec<Watcher>,
    watched_at: Duration,
    housekept_at: Duration,
    benchmark: benchmark::Benchmark,
    /// When it is looked for what was promised; before the first time, at once.
    hold_at: Option<Duration>,
    /// As the store has it, or will have once it is kept.
    remembered: Met,
    keeping: Option<JoinHandle<()>>,
    /// Why the loop is to end.
    exit: Option<Exit>,
}

impl Node {
    async fn start(world: &World) -> Result<Self, NodeError> {
        let (store, options) = (world.store.clone(), world.options.clone());
        let machine = machine::read();
        let identity = identity::load(&store, machine.id.as_deref())?;
        let clock = Clock::start();
        let now = Now { mono: clock.now(), wall_ms: clock::wall_ms() };
        let rows: Vec<_> = store.load_ledger()?.into_iter().filter_map(rows::row_of).collect();
        let boot = crate::farm::ledger::next_boot(identity.node, &rows, rand::random());
        let swarm_id = seal::swarm_id(&identity.swarm_key);
        let mut farm = Farm::new(Sealer::from_seed(&identity.seed), boot, swarm_id, rows, now);
        for (node, capability) in identity::members(&store)? {
            farm.remember(node, capability);
        }
        let mut peers = options.peers.clone();
        peers.extend(identity::inviters(&store)?);
        let config = NetConfig {
            secret: identity.seed,
            swarm_key: identity.swarm_key,
            boot,
            port: options.port.map_or(PortChoice::Default, PortChoice::Given),
            listen: options.listen.clone(),
            peers,
            mdns: options.mdns,
            known: identity::peers(&store)?,
        };
        let scratch = confinement::real(&options.data_dir).join("scratch");
        let logs = Logs::new(&scratch);
        let chunks = Arc::new(effects::Chunks(store.clone()));
        let source = Arc::new(logs::Source { chunks: chunks.clone(), logs: logs.clone() });
        let (net, net_events) = net::start(config, source, chunks).await?;
        let (tell, events) = mpsc::channel(MAX_EVENTS);
        let cannot = |source| NodeError::DataDir { path: options.data_dir.join("scratch"), source };
        let slots = Slots::new(store.clone(), logs.clone(), scratch.clone(), options.threads, tell.clone());
        let slots = slots.map_err(cannot)?;
        let sweep = sweep::Sweep::new(now.mono);
        let delivery = Delivery::new(store.clone(), scratch.join("videos"), tell.clone());
        let capability = Capability {
            name: options.name.clone().unwrap_or(machine.name),
            os: machine.os,
            swarm_version: env!("CARGO_PKG_VERSION").into(),
            addresses: net.local_addresses(),
            cpu_model: machine.cpu_model,
            cores: machine.cores,
            memory_bytes: machine.memory_bytes,
            tags: options.tags.clone(),
            slots: if options.render { options.slots.unwrap_or(1) } else { 0 },
            paused: identity::is_paused(&store)?,
            op_version: OP_VERSION,
            ..Capability::default()
        };
        tracing::info!(name = capability.name, node = %identity.node.short(), port = net.port(), "this node is up");
        Ok(Self {
            writer: world.writer.clone(),
            store,
            identity,
            clock,
            farm,
            rng: StdRng::from_rng(&mut rand::rng()),
            net,
            net_events,
            events,
            tell,
            slots,
            logs,
            delivery,
            sweep,
            unwritten: Unwritten::default(),
            unasked: Vec::new(),
            capability,
            discovered: !options.render,
            render_problems: Vec::new(),
            confinement: Confinement::default(),
            questions: Vec::new(),
            log_questions: Vec::new(),
            doctors: Vec::new(),
            submissions: BTreeMap::new(),
            next_call: 0,
            watchers: Vec::new(),
            watched_at: Duration::ZERO,
            housekept_at: Duration::ZERO,
            benchmark: benchmark::Benchmark::new(&options.data_dir, now.mono),
            hold_at: None,
            remembered: Default::default(),
            keeping: None,
            exit: None,
            options,
        })
    }

    async fn run(mut self, world: &mut World, stop: &CancellationToken) -> Exit {
        if self.options.render {
            confinement::look_for_blenders(&self.options, self.tell.clone());
        }
        capability::watch_load(self.tell.clone());
        self.tell_capability();
        let exit = loop {
            let wake = self.clock.moment(self.next_wake());
            tokio::select! {
                () = stop.cancelled() => break Exit::Stop,
                Some(event) = self.net_events.recv() => self.heard(event),
                Some(event) = world.store_events.recv() => self.stored(event),
                Some(event) = self.events.recv() => self.reported(event),
                Some(call) = world.calls.recv() => self.called(call),
                () = tokio::time::sleep_until(wake) => self.turn(Input::Tick),
            }
            self.after_turn();
            if let Some(exit) = self.exit.take() {
                break exit;
            }
        };
        if !matches!(exit, Exit::Failed(_)) {
            self.leave(world).await;
        }
        self.slots.shut_down().await;
        self.delivery.shut_down().await;
        self.members_kept().await;
        if let Exit::Stop = exit {
            self.keep_members();
            self.members_kept().await;
        }
        self.net.close().await;
        exit
    }

    /// Hands back what is in hand, so that the others take it over at once. A disk or a check that takes longer is not
    /// waited for: then they notice a little later.
    async fn leave(&mut self, world: &mut World) {
        self.turn(Input::Leave);
        let until = self.clock.moment(self.clock.now() + LEAVE);
        while !self.farm.has_left() {
            tokio::select! {
                Some(event) = world.store_events.recv() => self.stored(event),
                Some(event) = self.events.recv() => self.reported(event),
                () = tokio::time::sleep_until(until) => break,
            }
            self.after_turn();
        }
        if self.farm.roster().neighbours().next().is_some() {
            tokio::time::sleep(LAST_WORDS).await;
        }
    }

    fn now(&self) -> Now {
        Now { mono: self.clock.now(), wall_ms: clock::wall_ms() }
    }

    fn next_wake(&self) -> Duration {
        let mut wake = self.farm.next_wake().min(self.housekept_at + HOUSEKEEPING);
        let is_asked = !self.watchers.is_empty() || !self.questions.is_empty() || !self.log_questions.is_empty();
        if is_asked || !self.unwritten.is_empty() {
            wake = wake.min(self.watched_at + WATCH_EVERY);
        }
        wake
    }

    /// One turn of the farm.
    fn turn(&mut self, input: Input) {
        let now = self.now();
        let effects = self.farm.handle(now, input, &mut self.rng);
        for effect in effects {
            self.perform(effect);
        }
    }

    /// What does not wait for the farm: callers, questions, the disk's queue, housekeeping.
    fn after_turn(&mut self) {
        let now = self.clock.now();
        if self.unwritten.send(&self.writer, now >= self.watched_at + WATCH_EVERY).is_err() {
            self.exit = Some(Exit::Failed(NodeError::Storage));
        }
        if now >= self.watched_at + WATCH_EVERY {
            self.watched_at = now;
            let (farm, delivery) = (&self.farm, &self.delivery);
            self.watchers.retain_mut(|watcher| {
                let note = delivery.note(watcher.job);
                !watcher.update(farm, note, now)
            });
            self.answer_questions(now);
            self.answer_logs();
            for input in std::mem::take(&mut self.unasked) {
                self.turn(input);
            }
        }
        if now >= self.housekept_at + HOUSEKEEPING {
            self.housekept_at = now;
            let farm = &self.farm;
            self.slots.reap(now, |job| farm.jobs().get(&job).is_none_or(|job| job.is_over()));
            self.look_for_rest();
            self.keep_members();
            self.look_for_unnamed();
            self.look_after_holdings();
        }
    }

    fn heard(&mut self, event: NetEvent) {
        match event {
            NetEvent::Listening { addresses } => {
                tracing::info!(addresses = addresses.join(" "), "listening");
                self.capability.addresses = addresses;
                self.tell_capability();
            }
            NetEvent::Connected { node, boot, address } => {
                tracing::info!(node = %node.short(), address, "a member is here");
                self.turn(Input::Connected { node, boot });
            }
            NetEvent::Disconnected { node } => {
                tracing::info!(node = %node.short(), "a member is gone");
                self.turn(Input::Disconnected { node });
            }
            NetEvent::Frame { node, bytes, .. } => match crate::wire::decode(&bytes) {
                Ok(Some(message)) => self.turn(Input::Received { from: node, message: message.into() }),
                Ok(None) => tracing::debug!(node = %node.short(), "a message of a later version was ignored"),
                Err(error) => {
                    tracing::warn!(node = %node.short(), %error, "a message that makes no sense; its connection is closed");
                    self.net.disconnect(node);
                }
            },
            NetEvent::Blob { node, reply } => self.blob_reply(node, reply),
        }
    }

    fn stored(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Persisted(token) => {
                fail::fail_point("after-done-persisted");
                self.turn(Input::Persisted(Token(token)));
            }
            StoreEvent::Failed { why } => tracing::error!("{why}"),
        }
    }

    fn reported(&mut self, event: Event) {
        match event {
            // Gone since its store said so.
            Event::Farm(Input::BlobComplete { blob }) if !self.store.has(blob) => {
                self.turn(Input::BlobUnknown { blob });
            }
            // Here again since its store said so.
            Event::Farm(Input::Undeliverable { job, collection, unit, mut gone }) => {
                gone.retain(|blob| !self.store.has(*blob));
                self.turn(Input::Undeliverable { job, collection, unit, gone });
            }
            Event::Farm(input) => {
                if let Input::Delivered { job, collection, unit, .. } = &input {
                    self.delivery.delivered((*job, *collection), unit.frame);
                }
                if let Input::DeliveryFailed { job, collection, reason, .. }
                | Input::CollectionDelayed { job, collection, reason } = &input
                    && !self.options.embedded
                    && self
                        .farm
                        .collectors()
                        .get(job)
                        .is_some_and(|c| c.collection == *collection && c.reason.as_ref() != Some(reason))
                {
                    tracing::warn!(job = %job.short(), "{reason}");
                }
                self.turn(input);
            }
            Event::UnitDrawn(free) => {
                let (job, unit) = (free.scene.0, free.unit);
                if self.slots.free(*free, self.clock.now()) {
                    self.turn(Input::Drawn { job, unit });
                }
            }
            Event::UnitFinished(finished) => self.unit_finished(*finished),
            Event::Discovered(found, gpus) => self.discovered(*found, gpus),
            Event::Benchmarked(of, outcome) => self.benchmarked(of, outcome),
            Event::WhoCan(question) => {
                self.questions.push(question);
                self.answer_questions(self.clock.now());
            }
            Event::Prospect(question) => {
                let outlook = self.outlook(&question);
                let _ = question.reply.send(outlook);
            }
            Event::WhichJob(question) => {
                let answer = self.to_update(&question.text);
                let _ = question.reply.send(answer);
            }
            // Whoever left before the job was written down was told that there is none.
            Event::Prepared(_, stream) if stream.is_gone() => {}
            Event::Prepared(prepared, stream) => {
                self.next_call += 1;
                let call = self.next_call;
                let submit::Prepared { what, detach, held } = *prepared;
                // Asked again: another may have been submitted meanwhile.
                if let submit::What::Job(spec, _) = &what
                    && let Some(error) = self.in_the_way(spec)
                {
                    stream.try_fail(error);
                    return;
                }
                self.submissions.insert(call, Submission { stream, detach, _held: held });
                self.turn(match what {
                    submit::What::Job(spec, kept) => Input::Submit { call, spec, kept },
                    submit::What::Update(Update { job, units, revision, by }) => {
                        Input::Revise { call, job, units, revision, by }
                    }
                });
            }
            Event::FrameLogs(asked) => self.frame_logs(asked),
            Event::Collect { job, output, stream } => self.collect(job, output, stream),
            Event::Load(load) => self.turn(Input::Load(load)),
            Event::Unnamed(look) => self.looked(look),
            Event::LookedFor(found) => self.looked_for(found),
            Event::Swept => {
                for (blob, map) in self.sweep.swept(self.clock.now()) {
                    self.perform(crate::farm::event::Effect::OpenBlob { blob, map });
                }
            }
        }
    }

    /// Remembers who was met and what they can do, for the next start; not before what was to be kept last is.
    fn keep_members(&mut self) {
        if self.keeping.as_ref().is_some_and(|keeping| !keeping.is_finished()) {
            return;
        }
        let me = self.identity.node;
        let members = self.farm.roster().members().iter();
        let told = members.filter(|(node, _)| **node != me);
        let met: Met =
            (self.net.members(), told.filter_map(|(node, m)| Some((*node, m.capability.clone()?))).collect());
        if met == self.remembered {
            return;
        }
        self.remembered = met.clone();
        let store = self.store.clone();
        self.keeping = Some(tokio::task::spawn_blocking(move || {
            let kept =
                identity::remember_peers(&store, &met.0).and_then(|()| identity::remember_members(&store, &met.1));
            if let Err(error) = kept {
                tracing::warn!("{error}");
            }
        }));
    }

    async fn members_kept(&mut self) {
        if let Some(keeping) = self.keeping.take() {
            let _ = keeping.await;
        }
    }

    fn job_spec(&self, job: JobId) -> Option<Arc<crate::farm::job::JobSpec>> {
        self.farm.jobs().get(&job)?.spec.clone()
    }

    fn answer_later(&self, work: impl FnOnce() -> Vec<Input> + Send + 'static) {
        let tell = self.tell.clone();
        tokio::spawn(async move {
            for input in tokio::task::spawn_blocking(work).await.unwrap_or_default() {
                let _ = tell.send(Event::Farm(input)).await;
            }
        });
    }
}

#[cfg(test)]
mod ocio_tests;
#[cfg(test)]
mod tests;
