//! Files in memory, for tests: stores and reads through shared mappings, and what of a file the
//! kernel has cached.
//!
//! Self-contained, so that the integration tests can include it by path.
#![allow(unsafe_code, reason = "mappings of files; each block says why it is sound")]
#![allow(dead_code, unreachable_pub, reason = "not every includer uses every method")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a fixture that fails, fails the test")]

use std::ffi::{c_int, c_long, c_ulong, c_void};
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn signal(signal: c_int, handler: extern "C" fn(c_int)) -> *const c_void;
    fn siginterrupt(signal: c_int, interrupts: c_int) -> c_int;
    fn fcntl(file: c_int, command: c_int, ...) -> c_int;
    fn pthread_self() -> c_ulong;
    fn pthread_kill(thread: c_ulong, signal: c_int) -> c_int;
    fn mincore(address: *mut c_void, length: usize, found: *mut u8) -> c_int;
    fn setitimer(which: c_int, new: *const Interval, old: *mut Interval) -> c_int;
}

/// The number of cachestat(2), which is the same on every architecture.
const CACHESTAT: c_long = 451;
const ENOSYS: c_int = 38;
const F_SETSIG: c_int = 10;
const F_SETLEASE: c_int = 1024;
const F_GETLEASE: c_int = 1025;
const F_WRLCK: c_int = 1;
const SIGURG: c_int = 23;
const SIGALRM: c_int = 14;
const ITIMER_REAL: c_int = 0;

/// A file, or the first part of one, that is mapped and shared with whoever else has it open.
#[derive(Debug)]
pub struct Mapping {
    address: *mut c_void,
    length: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is accessed by volatile reads and
// writes of single bytes through raw pointers alone.
unsafe impl Send for Mapping {}
// SAFETY: as above; no reference into the mapping is ever made.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a whole file for reading.
    pub fn read_only(path: &Path) -> Self {
        Self::of(&File::open(path).unwrap(), false)
    }

    /// Maps a whole file for reading and writing.
    pub fn writable(path: &Path) -> Self {
        Self::of(&File::options().read(true).write(true).open(path).unwrap(), true)
    }

    /// Maps the whole of an open file.
    pub fn of(file: &File, writable: bool) -> Self {
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        Self::part(file, length, writable)
    }

    /// Maps the first `length` bytes of an open file.
    pub fn part(file: &File, length: usize, writable: bool) -> Self {
        let protection =
            if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let address =
            unsafe { mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, file, 0) };
        Self { address: address.unwrap(), length, writable }
    }

    /// Stores bytes at an offset, which must be within the mapping and within the file.
    pub fn store(&self, offset: usize, bytes: &[u8]) {
        assert!(self.writable && offset + bytes.len() <= self.length);
        for (number, byte) in bytes.iter().enumerate() {
            // SAFETY: within the mapping, which is writable and lives as long as `self`. Other
            // processes may read or write the byte at the same time, so it is accessed as volatile.
            unsafe { self.address.cast::<u8>().add(offset + number).write_volatile(*byte) };
        }
    }

    /// Reads bytes at an offset, which must be within the mapping and within the file.
    pub fn load(&self, offset: usize, count: usize) -> Vec<u8> {
        assert!(offset + count <= self.length);
        let byte = |number: usize| {
            // SAFETY: within the mapping, which lives as long as `self`; volatile as in `store`.
            unsafe { self.address.cast::<u8>().add(offset + number).read_volatile() }
        };
        (0..count).map(byte).collect()
    }

    /// Reads a byte of each page, so that all of them are in the kernel's page cache.
    pub fn touch(&self) {
        (0..self.length).step_by(rustix::param::page_size()).for_each(|at| drop(self.load(at, 1)));
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and is not used again.
        unsafe { munmap(self.address, self.length) }.unwrap();
    }
}

/// How many pages of a file are cached, and how many of these are dirty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cached {
    pub pages: u64,
    pub dirty: u64,
}

