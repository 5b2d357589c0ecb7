//! Calling the farms of several machines at once, where nothing goes wrong.
//!
//! Nothing that one machine does then reaches another sooner than [`LOOKAHEAD`]: what happens to different machines within
//! that time is independent. So farms are called first, by whichever thread is free, and what they say is done
//! afterwards, one after the other, in the order planned (a conservative parallel simulation: Chandy and Misra, 1979).
//! What else was to happen in between (a write ends, a render ends) comes after the window, up to [`LOOKAHEAD`] late. Windows
//! are made whether there are several threads or one, so that their number changes no history.

use super::check::Touched;
use super::event::{Choice, Event};
use super::machine::{Machine, Said};
use super::{LOOKAHEAD, World};
use crate::farm::event::{Input, Now};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Most events that wait for earlier ones of the same machine: where there are more, a window ends (guess).
const MOST_LEFT: usize = 100;

/// A farm to be called.
struct Call {
    now: Now,
    /// Until it was called.
    input: Option<Input>,
    /// Once it was called, if it is up.
    said: Option<Said>,
}

impl World {
    /// Has `first` happen, and whatever else calls farms before anything of it could reach them.
    pub(super) fn happen_at_once(&mut self, at: Duration, first: Event) {
        if !is_call(&first) {
            return self.happen(first);
        }
        let mut happening = vec![(at, first)];
        happening.extend(self.window(at + LOOKAHEAD, &happening[0].1));
        let mut calls: Vec<Option<Box<Call>>> = Vec::new();
        calls.resize_with(self.machines.len(), || None);
        let from = self.now;
        let mut happened = Vec::with_capacity(happening.len());
        for (at, event) in happening {
            self.now = from.max(at);
            if let Some((machine, input)) = self.input_of(&event) {
                let touched = self.before(machine, &input);
                calls[machine] = Some(Box::new(Call { now: self.clock_of(machine), input: Some(input), said: None }));
                happened.push((self.now, machine, event, touched));
            }
        }
        self.call(&mut calls);
        for (now, machine, event, touched) in happened {
            self.now = now;
            let Some(said) = calls[machine].take().and_then(|call| call.said) else { continue };
            match event {
                Event::Arrive { packet, .. } => self.heard(machine, touched, &packet, said),
                _ => drop(self.after(machine, touched, &Touched::default(), said)),
            }
        }
    }

    /// What calls farms before `until`, each once; everything of a machine stays in its order.
    fn window(&mut self, until: Duration, first: &Event) -> Vec<(Duration, Event)> {
        let mut has_one = vec![false; self.machines.len()];
        first.concerns().into_iter().for_each(|machine| has_one[machine] = true);
        let mut left = 0;
        self.queue.take(until, |event| {
            let Some(machine) = event.concerns().filter(|_| left < MOST_LEFT) else { return Choice::Stop };
            let is_first = !std::mem::replace(&mut has_one[machine], true);
            if is_first && is_call(event) {
                return Choice::Take;
            }
            left += 1;
            Choice::Leave
        })
    }

    /// What an event that calls a farm tells it, if it still does.
    fn input_of(&mut self, event: &Event) -> Option<(usize, Input)> {
        match event {
            Event::Wake { to, life, at } => self.wakes(*to, *life, *at).then_some((*to, Input::Tick)),
            Event::Arrive { to, from, link, packet } if self.arrives(*to, *from, *link) => {
                let message = packet.message.clone()?;
                Some((*to, Input::Received { from: self.machines[*from].node, message }))
            }
            _ => None,
        }
    }

    fn call(&mut self, calls: &mut [Option<Box<Call>>]) {
        let called = self.machines.iter_mut().zip(calls);
        let mut called: Vec<(&mut Machine, &mut Call)> =
            called.filter_map(|(machine, call)| Some((machine, call.as_deref_mut()?))).collect();
        let call = |(machine, call): &mut (&mut Machine, &mut Call)| {
            call.said = call.input.take().and_then(|input| machine.call(call.now, input));
        };
        match self.is_shared {
            true => called.par_iter_mut().for_each(call),
            false => called.iter_mut().for_each(call),
        }
    }
}

/// Whether all that happens is that a farm is called, and does what it says.
fn is_call(event: &Event) -> bool {
    match event {
        Event::Wake { .. } => true,
        Event::Arrive { packet, .. } => packet.message.is_some(),
        _ => false,
    }
}

/// Keeps the other threads of a pool looking for work meanwhile: between two windows there is less time than it takes one
/// to fall asleep and be woken.
pub(super) fn awake<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let me = rayon::current_thread_index();
    let (looking, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    rayon::scope(|scope| {
        // Also when it panics.
        let _over = Over(&is_over);
        scope.spawn_broadcast(|_, context| {
            if Some(context.index()) == me {
                return;
            }
            looking.fetch_add(1, Ordering::Relaxed);
            while !is_over.load(Ordering::Relaxed) {
                if rayon::yield_now() == Some(rayon::Yield::Idle) {
                    std::hint::spin_loop();
                }
            }
        });
        // One that had begun a piece of the work before it looks for more might begin to look in the middle of that piece,
        // and never end it.
        while me.is_some() && looking.load(Ordering::Relaxed) + 1 < rayon::current_num_threads() {
            std::hint::spin_loop();
        }
        work()
    })
}

/// Ends it when dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
