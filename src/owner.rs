//! Who a transaction's living owner is: a process, as the kernel that runs it counts processes.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::Pid;

use crate::name::TransactionId;

/// Stands for the boot of a process that can't tell which one it is. No boot's real id.
const UNKNOWN_BOOT: &str = "-";

/// The number of the pid namespace from which all processes are seen (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// A process, told from all that ran before it, on this host or another.
///
/// As text it is `boot/pid-namespace/time-namespace/pid/start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    boot: String,
    /// Where `pid` counts.
    pid_namespace: u64,
    /// Where `start` counts: a time namespace has its own zero. 0 on kernels that have none.
    time_namespace: u64,
    pid: u32,
    /// In clock ticks since the boot. Tells a process from a later one with the same number.
    start: u64,
}

/// What became of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It can't come back.
    Dead,
    /// It has the transaction.
    Alive,
    /// It can't be seen from here.
    Unknown,
}

impl Owner {
    /// The one whose text is the longest: a boot's id is a UUID.
    pub(crate) fn longest() -> Self {
        Self {
            boot: "0".repeat(36),
            pid_namespace: u64::MAX,
            time_namespace: u64::MAX,
            pid: u32::MAX,
            start: u64::MAX,
        }
    }

    /// The process that asks.
    pub(crate) fn this_process() -> Result<Self, Errno> {
        let namespace =
            |name: &str| rustix::fs::stat(format!("/proc/self/ns/{name}")).map(|stat| stat.st_ino);
        Ok(Self {
            boot: boot()?,
            pid_namespace: namespace("pid")?,
            time_namespace: match namespace("time") {
                Err(Errno::NOENT) => 0,
                inode => inode?,
            },
            pid: std::process::id(),
            start: Process::read("self")?.start,
        })
    }

    /// The process's number in its own namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether this is the process that asks, and not one that was forked from it. What can't be found
    /// out counts as no.
    fn is_this_process(&self) -> bool {
        // A child in another pid namespace may have the same number there.
        let namespace = || rustix::fs::stat("/proc/self/ns/pid").map(|stat| stat.st_ino);
        // There may be no descriptor left to read this with.
        let start = || Process::read("self").map_or(self.start, |process| process.start);
        self.pid == std::process::id()
            && namespace() == Ok(self.pid_namespace)
            && start() == self.start
    }

    /// What became of this owner of the transaction `id`.
    ///
    /// **Another boot means dead**, on this host or another: the pool is imported here, so who had
    /// it before has it no more (failover). A pool that is imported on two hosts at once is lost in
    /// any case; the pool property `multihost=on` guards against that.
    ///
    /// A process that has replaced its program (`exec`) counts as alive until it ends.
    pub(crate) fn fate(&self, id: TransactionId) -> Fate {
        let Ok(here) = Self::this_process() else {
            return Fate::Unknown;
        };
        if self.boot != here.boot {
            let known = self.boot != UNKNOWN_BOOT && here.boot != UNKNOWN_BOOT;
            return if known { Fate::Dead } else { Fate::Unknown };
        }
        if self.pid_namespace != here.pid_namespace && here.pid_namespace == INITIAL_PID_NAMESPACE {
            // A container, seen from its host. No process can come into a namespace that has none.
            return if has_ended(self.pid_namespace) { Fate::Dead } else { Fate::Unknown };
        }
        if (self.pid_namespace, self.time_namespace) != (here.pid_namespace, here.time_namespace) {
            return Fate::Unknown;
        }
        if *self == here {
            // A handle that ended in doubt has no lease: this process may recover what it left.
            return if Lease::is_held(id, self) { Fate::Alive } else { Fate::Dead };
        }
        // /proc may be mounted for another pid namespace than this process's.
        match Process::read("self") {
            Ok(process) if process.pid == here.pid => {}
            _ => return Fate::Unknown,
        }
        match Process::read(&self.pid.to_string()) {
            Ok(process) if process.start != self.start || process.is_dead() => Fate::Dead,
            Ok(_) => Fate::Alive,
            Err(Errno::NOENT | Errno::SRCH) if !exists(self.pid) => Fate::Dead,
            Err(_) => Fate::Unknown,
        }
    }
}

