//! `swarm`: a render farm for Blender without a server. Run it on every workstation of a studio, and together they are
//! the farm: any machine can submit, watch, pause, collect and encode, and any machine may vanish.
//!
//! ```text
//!  clock · peers · disk · Blender · ffmpeg · CLI / HTTP
//!         │  adapters translate into
//!         ▼
//!       Input ──► Farm::handle(now, input, rng) ──► [Effect]
//!         ▲                                            │ effects that promise something wait for Persisted(token)
//!         └────────── completions come back as Inputs ─┘
//! ```
//!
//! The [`farm`] decides and touches nothing; the [`node`] touches everything and decides nothing. That is why a whole
//! studio fits into one thread of a simulation, and why what the simulation proves holds for the daemon.
//!
//! What always holds:
//! - Nothing is announced before it is durable, and an announced result is never lost while a machine that holds it
//!   lives.
//! - State is a fold over logs that only their writers extend; merging logs is a union, so that the order in which
//!   machines hear of things does not matter.
//! - Time is an argument. No wall clock decides anything.
//! - Whatever comes from a peer, a disk or a child process is checked before it is believed.
//!
//! Reading order: [`farm::event`] (the whole contract), [`farm::op`] and [`farm::state`] (what is said and what it adds
//! up to), [`farm::ledger`], [`seal`] and [`wire`] (how it is proven and written), [`farm::roster`],
//! [`farm::schedule`], [`farm::transfer`] and [`farm::collect`] (the choices), [`farm`] itself, then [`node`] and its
//! adapters, and last [`cli`].
//!
//! `DESIGN §n` and `BLENDER.md` in comments are the team's design document and its measurements of Blender, which say why
//! a figure is as it is; they are kept beside this repository.

#[cfg(feature = "node")]
pub mod cli;
pub mod farm;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod fuzz;
#[cfg(feature = "node")]
pub mod node;
pub mod seal;
pub mod wire;
