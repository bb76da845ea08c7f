//! Who keeps a file system or a block device in use, as far as /proc shows that: for error texts.
//!
//! Other users choose the names of their processes and files, and how many they have. So what is read is
//! bounded, in number and time, and what is shown is escaped.
//!
//! No bound holds for a single read: /proc/PID/maps waits for a lock of the process, which one that waits for a
//! server may have, and some links lead to a file system that asks its server. So all that is read of others is
//! read in a thread that is given up ([`Searches`]). Who can be recognised as slow is passed over all the same.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use rustix::process::getpid;

use crate::aside::Searches;
use crate::mount::{self, MountEntry, on_networks, processes};
use crate::receipt::ElsewhereMount;

/// How many mounts are named.
const MOST_MOUNTS: usize = 4;
/// How many processes are named.
const MOST_NAMED: usize = 4;
/// How many uses are named of one process.
const MOST_USES: usize = 3;
/// How many descriptors of all processes are looked at.
const MOST_LINKS: usize = 200_000;
/// How long somebody who waits for an error is kept waiting for the names at most.
pub(crate) const LONGEST: Duration = Duration::from_secs(1);
/// How much is read of a process's list of mappings.
const MOST_MAPS: u64 = 1 << 20;

/// A device's number, major and minor.
pub(crate) type Number = (u32, u32);

/// What is in use.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The number of a file system, by which each of its files is known, wherever it is mounted or was.
    pub(crate) file_system: Option<Number>,
    /// Block devices.
    pub(crate) devices: Vec<Number>,
    /// The descriptor of this process that is only there to ask.
    pub(crate) except: Option<RawFd>,
}

/// Who uses it.
#[derive(Debug, Default)]
pub(crate) struct Users {
    pub(crate) mounts: Vec<ElsewhereMount>,
    pub(crate) processes: Vec<Holder>,
    /// There may be others.
    pub(crate) more: bool,
    /// The search came to its end.
    pub(crate) ended: bool,
}

enum Found {
    Mount(ElsewhereMount),
    Process(Holder),
    More,
}

/// A process, and how it uses what is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pid: u32,
    name: OsString,
    uses: Vec<(&'static str, PathBuf)>,
}

impl fmt::Display for Holder {
    /// `Debug` escapes what is no letter, and bytes that are no text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} {:?}", self.pid, self.name)?;
        for (position, (how, path)) in self.uses.iter().enumerate() {
            write!(f, "{}{how} {path:?}", if position == 0 { " (" } else { ", " })?;
        }
        f.write_str(if self.uses.is_empty() { "" } else { ")" })
    }
}

/// Who uses it, as far as that is found until then: the first of these mounts, in whichever mount namespace, and
/// the first processes, in the order of their numbers. A thread with a directory or descriptors of its own is not
/// found.
pub(crate) fn users(
    wanted: Wanted,
    is_it: impl Fn(&MountEntry) -> bool + Send + 'static,
    until: Instant,
) -> Users {
    static SEARCHES: Searches = Searches::new();
    let search = move |found: &mut dyn FnMut(Found)| {
        // Thousands of mount namespaces leave time for the processes.
        let half = Instant::now() + until.saturating_duration_since(Instant::now()) / 2;
        let (mounts, mut more) = mount::some(MOST_MOUNTS, half, is_it);
        mounts.into_iter().for_each(|mount| found(Found::Mount(mount)));
        more |= processes_using(wanted, until, |holder| found(Found::Process(holder)));
        if more {
            found(Found::More);
        }
    };
    let (all, ended) = SEARCHES.run(until, search);
    let mut users = Users { more: !ended, ended, ..Users::default() };
    for found in all {
        match found {
            Found::Mount(mount) => users.mounts.push(mount),
            Found::Process(holder) => users.processes.push(holder),
            Found::More => users.more = true,
        }
    }
    users
}