/// The id of the running kernel's boot.
fn boot() -> Result<String, Errno> {
    let file = rustix::fs::open(
        "/proc/sys/kernel/random/boot_id",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    // systemd-nspawn mounts a made-up id over it: by that, the host would take a living owner in
    // the container for one of another boot.
    if rustix::fs::fstatfs(&file)?.f_type != rustix::fs::PROC_SUPER_MAGIC {
        return Ok(UNKNOWN_BOOT.to_owned());
    }
    let text = std::io::read_to_string(std::fs::File::from(file)).map_err(errno)?;
    let boot = text.trim_end();
    if is_boot(boot) { Ok(boot.to_owned()) } else { Err(Errno::INVAL) }
}

fn is_boot(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_hexdigit() || c == '-';
    (1..=64).contains(&text.len()) && text.chars().all(allowed)
}

/// Whether no process is in a pid namespace any more; asked from the initial one. What can't be seen
/// counts as there.
fn has_ended(pid_namespace: u64) -> bool {
    let namespace = |pid: &str| rustix::fs::stat(format!("/proc/{pid}/ns/pid"));
    // Where `/proc` hides others' processes, or is another namespace's, it hides this one.
    if !namespace("1").is_ok_and(|stat| stat.st_ino == INITIAL_PID_NAMESPACE) {
        return false;
    }
    let Ok(entries) = std::fs::read_dir("/proc") else { return false };
    for entry in entries {
        let Ok(entry) = entry else { return false };
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        else {
            continue;
        };
        match namespace(pid) {
            Ok(stat) if stat.st_ino == pid_namespace => return false,
            Ok(_) | Err(Errno::NOENT | Errno::SRCH) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Whether there is such a process, even if `/proc` hides it (`hidepid`).
fn exists(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(Errno::SRCH))
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { boot, pid_namespace, time_namespace, pid, start } = self;
        write!(f, "{boot}/{pid_namespace}/{time_namespace}/{pid}/{start}")
    }
}

/// A text that is not an [`Owner`]'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a process's boot, namespaces, number and start")]
pub(crate) struct NotAnOwner;

impl FromStr for Owner {
    type Err = NotAnOwner;

    fn from_str(text: &str) -> Result<Self, NotAnOwner> {
        let mut parts = text.split('/');
        let mut part = || parts.next().ok_or(NotAnOwner);
        let number = |text: &str| text.parse::<u64>().map_err(|_| NotAnOwner);
        let owner = Self {
            boot: part()?.to_owned(),
            pid_namespace: number(part()?)?,
            time_namespace: number(part()?)?,
            pid: part()?.parse().map_err(|_| NotAnOwner)?,
            start: number(part()?)?,
        };
        let possible = is_boot(&owner.boot) && (1..=i32::MAX as u32).contains(&owner.pid);
        // One spelling only: no leading zeros or signs, and nothing behind.
        if possible && owner.to_string() == text { Ok(owner) } else { Err(NotAnOwner) }
    }
}

/// A process as `/proc/PID/stat` tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: u32,
    state: u8,
    threads: u64,
    start: u64,
}

impl Process {
    fn read(pid: &str) -> Result<Self, Errno> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).map_err(errno)?;
        Self::parse(&stat).ok_or(Errno::INVAL)
    }

    /// The program's name, field 2, is whatever it likes, so fields are counted from its end: the
    /// last `)`.
    fn parse(stat: &[u8]) -> Option<Self> {
        let end = stat.iter().rposition(|&byte| byte == b')')?;
        let pid = stat.split(|&byte| byte == b' ').next()?;
        let mut fields = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
        Some(Self {
            pid: std::str::from_utf8(pid).ok()?.parse().ok()?,
            state: *fields.next()?.as_bytes().first()?,
            threads: fields.nth(16)?.parse().ok()?,
            start: fields.nth(1)?.parse().ok()?,
        })
    }

    /// The state is the main thread's: other threads may outlive it.
    fn is_dead(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }
}

