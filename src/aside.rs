//! A search that may never come back, in a thread of its own that is given up in time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use crate::ffi::signals::uninterrupted;

const FREE: u64 = 0;
const RUNNING: u64 = 1;
const GIVEN_UP: u64 = 2;

/// How often a search that has to wait for another one looks whether that has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// Searches of which one runs at a time in this process, so that no threads pile up where one is stuck.
///
/// No lock, which a child that is forked meanwhile would wait for; and the process stands beside what its threads
/// are at, for in the child there are none of them.
pub(crate) struct Searches(AtomicU64);

/// What a thread of this process is at.
fn of_this_process(state: u64) -> u64 {
    u64::from(std::process::id()) << 2 | state
}

/// Makes room for the next search, also if this one has panicked or was never started.
struct Turn(&'static Searches);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.store(FREE, Ordering::Release);
    }
}

impl Searches {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(FREE))
    }

    /// What a search has found until then, and whether it has come to its end.
    ///
    /// A search that has not is left to itself: its thread ends with the search, or with the process. It must
    /// own no descriptor that keeps anything busy, and hold no lock. As long as it is there, no other is
    /// started.
    pub(crate) fn run<T: Send + 'static>(
        &'static self,
        until: Instant,
        search: impl FnOnce(&mut dyn FnMut(T)) + Send + 'static,
    ) -> (Vec<T>, bool) {
        let mut all = Vec::new();
        let Some(turn) = self.turn(until) else { return (all, false) };
        let (found, finds) = channel();
        let searches = move || {
            uninterrupted(|| search(&mut |it| drop(found.send(it))));
            // Whoever sees the end may search again at once.
            drop(turn);
            drop(found);
        };
        if Builder::new().spawn(searches).is_err() {
            return (all, false);
        }
        loop {
            match finds.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(it) => all.push(it),
                Err(RecvTimeoutError::Disconnected) => return (all, true),
                Err(RecvTimeoutError::Timeout) => {
                    // If this one has just ended, another one is taken for stuck until it ends.
                    let (running, given_up) = (of_this_process(RUNNING), of_this_process(GIVEN_UP));
                    let order = Ordering::Relaxed;
                    let _ = self.0.compare_exchange(running, given_up, order, order);
                    return (all, false);
                }
            }
        }
    }

    /// Waits for the search of another thread, but for none that was given up.
    fn turn(&'static self, until: Instant) -> Option<Turn> {
        let (running, given_up) = (of_this_process(RUNNING), of_this_process(GIVEN_UP));
        loop {
            let found = self.0.load(Ordering::Relaxed);
            if found == given_up {
                return None;
            }
            if found != running {
                let order = (Ordering::Acquire, Ordering::Relaxed);
                if self.0.compare_exchange(found, running, order.0, order.1).is_ok() {
                    return Some(Turn(self));
                }
            } else if Instant::now() >= until {
                return None;
            } else {
                sleep(PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Receiver;

    const SHORT: Duration = Duration::from_millis(200);

    fn soon() -> Instant {
        Instant::now() + SHORT
    }

    /// Finds one thing, and another when it is let on.
    fn stuck(on: Receiver<()>) -> impl FnOnce(&mut dyn FnMut(u8)) {
        move |found| {
            found(1);
            let _ = on.recv();
            found(2);
        }
    }

    #[test]
    fn a_search_that_is_stuck_is_given_up_and_no_other_is_started_until_it_ends() {
        static SEARCHES: Searches = Searches::new();
        let (let_on, on) = channel();
        let begun = Instant::now();
        assert_eq!(SEARCHES.run(soon(), stuck(on)), (vec![1], false));
        let took = begun.elapsed();
        assert!(took >= SHORT && took < 10 * SHORT, "{took:?}");

        let never = |_: &mut dyn FnMut(u8)| panic!("started");
        let begun = Instant::now();
        for _ in 0..10 {
            assert_eq!(SEARCHES.run(Instant::now() + 10 * SHORT, never), (vec![], false));
        }
        assert!(begun.elapsed() < 10 * SHORT);

        drop(let_on);
        let ended = || SEARCHES.run(soon(), |found| found(3)) == (vec![3], true);
        assert!((0..500).any(|_| {
            sleep(PAUSE);
            ended()
        }));
    }

    #[test]
    fn one_that_runs_is_waited_for() {
        static SEARCHES: Searches = Searches::new();
        let (let_on, on) = channel();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| SEARCHES.run(soon() + 100 * SHORT, stuck(on)));
            while SEARCHES.0.load(Ordering::Relaxed) != of_this_process(RUNNING) {
                sleep(PAUSE);
            }
            assert_eq!(SEARCHES.run(soon(), |found| found(3)), (vec![], false));
            let second = scope.spawn(|| SEARCHES.run(soon() + 100 * SHORT, |found| found(3)));
            drop(let_on);
            assert_eq!(first.join().unwrap(), (vec![1, 2], true));
            assert_eq!(second.join().unwrap(), (vec![3], true));
        });
    }
}
