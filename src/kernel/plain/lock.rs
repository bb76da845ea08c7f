//! Keeps commits on one dataset apart, and moves of a dataset's children from looks at them; those of
//! one mount namespace.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat, unlink};

use crate::engine::Fault;
use crate::errno::Errno;
use crate::mount;
use crate::receipt::Guid;
use crate::zfs::PRIVATE_ROOT;

/// How often a lock is tried, and how long it is waited for in between: a minute in all.
const LOCK_TRIES: usize = 6_000;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// Keeps others away from a dataset until it is dropped. Who has one takes no other but its parent's.
pub(super) struct Lock {
    path: PathBuf,
    _file: OwnedFd,
}

impl Lock {
    pub(super) fn take(guid: Guid) -> Result<Self, Fault> {
        mount::make_private_place(Path::new(PRIVATE_ROOT))?;
        let path = Path::new(PRIVATE_ROOT).join(format!("{guid}.lock"));
        for _ in 0..LOCK_TRIES {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = open(&path, flags, Mode::RUSR | Mode::WUSR)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    sleep(LOCK_WAIT);
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            }
            // Whoever had it before has removed the file; another one may be there by now.
            let here = fstat(&file)?.st_ino;
            if stat(&path).is_ok_and(|there| there.st_ino == here) {
                return Ok(Self { path, _file: file });
            }
        }
        let detail = Some(format!("another process or thread has locked {}", path.display()));
        Err(Fault { errno: Errno::BUSY, detail })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // As long as it is locked. Left behind, it would be in nobody's way.
        let _ = unlink(&self.path);
    }
}
