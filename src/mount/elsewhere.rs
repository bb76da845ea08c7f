//! Mounts that a swap doesn't reach: in other mount namespaces, and of directories in the dataset.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::getpid;

use super::errno_of;
use super::table::{MountEntry, of_process};
use crate::receipt::ElsewhereMount;

/// How many mount namespaces are looked at.
const MOST_NAMESPACES: usize = 4096;

/// Where `dataset`, or a directory in it, is mounted in any mount namespace that a process is in.
///
/// What this process may not read, or what ends meanwhile, is left out.
pub(crate) fn everywhere(dataset: &str) -> Result<Vec<ElsewhereMount>, Errno> {
    let mut found = Vec::new();
    for (pid, table) in tables()? {
        let mounts = table.into_iter().filter(|mount| mount.is_of(dataset));
        found.extend(mounts.map(|mount| ElsewhereMount { pid, path: mount.path }));
    }
    Ok(found)
}

/// Whether the first process, and so the system but for namespaces of their own, has `dataset` mounted. Where
/// that can't be seen, it counts as if it had.
pub(crate) fn is_seen_by_first(dataset: &str) -> bool {
    of_process("1").map_or(true, |table| table.iter().any(|mount| mount.is_of(dataset)))
}

/// The mount table of each mount namespace that a process is in, and one such process; this one's first.
fn tables() -> Result<Vec<(u32, Vec<MountEntry>)>, Errno> {
    tables_of(|_| true)
}

/// The same of those that a process of this user namespace is in. In one of their own anybody may mount what they
/// can read, wherever they like.
pub(super) fn tables_of_this_user_namespace() -> Result<Vec<(u32, Vec<MountEntry>)>, Errno> {
    let user = |process: &Path| fs::read_link(process.join("ns/user")).ok();
    let own = user(Path::new("/proc/thread-self"));
    tables_of(|process| own.is_some() && user(process) == own)
}

fn tables_of(is_meant: impl Fn(&Path) -> bool) -> Result<Vec<(u32, Vec<MountEntry>)>, Errno> {
    let own = getpid().as_raw_nonzero().get().unsigned_abs();
    let mut tables = vec![(own, of_process("thread-self")?)];
    let mut seen = HashSet::from([namespace(Path::new("/proc/thread-self"))]);
    for process in processes()? {
        if seen.len() > MOST_NAMESPACES {
            break;
        }
        let directory = PathBuf::from(format!("/proc/{process}"));
        if !is_meant(&directory) {
            continue;
        }
        let namespace = namespace(&directory);
        if namespace.is_some() && seen.insert(namespace) {
            tables.extend(of_process(&process.to_string()).map(|table| (process, table)));
        }
    }
    Ok(tables)
}

/// What tells a process's mount namespace from others: `mnt:[NUMBER]`.
fn namespace(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/mnt")).ok()
}

/// Where block devices are mounted in any mount namespace that a process is in, as [`everywhere`].
pub(crate) fn with_device(devices: &[(u32, u32)]) -> Result<Vec<ElsewhereMount>, Errno> {
    let mut found = Vec::new();
    for (pid, table) in tables()? {
        let mounts = table.into_iter().filter(|mount| devices.contains(&mount.device));
        found.extend(mounts.map(|mount| ElsewhereMount { pid, path: mount.path }));
    }
    Ok(found)
}

/// Where file systems are mounted, in the mount namespace of a process (its directory of /proc), of which a
/// server, or a process, may have to be asked.
pub(crate) fn on_networks(process: &Path) -> Result<Vec<PathBuf>, Errno> {
    const OTHERS: [&str; 8] = ["9p", "afs", "autofs", "ceph", "cifs", "nfs", "nfs4", "smb3"];
    let number = process.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let asks = |mount: &MountEntry| {
        let fs_type = mount.fs_type.to_string_lossy();
        fs_type.starts_with("fuse") || OTHERS.contains(&&*fs_type)
    };
    Ok(of_process(number)?.into_iter().filter(asks).map(|mount| mount.path).collect())
}

/// The processes that can be seen, oldest numbers first.
pub(crate) fn processes() -> Result<Vec<u32>, Errno> {
    let names = fs::read_dir("/proc").map_err(|error| errno_of(&error))?;
    let mut processes: Vec<u32> =
        names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    processes.sort_unstable();
    Ok(processes)
}