/// Finds the processes; says whether there may be more.
fn processes_using(wanted: Wanted, until: Instant, mut found: impl FnMut(Holder)) -> bool {
    let mut search = Search { wanted, until, links: 0, networks: HashMap::new() };
    let mut named = 0;
    let is_known = search.wanted.file_system.is_some() || !search.wanted.devices.is_empty();
    let all = is_known.then(|| processes().unwrap_or_default());
    for pid in all.unwrap_or_default() {
        if named == MOST_NAMED || search.is_over() {
            return true;
        }
        let uses = search.uses_of(pid);
        if !uses.is_empty() {
            let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
            let name = OsStr::from_bytes(comm.strip_suffix(b"\n").unwrap_or(&comm)).to_owned();
            found(Holder { pid, name, uses });
            named += 1;
        }
    }
    false
}

struct Search {
    wanted: Wanted,
    until: Instant,
    links: usize,
    /// By mount namespace and root, as a process sees no mounts but those below its root, where network file
    /// systems are mounted.
    networks: HashMap<(PathBuf, PathBuf), Rc<[PathBuf]>>,
}

impl Search {
    fn is_over(&self) -> bool {
        self.links > MOST_LINKS || Instant::now() > self.until
    }

    fn uses_of(&mut self, pid: u32) -> Vec<(&'static str, PathBuf)> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let mut uses = Vec::new();
        // One that runs no program is the kernel's, or can't be looked at.
        let (Ok(_), Some(networks)) =
            (fs::read_link(process.join("exe")), self.networks_of(&process))
        else {
            return uses;
        };
        for (how, link) in [("current directory", "cwd"), ("root", "root"), ("program", "exe")] {
            uses.extend(self.leads_there(&process.join(link), &networks).map(|path| (how, path)));
        }
        let is_own = pid == getpid().as_raw_nonzero().get().unsigned_abs();
        for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            if uses.len() >= MOST_USES || self.is_over() {
                return uses;
            }
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if !(is_own && number == self.wanted.except) {
                uses.extend(self.leads_there(&entry.path(), &networks).map(|path| ("open", path)));
            }
        }
        // Of a mapped device only the number of the file system is told that its node is in.
        if uses.is_empty() && self.wanted.file_system.is_some() {
            uses.extend(self.mapped(&process).map(|path| ("mapped", path)));
        }
        uses
    }

    /// Where those network file systems are mounted that a process can see, as links lead there.
    fn networks_of(&mut self, process: &Path) -> Option<Rc<[PathBuf]>> {
        let namespace = fs::read_link(process.join("ns/mnt")).ok()?;
        let root = fs::read_link(process.join("root")).ok()?;
        let seen_by = (namespace, root);
        if let Some(known) = self.networks.get(&seen_by) {
            return Some(Rc::clone(known));
        }
        let found = on_networks(process).ok()?;
        // Its mount table begins at its root.
        let found: Rc<[PathBuf]> = found.iter().map(|path| below(&seen_by.1, path)).collect();
        self.networks.insert(seen_by, Rc::clone(&found));
        Some(found)
    }

    /// Where a link of a process leads, if that is in use.
    fn leads_there(&mut self, link: &Path, networks: &[PathBuf]) -> Option<PathBuf> {
        self.links += 1;
        let path = fs::read_link(link).ok()?;
        // Neither a pipe, a socket and the like, nor what a server would be asked for on the way.
        if !path.is_absolute() || networks.iter().any(|network| path.starts_with(network)) {
            return None;
        }
        // The number alone: a file system in user space is not asked.
        let flags = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        let stat = statx(CWD, link, flags, StatxFlags::TYPE).ok()?;
        let file_system = (stat.stx_dev_major, stat.stx_dev_minor);
        let device = (stat.stx_rdev_major, stat.stx_rdev_minor);
        let is_device = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::BlockDevice;
        let is_it = Some(file_system) == self.wanted.file_system
            || is_device && self.wanted.devices.contains(&device);
        is_it.then_some(path)
    }

    /// A file that a process has mapped into memory.
    fn mapped(&self, process: &Path) -> Option<PathBuf> {
        let mut text = Vec::new();
        let maps = File::open(process.join("maps")).ok()?;
        maps.take(MOST_MAPS).read_to_end(&mut text).ok()?;
        text.split(|&byte| byte == b'\n').find_map(|line| {
            let (number, path) = mapping(line)?;
            (Some(number) == self.wanted.file_system).then_some(path)
        })
    }
}

