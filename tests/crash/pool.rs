//! The pool of the campaign: made at the first boot, imported at the others, and looked at.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::content::{self, Purpose};
use crate::say;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The pool, on the disk whose power is cut.
pub(crate) const POOL: &str = "crash";
/// The dataset that all targets are in.
pub(crate) const PARENT: &str = "crash/data";
/// The targets that are there from the first boot on.
pub(crate) const TARGETS: [&str; 3] = ["crash/data/one", "crash/data/two", "crash/data/own"];
const DISK: &str = "vdc";
/// Begins the names of periodic snapshots.
const PERIODIC: &str = "auto-";
/// Where they are looked at.
const LOOK: &str = "/run/crash-look";

/// The path that a target's own mountpoint property has; `None`: it inherits it. The names decide.
pub(crate) fn own_mountpoint(target: &str) -> Option<String> {
    let leaf = target.rsplit('/').next().unwrap_or_default();
    leaf.starts_with("own").then(|| format!("/srv/{leaf}"))
}

/// Runs a command and returns what it printed.
pub(crate) fn run(words: &[&str]) -> Result<String> {
    let (program, arguments) = words.split_first().ok_or("no command")?;
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}: {}", words.join(" "), output.status, said.trim()).into())
}

/// Fails unless the disk says that what it is told may be lost until it is flushed.
pub(crate) fn check_disk() -> Result<()> {
    let cache = fs::read_to_string(format!("/sys/block/{DISK}/queue/write_cache"))?;
    match cache.trim() {
        "write back" => Ok(()),
        other => Err(format!("{DISK} has the cache mode {other:?}: nothing would be lost").into()),
    }
}

/// Makes the pool, and the targets with all that a commit must keep.
pub(crate) fn create() -> Result<()> {
    let disk = format!("/dev/{DISK}");
    let mountpoint = format!("/{POOL}");
    run(&[
        "zpool",
        "create",
        "-o",
        "cachefile=none",
        "-O",
        "atime=off",
        "-m",
        &mountpoint,
        POOL,
        &disk,
    ])?;
    run(&["zfs", "create", PARENT])?;
    for target in TARGETS {
        let own = own_mountpoint(target).map(|path| format!("mountpoint={path}"));
        let option = ["-o"].into_iter().filter(|_| own.is_some());
        let words = ["zfs", "create"].into_iter().chain(option).chain(own.as_deref());
        run(&words.chain([target]).collect::<Vec<_>>())?;
        let path = own_mountpoint(target).unwrap_or_else(|| format!("/{target}"));
        content::write(Path::new(&path), target, 0, Purpose::Commit)?;
        let snapshot = format!("{target}@kept");
        run(&["zfs", "snapshot", "-o", "crash:snapshot=kept", &snapshot])?;
        run(&["zfs", "set", &format!("crash:target={target}"), target])?;
    }
    let [one, two, own] = TARGETS;
    run(&["zfs", "allow", "-u", "nobody", "snapshot,mount", one])?;
    run(&["zfs", "set", "atime=on", "quota=600M", two])?;
    run(&["zfs", "hold", "crash:hold", &format!("{own}@kept")])?;
    run(&["zfs", "bookmark", &format!("{own}@kept"), &format!("{own}#mark")])?;
    run(&["zpool", "sync", POOL])?;
    Ok(())
}

/// Imports the pool and mounts what a boot mounts.
pub(crate) fn import() -> Result<()> {
    run(&["zpool", "import", "-d", "/dev", "-o", "cachefile=none", POOL])?;
    run(&["zfs", "mount", "-a"])?;
    Ok(())
}

/// Takes a snapshot of all targets, and of all workspaces that there are, as a periodic job does.
pub(crate) fn snapshot_all(number: u64) -> Result<()> {
    run(&["zfs", "snapshot", "-r", &format!("{PARENT}@{PERIODIC}{number}")]).map(drop)
}

