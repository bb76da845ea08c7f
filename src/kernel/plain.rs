//! The same verbs without channel programs, for whom ZFS lets run none: root in a container that a
//! dataset was given to (zfs-zone(8)).
//!
//! Each function does what the program of its name does (`src/program`), by one call after the other.
//! So what is checked can change before the effect; commits of one mount namespace on one target keep
//! out of each other's way by a lock. The calls come in an order in which recovery knows whatever is
//! left when the process dies between two of them.

mod lock;
#[cfg(test)]
mod on_zfs;
mod questions;
mod verbs;

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;

use crate::engine::Fault;
use crate::errno::Errno;
use crate::ffi::libzfs::LibZfs;
use crate::ffi::lzc::{Lzc, LzcError};
use crate::txn::plan::GATE_OF_PLAIN_CALLS;
use lock::Lock;

/// How often a snapshot that others' promotes move is looked for.
const MOVES: usize = 20;

/// `PROC_USER_INIT_INO`: the inode of the initial user namespace, on every Linux.
const INITIAL_USER_NAMESPACE: u64 = 0xefff_fffd;

/// Whether this process is in another user namespace than the initial one. Without a /proc that tells, it
/// counts as not.
pub(crate) fn is_in_a_container() -> bool {
    let namespace = std::fs::metadata("/proc/self/ns/user");
    namespace.is_ok_and(|found| found.ino() != INITIAL_USER_NAMESPACE)
}

#[derive(Clone, Copy)]
pub(super) struct Plain {
    pub(super) lzc: Lzc,
    pub(super) libzfs: LibZfs,
}

// Calls that change something, each in one txg.
impl Plain {
    fn set(
        self,
        name: &str,
        property: &str,
        value: &(impl AsRef<OsStr> + ?Sized),
    ) -> Result<(), Fault> {
        self.libzfs.set_without_mounting(name, property, value)?;
        made("set");
        Ok(())
    }

    fn clear(self, name: &str, property: &str) -> Result<(), Fault> {
        self.libzfs.inherit(name, property)?;
        made("clear");
        Ok(())
    }

    /// Opens the gate that a property closes.
    fn open(self, name: &str, property: &str) -> Result<(), Fault> {
        match property {
            // It can't be inherited.
            GATE_OF_PLAIN_CALLS => self.set(name, property, "on"),
            _ => self.clear(name, property),
        }
    }

    /// While nobody looks for a snapshot or a record of what is beside it.
    pub(super) fn rename(self, from: &str, to: &str) -> Result<(), Fault> {
        let _lock = self.lock(parent_of(to))?;
        Ok(self.lzc.rename(from, to)?)
    }

    /// None where there is no such dataset, and so nothing in it that could be moved.
    fn lock(self, dataset: &str) -> Result<Option<Lock>, Fault> {
        self.guid(dataset)?.map(Lock::take).transpose()
    }

    fn destroy_dataset(self, name: &str) -> Result<(), Errno> {
        // The kernel would destroy a receive that could be resumed, and try again (`zfs_ioc_destroy`).
        if self.is_receiving(name) {
            return Err(Errno::EXIST);
        }
        self.lzc.destroy(name).map_err(|error| error.errno)?;
        made("destroy");
        Ok(())
    }

    /// A snapshot that isn't there is destroyed.
    fn destroy_snapshot(self, name: &str) -> Result<(), Errno> {
        let destroyed = self.lzc.destroy_snaps(&[name], false);
        destroyed.map_err(|error| match (first_errno(&error), name.split_once('@')) {
            // A receive in place clones the newest snapshot, whoever's it is, until it has ended.
            (Errno::EXIST, Some((dataset, _))) if self.is_receiving(dataset) => Errno::BUSY,
            (errno, _) => errno,
        })?;
        made("destroy");
        Ok(())
    }
}

fn parent_of(dataset: &str) -> &str {
    dataset.rsplit_once('/').map_or(dataset, |(parent, _)| parent)
}

/// Of a call about one name.
fn first_errno(error: &LzcError) -> Errno {
    error.per_name.first().map_or(error.errno, |(_, errno)| *errno)
}

#[cfg(not(test))]
fn made(_: &'static str) {}

#[cfg(test)]
use observed::made;
#[cfg(test)]
pub(crate) use observed::observe;

/// For tests: each call that changed something is told to whom it concerns.
#[cfg(test)]
mod observed {
    use std::cell::Cell;

    thread_local! {
        static OBSERVER: Cell<fn(&'static str)> = const { Cell::new(|_| ()) };
    }

    pub(super) fn made(call: &'static str) {
        OBSERVER.get()(call);
    }

    /// Has this thread's calls told to `observer`, from now on.
    pub(crate) fn observe(observer: fn(&'static str)) {
        OBSERVER.set(observer);
    }
}
