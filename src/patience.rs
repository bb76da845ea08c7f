//! Waiting for what is busy for a moment only.

use std::cell::Cell;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long to wait for readers that are about to close a file, for another's receive, or for another
/// mount: in steps that double, 2 s in all.
const BUSY_WAITS_MS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

thread_local! {
    /// How much longer this thread may wait in all; `None`: as long as each call likes.
    static LEFT: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// As long as this is there, all waiting of this thread comes out of one budget.
///
/// The first time that something is called costs nothing, and is never left out. What follows as long as it is
/// busy is waiting: the pauses, and the calls that are made again, which take a txg each.
#[derive(Debug)]
pub(crate) struct Budget {
    before: Option<Duration>,
    whole: Duration,
}

impl Budget {
    /// What is left of a budget that is there already is the most that it can be; what is used of this one is
    /// used of that one.
    pub(crate) fn of(whole: Duration) -> Self {
        let before = LEFT.get();
        let whole = before.map_or(whole, |left| left.min(whole));
        LEFT.set(Some(whole));
        Self { before, whole }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        let used = self.whole.saturating_sub(LEFT.get().unwrap_or_default());
        LEFT.set(self.before.map(|before| before.saturating_sub(used)));
    }
}

/// Calls again for a while, as long as the result says busy.
pub(crate) fn patiently<T>(mut call: impl FnMut() -> T, busy: impl Fn(&T) -> bool) -> T {
    let mut result = call();
    let (begun, budget) = (Instant::now(), LEFT.get());
    for wait in BUSY_WAITS_MS.map(Duration::from_millis) {
        let left = budget.map_or(wait, |budget| budget.saturating_sub(begun.elapsed()));
        if !busy(&result) || left.is_zero() {
            break;
        }
        // So the last call comes when the budget is used up, and not before.
        sleep(wait.min(left));
        result = call();
    }
    LEFT.set(budget.map(|budget| budget.saturating_sub(begun.elapsed())));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_waiting_comes_out_of_one_budget() {
        let begun = Instant::now();
        let budget = Budget::of(Duration::from_millis(300));
        let mut calls = [0; 5];
        for calls in &mut calls {
            patiently(|| *calls += 1, |()| true);
        }
        drop(budget);
        assert!(calls[0] > 2, "{calls:?}");
        assert_eq!(calls[1..], [1; 4]);
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(2), "{took:?}");
        assert_eq!(LEFT.get(), None);
    }

    #[test]
    fn a_budget_within_another_comes_out_of_it() {
        let ms = Duration::from_millis;
        let outer = Budget::of(ms(300));
        for (whole, left) in [(ms(100), 200..=200), (ms(900), 0..=0)] {
            let inner = Budget::of(whole);
            patiently(|| (), |()| true);
            drop(inner);
            assert!(left.contains(&LEFT.get().unwrap().as_millis()), "{:?}", LEFT.get());
        }
        drop(outer);
        assert_eq!(LEFT.get(), None);
    }

    #[test]
    fn what_is_busy_for_a_moment_is_waited_for_within_the_budget() {
        let _budget = Budget::of(Duration::from_secs(2));
        let begun = Instant::now();
        let free = patiently(|| begun.elapsed() > Duration::from_millis(200), |free| !free);
        assert!(free);
        assert!(LEFT.get().is_some_and(|left| !left.is_zero()));
    }
}