/// Tells the host what periodic snapshots hold, and destroys them, as their retention would.
pub(crate) fn retire_snapshots() -> Result<()> {
    let listed = run(&["zfs", "list", "-H", "-o", "name", "-t", "snapshot", "-r", PARENT])?;
    let periodic = format!("@{PERIODIC}");
    fs::create_dir_all(LOOK)?;
    for name in listed.lines().filter(|name| name.contains(&periodic)) {
        if !name.starts_with(&format!("{PARENT}@")) {
            run(&["mount", "-t", "zfs", "-o", "ro", name, LOOK])?;
            let found = content::look(Path::new(LOOK));
            run(&["umount", LOOK])?;
            let words =
                ["after", "snapshot", name].into_iter().chain(found.iter().map(String::as_str));
            say(&words.collect::<Vec<_>>());
        }
        run(&["zfs", "destroy", name])?;
    }
    Ok(())
}

/// Tells the host which datasets are mounted where, which claim which path, and what is to be read.
pub(crate) fn tell_mounts(when: &str) -> Result<()> {
    let mounts = mounts()?;
    for (dataset, path) in &mounts {
        say(&[when, "mount", dataset, path]);
    }
    let listed =
        ["zfs", "list", "-H", "-o", "name,canmount,zoned,mountpoint", "-t", "filesystem", "-r"];
    for line in run(&[&listed[..], &[POOL]].concat())?.lines() {
        if let [name, "on", "off", path] = line.split('\t').collect::<Vec<_>>()[..] {
            if path.starts_with('/') {
                say(&[when, "claim", name, path]);
            }
        }
    }
    let containers = [POOL, PARENT].map(|name| format!("/{name}"));
    let paths: BTreeSet<_> = mounts.into_iter().map(|(_, path)| path).collect();
    for path in paths.iter().filter(|path| !containers.contains(path)) {
        let found = content::look(Path::new(path));
        let words = [when, "content", path].into_iter().chain(found.iter().map(String::as_str));
        say(&words.collect::<Vec<_>>());
    }
    Ok(())
}

/// Tells the host everything that the pool holds beside content.
pub(crate) fn tell_state(when: &str) -> Result<()> {
    let listed =
        run(&["zfs", "list", "-H", "-p", "-o", "type,name,guid", "-t", "all", "-r", POOL])?;
    let mut snapshots = Vec::new();
    for line in listed.lines() {
        match line.split('\t').collect::<Vec<_>>()[..] {
            // A commit makes the target another dataset; snapshots and bookmarks stay the same.
            ["filesystem", name, _] => say(&[when, "state", "filesystem", name]),
            [kind, name, guid] => {
                say(&[when, "state", kind, name, guid]);
                if kind == "snapshot" {
                    snapshots.push(name);
                }
            }
            _ => return Err(format!("zfs list says {line:?}").into()),
        }
    }
    let get = ["zfs", "get", "-H", "-p", "-r", "-t", "all", "-s", "local,received"];
    let columns = ["-o", "name,property,value,source", "all", POOL];
    for line in run(&[&get[..], &columns[..]].concat())?.lines() {
        say(&[when, "state", "property", line]);
    }
    for line in run(&[&["zfs", "holds", "-H"], &snapshots[..]].concat())?.lines() {
        let words: Vec<_> = line.split('\t').take(2).collect();
        say(&[when, "state", "hold", &words.join(" ")]);
    }
    for target in TARGETS {
        let allowed = run(&["zfs", "allow", target])?;
        say(&[when, "state", "permissions", &format!("{target} {:?}", allowed.trim())]);
    }
    for entry in fs::read_dir(format!("/{PARENT}"))? {
        say(&[when, "entry", &entry?.file_name().to_string_lossy()]);
    }
    Ok(())
}

/// The datasets that are mounted, and where.
fn mounts() -> Result<Vec<(String, String)>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let parsed = table.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let source = kind.strip_prefix("zfs ")?.split(' ').next()?;
        Some((source.to_owned(), mount.split(' ').nth(4)?.to_owned()))
    });
    Ok(parsed.collect())
}
