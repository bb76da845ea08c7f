//! Writing in tests, past a defect of OpenZFS 2.3.9 and 2.4.4.
//!
//! Self-contained, so that integration tests can include it by path.
#![allow(unreachable_pub, reason = "not every includer uses it in the same way")]

use std::fs;
use std::io;
use std::path::Path;

/// How often a file is written anew.
const TRIES: usize = 3;
const EINVAL: i32 = 22;

/// As [`fs::write`]. A write that follows on a truncation may be refused with `EINVAL`, for no reason and
/// with nothing written, while the truncation goes to disk (docs/design.md): then it is done again.
pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> io::Result<()> {
    for _ in 1..TRIES {
        match fs::write(&path, &content) {
            Err(error) if error.raw_os_error() == Some(EINVAL) => {}
            result => return result,
        }
    }
    fs::write(path, content)
}