/// Where an absolute path leads for a process with that root.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The file system and the path of a line of `/proc/PID/maps` (proc_pid_maps(5)).
fn mapping(line: &[u8]) -> Option<(Number, PathBuf)> {
    let mut rest = line;
    let mut device = None;
    for position in 0..5 {
        let end = rest.iter().position(|&byte| byte == b' ')?;
        if position == 3 {
            let (major, minor) = std::str::from_utf8(&rest[..end]).ok()?.split_once(':')?;
            let number = |text| u32::from_str_radix(text, 16).ok();
            device = Some((number(major)?, number(minor)?));
        }
        rest = &rest[end + 1..];
    }
    Some((device?, OsString::from_vec(rest.trim_ascii_start().to_vec()).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    use rustix::fs::{MemfdFlags, fstat, memfd_create};

    fn number(dev: u64) -> Number {
        (rustix::fs::major(dev), rustix::fs::minor(dev))
    }

    #[test]
    fn a_line_of_maps_is_read_with_whatever_path() {
        let line = b"7f0c00000000-7f0c00001000 r--p 00000000 00:2a 34   /a b\\012\xff";
        let path = OsStr::from_bytes(b"/a b\\012\xff");
        assert_eq!(mapping(line), Some(((0, 0x2a), PathBuf::from(path))));
        assert_eq!(mapping(b"7f0c00000000-7f0c00001000 rw-p 00000000 00:00 0"), None);
        for broken in [&b""[..], b"     ", b"a b c d e f", b"a b c 1: e f", b"a b c ::: e f"] {
            assert_eq!(mapping(broken), None);
        }
    }

    #[test]
    fn the_mounts_of_a_process_are_below_its_root() {
        for (root, path, leads_to) in
            [("/", "/net", "/net"), ("/jail", "/net", "/jail/net"), ("/jail", "/", "/jail")]
        {
            assert_eq!(below(Path::new(root), Path::new(path)), Path::new(leads_to));
        }
    }

    #[test]
    fn names_are_escaped() {
        let name = OsStr::from_bytes(b"x\n\x1b[2J\xff").to_owned();
        let uses = vec![("open", PathBuf::from("/a\nb")), ("root", PathBuf::from("/"))];
        let shown = Holder { pid: 7, name, uses }.to_string();
        assert_eq!(shown, r#"process 7 "x\n\u{1b}[2J\xFF" (open "/a\nb", root "/")"#);
    }

    #[test]
    fn this_process_is_found_by_an_open_file_and_the_one_that_asks_is_not_counted() {
        let file = memfd_create("asks", MemfdFlags::CLOEXEC).unwrap();
        let wanted = Wanted {
            file_system: Some(number(fstat(&file).unwrap().st_dev)),
            devices: Vec::new(),
            except: None,
        };
        let pid = std::process::id();
        let search = |wanted: &Wanted| {
            let wanted = wanted.clone();
            let until = Instant::now() + LONGEST;
            Search { wanted, until, links: 0, networks: HashMap::new() }.uses_of(pid)
        };
        let has = |uses: &[(&str, PathBuf)]| {
            uses.iter().any(|(_, path)| path.starts_with("/memfd:asks (deleted)"))
        };
        assert!(has(&search(&wanted)));
        let not_this = Wanted { except: Some(file.as_raw_fd()), ..wanted.clone() };
        assert!(!has(&search(&not_this)));
        assert!(search(&Wanted { file_system: Some((u32::MAX, 0)), ..wanted }).is_empty());
    }
}
