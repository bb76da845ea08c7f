//! Mounts that a swap doesn't reach: in other mount namespaces, and of directories in the dataset.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

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
    let (found, looked) = mounts(|mount| mount.is_of(dataset), |_| true);
    looked.map(|_| found)
}

/// The first of the mounts that are meant, in any mount namespace that a process is in, as far as they are found
/// until then; and whether there may be more.
pub(crate) fn some(
    most: usize,
    until: Instant,
    is_meant: impl Fn(&MountEntry) -> bool,
) -> (Vec<ElsewhereMount>, bool) {
    let (mut found, looked) = mounts(is_meant, |count| count <= most && Instant::now() < until);
    let more = found.len() > most || looked != Ok(true);
    found.truncate(most);
    (found, more)
}

/// The mounts that are meant, as long as their number lets the search go on; and whether all tables were looked at.
fn mounts(
    is_meant: impl Fn(&MountEntry) -> bool,
    goes_on: impl Fn(usize) -> bool,
) -> (Vec<ElsewhereMount>, Result<bool, Errno>) {
    let mut found = Vec::new();
    let look = |pid, table: Vec<MountEntry>| {
        let mounts = table.into_iter().filter(&is_meant);
        found.extend(mounts.map(|mount| ElsewhereMount { pid, path: mount.path }));
        goes_on(found.len())
    };
    let looked = for_each_table(|_| true, look);
    (found, looked)
}

/// Whether the first process, and so the system but for namespaces of their own, has `dataset` mounted. Where
/// that can't be seen, it counts as if it had.
pub(crate) fn is_seen_by_first(dataset: &str) -> bool {
    of_process("1").map_or(true, |table| table.iter().any(|mount| mount.is_of(dataset)))
}

/// The mount tables of the mount namespaces that a process of this user namespace is in, and one such process each;
/// this one's first. In a user namespace of their own anybody may mount what they can read, wherever they like.
pub(super) fn tables_of_this_user_namespace() -> Result<Vec<(u32, Vec<MountEntry>)>, Errno> {
    let user = |process: &Path| fs::read_link(process.join("ns/user")).ok();
    let own = user(Path::new("/proc/thread-self"));
    let mut tables = Vec::new();
    let is_meant = |process: &Path| own.is_some() && user(process) == own;
    for_each_table(is_meant, |process, table| {
        tables.push((process, table));
        true
    })?;
    Ok(tables)
}

/// Looks at the mount table of each mount namespace that a process is in which is meant, and one such process; this
/// one's first; as long as `look` likes. Says whether all were looked at.
fn for_each_table(
    is_meant: impl Fn(&Path) -> bool,
    mut look: impl FnMut(u32, Vec<MountEntry>) -> bool,
) -> Result<bool, Errno> {
    let own = getpid().as_raw_nonzero().get().unsigned_abs();
    let mut seen = HashSet::from([namespace(Path::new("/proc/thread-self"))]);
    if !look(own, of_process("thread-self")?) {
        return Ok(false);
    }
    for process in processes()? {
        if seen.len() > MOST_NAMESPACES {
            return Ok(false);
        }
        let directory = PathBuf::from(format!("/proc/{process}"));
        if !is_meant(&directory) {
            continue;
        }
        let namespace = namespace(&directory);
        if namespace.is_some() && seen.insert(namespace) {
            if let Ok(table) = of_process(&process.to_string()) {
                if !look(process, table) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// What tells a process's mount namespace from others: `mnt:[NUMBER]`.
fn namespace(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/mnt")).ok()
}

/// Where file systems are mounted, in the mount namespace of a process (its directory of /proc), of which a
/// server, or a process, may have to be asked.
pub(crate) fn on_networks(process: &Path) -> Result<Vec<PathBuf>, Errno> {
    const OTHERS: [&str; 16] = [
        "9p", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "gfs2", "gpfs", "lustre", "nfs",
        "nfs4", "ocfs2", "orangefs", "smb3", "virtiofs",
    ];
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