/// Asks cachestat(2) about a whole file. A kernel before Linux 6.5 tells by mincore(2) what is cached, and not what
/// of that is dirty, so that all of it is taken for that: a store makes it so, unless the kernel was quicker.
pub fn cached(file: impl AsFd) -> Cached {
    let file = file.as_fd().try_clone_to_owned().unwrap();
    let (failed, answer) = cachestat(&file);
    if failed == 0 {
        return answer;
    }
    let error = io::Error::last_os_error();
    assert_eq!(error.raw_os_error(), Some(ENOSYS), "cachestat: {error}");
    let mapping = Mapping::of(&File::from(file), false);
    let mut found = vec![0_u8; mapping.length.div_ceil(rustix::param::page_size())];
    // SAFETY: the mapping is there, and there is a byte for each of its pages.
    let failed = unsafe { mincore(mapping.address, mapping.length, found.as_mut_ptr()) };
    assert_eq!(failed, 0, "mincore: {}", io::Error::last_os_error());
    let pages = found.iter().filter(|page| **page & 1 == 1).count();
    let pages = u64::try_from(pages).unwrap();
    Cached { pages, dirty: pages }
}

fn cachestat(file: impl AsFd) -> (c_long, Cached) {
    #[repr(C)]
    struct Range([u64; 2]);
    #[repr(C)]
    struct Stat([u64; 5]);
    let (everything, mut stat) = (Range([0, 0]), Stat([0; 5]));
    let file = file.as_fd().as_raw_fd();
    // SAFETY: the call reads a range of two numbers and fills in five, and both are there.
    let failed = unsafe { syscall(CACHESTAT, file, &raw const everything, &raw mut stat, 0_u32) };
    (failed, Cached { pages: stat.0[0], dirty: stat.0[1] })
}

/// A lease on a file that nobody else has open, until this is dropped (fcntl(2)).
#[derive(Debug)]
pub struct Lease(File);

impl Lease {
    /// For a file that is open for writing. Who opens it meanwhile has to wait.
    pub fn for_writing(file: File) -> Self {
        // SAFETY: has numbers for arguments. The signal is one that is ignored unless somebody asks for it.
        let failed = unsafe {
            fcntl(file.as_raw_fd(), F_SETSIG, SIGURG) | fcntl(file.as_raw_fd(), F_SETLEASE, F_WRLCK)
        };
        assert_eq!(failed, 0, "fcntl: {}", io::Error::last_os_error());
        Self(file)
    }

    /// Whether nobody has asked for it to be given up.
    pub fn is_held(&self) -> bool {
        // SAFETY: has numbers for arguments.
        let kind = unsafe { fcntl(self.0.as_raw_fd(), F_GETLEASE) };
        kind == F_WRLCK
    }
}

#[repr(C)]
struct Interval {
    interval: [c_long; 2],
    value: [c_long; 2],
}

/// Signals that interrupt this process by a timer, as profilers have one, and the calling thread in
/// particular, until this is dropped. For a process that has one of these at a time.
#[derive(Debug)]
pub struct Interruptions {
    done: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
    /// It stays in its thread, which has to be there for as long as it gets signals.
    stays: PhantomData<*const ()>,
}

impl Interruptions {
    /// A signal each so many microseconds, after which system calls are not restarted.
    pub fn every(microseconds: u32) -> Self {
        extern "C" fn ignore(_: c_int) {}
        // SAFETY: the handler does nothing, so it may run at any moment.
        let before = unsafe { signal(SIGALRM, ignore) };
        assert_ne!(before.addr(), usize::MAX, "signal: {}", io::Error::last_os_error());
        // SAFETY: changes what the signal does to system calls, and touches no memory.
        assert_eq!(unsafe { siginterrupt(SIGALRM, 1) }, 0);
        // SAFETY: has no conditions.
        let me = unsafe { pthread_self() };
        let done = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&done);
        let sender = spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                // SAFETY: that thread is there: it waits for this one before it goes on.
                assert_eq!(unsafe { pthread_kill(me, SIGALRM) }, 0);
                sleep(Duration::from_micros(microseconds.into()));
            }
        });
        Self::set(microseconds);
        Self { done, sender: Some(sender), stays: PhantomData }
    }

    fn set(microseconds: u32) {
        let time = [0, c_long::from(microseconds)];
        let new = Interval { interval: time, value: time };
        // SAFETY: reads one interval, and writes none where it is given no place.
        assert_eq!(unsafe { setitimer(ITIMER_REAL, &raw const new, ptr::null_mut()) }, 0);
    }
}

impl Drop for Interruptions {
    fn drop(&mut self) {
        Self::set(0);
        self.done.store(true, Ordering::Relaxed);
        self.sender.take().map(JoinHandle::join);
    }
}
