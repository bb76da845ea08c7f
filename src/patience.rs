//! Waiting for what is busy for a moment only.

use std::thread::sleep;
use std::time::Duration;

/// How long to wait for readers that are about to close a file, for another's receive, or for another
/// mount: in steps that double, 2 s in all.
const BUSY_WAITS_MS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// Calls again for a while, as long as the result says busy.
pub(crate) fn patiently<T>(mut call: impl FnMut() -> T, busy: impl Fn(&T) -> bool) -> T {
    for wait in BUSY_WAITS_MS {
        let result = call();
        if !busy(&result) {
            return result;
        }
        sleep(Duration::from_millis(wait));
    }
    call()
}