/// While it lives, the transaction has a handle in the process that took it.
///
/// A forked child has a copy of each lease, and of the list. As all say whose they are, they say nothing
/// of the child.
#[derive(Debug)]
#[must_use = "dropping a lease gives it back"]
pub(crate) struct Lease {
    id: TransactionId,
    owner: Owner,
}

/// One entry for each lease.
static HELD: Mutex<Vec<(TransactionId, Owner)>> = Mutex::new(Vec::new());

impl Lease {
    /// For this process, which is `owner`.
    pub(crate) fn take(id: TransactionId, owner: Owner) -> Self {
        Self::held().push((id, owner.clone()));
        Self { id, owner }
    }

    /// The process that has it, if this is another one, forked from that.
    pub(crate) fn elsewhere(&self) -> Option<u32> {
        (!self.owner.is_this_process()).then_some(self.owner.pid)
    }

    fn is_held(id: TransactionId, by: &Owner) -> bool {
        Self::held().iter().any(|(held, owner)| *held == id && owner == by)
    }

    fn held() -> MutexGuard<'static, Vec<(TransactionId, Owner)>> {
        HELD.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // At the fork, another thread may have had the list, and has it for ever in the child.
        if self.elsewhere().is_some() {
            return;
        }
        let mut held = Self::held();
        if let Some(at) = held.iter().position(|(id, by)| (*id, by) == (self.id, &self.owner)) {
            held.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    const ID: TransactionId = TransactionId::from_bits(1);

    fn owner(child: &Child) -> Owner {
        let start = Process::read(&child.id().to_string()).unwrap().start;
        Owner { pid: child.id(), start, ..Owner::this_process().unwrap() }
    }

    /// Kills a child and waits until it is a zombie.
    fn kill(child: &mut Child) {
        child.kill().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while Process::read(&child.id().to_string()).unwrap().state != b'Z' {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn this_process_is_alive_as_long_as_it_has_a_lease() {
        let id = TransactionId::from_bits(2);
        let owner = Owner::this_process().unwrap();
        assert_eq!(owner.fate(id), Fate::Dead);
        let lease = Lease::take(id, owner.clone());
        let second = Lease::take(id, owner.clone());
        assert_eq!(owner.fate(id), Fate::Alive);
        assert_eq!(owner.fate(TransactionId::from_bits(3)), Fate::Dead);
        drop(lease);
        assert_eq!(owner.fate(id), Fate::Alive);
        drop(second);
        assert_eq!(owner.fate(id), Fate::Dead);
    }

    #[test]
    fn a_child_is_alive_until_it_is_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let owner = owner(&child);
        assert_eq!(owner.fate(ID), Fate::Alive);
        let reused = Owner { start: owner.start - 1, ..owner.clone() };
        assert_eq!(reused.fate(ID), Fate::Dead);
        kill(&mut child);
        assert_eq!(owner.fate(ID), Fate::Dead);
        child.wait().unwrap();
        assert_eq!(owner.fate(ID), Fate::Dead);
    }

    /// As in a child, whose copies of leases and list are its parent's.
    #[test]
    fn a_lease_of_another_process_says_nothing_of_this_one() {
        let id = TransactionId::from_bits(5);
        let here = Owner::this_process().unwrap();
        let parents = [
            Owner { pid: here.pid - 1, ..here.clone() },
            Owner { pid_namespace: here.pid_namespace + 1, ..here.clone() },
            Owner { start: here.start - 1, ..here.clone() },
        ];
        for parent in parents {
            let copy = Lease::take(id, parent.clone());
            assert_eq!(copy.elsewhere(), Some(parent.pid));
            assert_eq!(here.fate(id), Fate::Dead);
            let own = Lease::take(id, here.clone());
            assert_eq!((own.elsewhere(), here.fate(id)), (None, Fate::Alive));
            drop(copy);
            assert_eq!(here.fate(id), Fate::Alive);
            drop(own);
            assert_eq!(here.fate(id), Fate::Dead);
        }
    }

    #[test]
    fn a_lease_in_this_process_says_nothing_of_another() {
        let id = TransactionId::from_bits(4);
        let _lease = Lease::take(id, Owner::this_process().unwrap());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let owner = owner(&child);
        kill(&mut child);
        assert_eq!(owner.fate(id), Fate::Dead);
        child.wait().unwrap();
    }

    #[test]
    fn a_program_may_be_called_anything() {
        let dir = tempfile::tempdir().unwrap();
        let name = ") R 1 (a) b (";
        let program = dir.path().join(name);
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        let mut child = Command::new(&program).arg0("sleep").arg("60").spawn().unwrap();
        // The name is set by exec; spawn returns when that has happened.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        assert!(stat.contains(&format!("({name})")), "{stat}");
        let owner = owner(&child);
        assert!(owner.start >= Owner::this_process().unwrap().start);
        assert_eq!(owner.fate(ID), Fate::Alive);
        kill(&mut child);
        assert_eq!(owner.fate(ID), Fate::Dead);
        child.wait().unwrap();
    }

    #[test]
    fn another_boot_is_death_and_another_namespace_unknown() {
        let here = Owner::this_process().unwrap();
        let _lease = Lease::take(ID, here.clone());
        let with = |change: fn(&mut Owner)| {
            let mut owner = here.clone();
            change(&mut owner);
            owner.fate(ID)
        };
        assert_eq!(with(|_| {}), Fate::Alive);
        assert_eq!(with(|o| o.boot = "0123-4567".to_owned()), Fate::Dead);
        assert_eq!(with(|o| o.boot = UNKNOWN_BOOT.to_owned()), Fate::Unknown);
        assert_eq!(with(|o| o.pid_namespace += 1), Fate::Unknown);
        assert_eq!(with(|o| o.time_namespace += 1), Fate::Unknown);
        assert_eq!(with(|o| o.pid = i32::MAX as u32), Fate::Dead);
        assert_eq!(with(|o| o.start -= 1), Fate::Dead);
    }

    #[test]
    fn stat_is_read_and_a_main_thread_that_ended_is_not_the_end_of_the_process() {
        let stat = |state: &str, threads: u32| {
            let before =
                format!("42 (a) Z (b\n) {state} 1 42 42 0 -1 4194304 90 0 0 0 0 0 0 0 20 0");
            format!("{before} {threads} 0 777 8 9 10\n")
        };
        let process = Process::parse(stat("S", 3).as_bytes()).unwrap();
        assert_eq!(process, Process { pid: 42, state: b'S', threads: 3, start: 777 });
        for (state, threads, dead) in
            [("S", 1, false), ("Z", 1, true), ("Z", 2, false), ("X", 0, true)]
        {
            let process = Process::parse(stat(state, threads).as_bytes()).unwrap();
            assert_eq!(process.is_dead(), dead, "{state} {threads}");
        }
        for broken in ["", "42", "42 (a", "42 (a)", "42 (a) S 1", "x (a) S", ")"] {
            assert_eq!(Process::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn owners_are_read_back_and_have_one_spelling() {
        let here = Owner::this_process().unwrap();
        assert_eq!(here.to_string().parse(), Ok(here));
        let long = format!("{}/1/2/3/4", "a".repeat(65));
        let broken = [
            "",
            "ab",
            "ab/1/2/3",
            "ab/1/2/3/4/",
            "ab/1/2/3/4/5",
            "/1/2/3/4",
            "xy/1/2/3/4",
            "ab/01/2/3/4",
            "ab/1/+2/3/4",
            "ab/1/2/0/4",
            "ab/1/2/2147483648/4",
            "ab/1/2/-3/4",
            "ab/1/2/3/18446744073709551616",
            "ab/1/2/3/",
            "ä/1/2/3/4",
            &long,
        ];
        for text in broken {
            assert_eq!(text.parse::<Owner>(), Err(NotAnOwner), "{text}");
        }
    }
}
