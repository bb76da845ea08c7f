//! The mount table of a process: what is mounted where, and with what.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::errno_of;
use crate::engine::{Place, Propagation, Tie};

/// One line of `/proc/PID/mountinfo`, as far as it is needed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountEntry {
    pub(super) id: u64,
    pub(super) parent: u64,
    /// The file system's device number, major and minor.
    pub(crate) device: (u32, u32),
    /// What is mounted of the file system: `/` for the whole, else a directory in it.
    pub(super) root: PathBuf,
    pub(super) path: PathBuf,
    pub(super) options: MountAttrFlags,
    /// The first of its own options that a new mount can't be given.
    unknown: Option<String>,
    /// The peer group that it belongs to.
    shared: Option<u64>,
    /// The peer group that it gets mounts from.
    master: Option<u64>,
    unbindable: bool,
    /// With a subtype of FUSE's, which is whatever the mounter likes, as the source is.
    pub(super) fs_type: OsString,
    pub(super) source: OsString,
}

impl MountEntry {
    /// Parses a line; `None` where it isn't of the documented form (proc_pid_mountinfo(5)).
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let text = |field: &[u8]| OsString::from_vec(unescape(field));
        let number = |field: &[u8]| text(field).to_str()?.parse().ok();
        let mut fields = line.split(|&b| b == b' ');
        let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
        let device = text(fields.next()?).into_string().ok()?;
        let (major, minor) = device.split_once(':')?;
        let root = fields.next().map(text)?;
        let path = fields.next().map(text)?;
        let (options, unknown) = parse_options(fields.next()?);
        let mut entry = Self {
            id,
            parent,
            device: (major.parse().ok()?, minor.parse().ok()?),
            root: root.into(),
            path: path.into(),
            options,
            unknown,
            shared: None,
            master: None,
            unbindable: false,
            fs_type: OsString::new(),
            source: OsString::new(),
        };
        for field in fields.by_ref().take_while(|field| *field != b"-") {
            // Those that are not known here are to be ignored, says the manual.
            match text(field).to_str().unwrap_or_default().split_once(':') {
                Some(("shared", group)) => entry.shared = Some(group.parse().ok()?),
                Some(("master", group)) => entry.master = Some(group.parse().ok()?),
                None => entry.unbindable |= field == b"unbindable",
                Some(_) => {}
            }
        }
        entry.fs_type = text(fields.next()?);
        entry.source = text(fields.next()?);
        Some(entry)
    }

    /// Whether `dataset` is what is mounted, or a directory in it.
    pub(crate) fn is_of(&self, dataset: &str) -> bool {
        self.fs_type == "zfs" && self.source == dataset
    }

    /// The mount as a place, to which mounts pass on from `others` alone.
    fn place(&self, others: &[&Self]) -> Place {
        let in_group = |group| others.iter().find(|other| other.shared == Some(group));
        let peer = self.shared.and_then(in_group).map(|other| Tie::Peer(other.path.clone()));
        let master = self.master.and_then(in_group).map(|other| Tie::Slave(other.path.clone()));
        let tie = peer.or(master);
        let lost = (self.master.is_some() && tie.is_none()).then(|| SLAVE.to_owned());
        let propagation =
            Propagation { shared: self.shared.is_some(), unbindable: self.unbindable, tie };
        Place {
            propagation,
            uncarried: self.unknown.clone().or(lost),
            ..Place::new(Some(self.id), self.path.clone(), self.options)
        }
    }
}

/// A mount whose master is not to be found among the places of the same dataset.
const SLAVE: &str = "slave of a mount in another mount namespace";

/// `\040` and the like stand for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &rest[4..] } else { tail };
    }
    out
}

/// The options as flags, and the first that is none.
fn parse_options(field: &[u8]) -> (MountAttrFlags, Option<String>) {
    let mut options = MountAttrFlags::empty();
    let mut unknown = None;
    // A mount that shows none of the three has strict access times.
    let mut access_times = MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    for option in field.split(|&b| b == b',') {
        match option {
            b"rw" => {}
            b"ro" => options |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            b"nosuid" => options |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            b"nodev" => options |= MountAttrFlags::MOUNT_ATTR_NODEV,
            b"noexec" => options |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            b"nodiratime" => options |= MountAttrFlags::MOUNT_ATTR_NODIRATIME,
            b"nosymfollow" => options |= MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW,
            b"relatime" => access_times = MountAttrFlags::MOUNT_ATTR_RELATIME,
            b"noatime" => access_times = MountAttrFlags::MOUNT_ATTR_NOATIME,
            _ => {
                unknown.get_or_insert_with(|| String::from_utf8_lossy(option).into_owned());
            }
        }
    }
    (options | access_times, unknown)
}

/// All mounts of this mount namespace, in the kernel's order.
pub(crate) fn table() -> Result<Vec<MountEntry>, Errno> {
    of_process("thread-self")
}

/// All mounts in the mount namespace of a process that lie below its root directory.
pub(super) fn of_process(process: &str) -> Result<Vec<MountEntry>, Errno> {
    let text = fs::read(format!("/proc/{process}/mountinfo")).map_err(|error| errno_of(&error))?;
    let lines = text.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    // Who left one out would take away what is mounted there.
    lines.map(|line| MountEntry::parse(line).ok_or(Errno::ILSEQ)).collect()
}

/// Where the whole of `dataset` is mounted; what passes its mounts on comes before what gets them.
pub(crate) fn places(table: &[MountEntry], dataset: &str) -> Vec<Place> {
    let whole = |m: &&MountEntry| m.is_of(dataset) && m.root == Path::new("/");
    let below_slave = |m: &MountEntry| {
        table.iter().any(|parent| parent.id == m.parent && parent.master.is_some())
    };
    let mut mounts: Vec<&MountEntry> = table.iter().filter(whole).collect();
    mounts.sort_by_key(|m| (below_slave(m), m.master.is_some()));
    mounts.iter().enumerate().map(|(position, m)| m.place(&mounts[..position])).collect()
}

/// The source of what is mounted at a path, by the topmost mount there.
pub(crate) fn on_top<'a>(table: &'a [MountEntry], path: &Path) -> Option<&'a OsStr> {
    table.iter().rev().find(|mount| mount.path == path).map(|mount| mount.source.as_os_str())
}

/// What is mounted on the mount `id`, directly or further down, but for snapshots that ZFS mounts by
/// itself under `.zfs`.
pub(crate) fn mounted_on(table: &[MountEntry], id: u64) -> Vec<PathBuf> {
    let mut on = HashSet::from([id]);
    loop {
        let found: Vec<u64> =
            table.iter().filter(|m| on.contains(&m.parent)).map(|m| m.id).collect();
        let known = on.len();
        on.extend(found);
        if on.len() == known {
            break;
        }
    }
    table
        .iter()
        .filter(|m| m.id != id && on.contains(&m.id))
        .filter(|m| !(m.fs_type == "zfs" && m.source.as_bytes().contains(&b'@')))
        .map(|m| m.path.clone())
        .collect()
}

/// What is mounted below `path`, by path.
pub(crate) fn below(table: &[MountEntry], path: &Path) -> Vec<PathBuf> {
    let inside = |m: &&MountEntry| m.path != path && m.path.starts_with(path);
    table.iter().filter(inside).map(|m| m.path.clone()).collect()
}

pub(super) fn by_id(table: &[MountEntry], id: u64) -> Option<&MountEntry> {
    table.iter().find(|m| m.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> MountEntry {
        MountEntry::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn a_line_with_escapes_and_optional_fields_is_read() {
        let entry = parse(
            "61 29 0:51 / /srv/with\\040space rw,nosuid,relatime shared:7 master:1 - zfs \
             tank/with\\040space rw,xattr,noacl,casesensitive",
        );
        assert_eq!(entry.path, Path::new("/srv/with space"));
        assert_eq!(entry.source, "tank/with space");
        assert_eq!(
            entry.options,
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_RELATIME
        );
    }

    #[test]
    fn options_become_flags() {
        use MountAttrFlags as F;
        assert_eq!(parse_options(b"rw"), (F::MOUNT_ATTR_STRICTATIME, None));
        let (flags, unknown) =
            parse_options(b"ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow");
        assert_eq!(unknown, None);
        assert_eq!(
            flags,
            F::MOUNT_ATTR_RDONLY
                | F::MOUNT_ATTR_NOSUID
                | F::MOUNT_ATTR_NODEV
                | F::MOUNT_ATTR_NOEXEC
                | F::MOUNT_ATTR_NOATIME
                | F::MOUNT_ATTR_NODIRATIME
                | F::MOUNT_ATTR_NOSYMFOLLOW
        );
    }

    #[test]
    fn an_option_that_a_new_mount_can_t_have_is_named() {
        let uncarried = |options: &str| {
            let line = format!("1 0 0:1 / /srv/a {options} - zfs tank/a rw,idmapped");
            places(&[parse(&line)], "tank/a").remove(0).uncarried
        };
        assert_eq!(uncarried("rw,relatime,idmapped").as_deref(), Some("idmapped"));
        assert_eq!(uncarried("rw,relatime,new").as_deref(), Some("new"));
        assert_eq!(uncarried("rw,relatime"), None);
    }

    #[test]
    fn places_are_tied_to_those_that_pass_mounts_on() {
        let table: Vec<MountEntry> = [
            "1 0 0:1 / /slave rw shared:8 master:7 - zfs tank/a rw",
            "2 0 0:1 / /peer rw shared:8 master:7 - zfs tank/a rw",
            "3 0 0:1 / /master rw shared:7 - zfs tank/a rw",
            "4 0 0:1 / /foreign rw master:9 propagate_from:3 - zfs tank/a rw",
            "5 0 0:1 / /alone rw unbindable - zfs tank/a rw",
            "6 0 0:1 /sub /bind rw shared:9 - zfs tank/a rw",
        ]
        .map(parse)
        .to_vec();
        let places = places(&table, "tank/a");
        let (ids, ties): (Vec<_>, Vec<_>) =
            places.iter().map(|p| (p.replaces.unwrap(), p.propagation.tie.clone())).unzip();
        assert_eq!(ids, [3, 5, 1, 2, 4]);
        let slave = Some(Tie::Slave("/master".into()));
        assert_eq!(ties, [None, None, slave, Some(Tie::Peer("/slave".into())), None]);
        let shared: Vec<bool> = places.iter().map(|p| p.propagation.shared).collect();
        assert_eq!(shared, [true, false, true, true, false]);
        assert!(places[1].propagation.unbindable);
        let uncarried: Vec<_> = places.iter().map(|p| p.uncarried.as_deref()).collect();
        assert_eq!(uncarried, [None, None, None, None, Some(SLAVE)]);
    }

    #[test]
    fn only_mounts_of_the_whole_dataset_are_places() {
        let table: Vec<MountEntry> = [
            "1 0 0:1 / /srv/a rw,relatime - zfs tank/a rw",
            "2 0 0:1 /sub /srv/bind rw,relatime - zfs tank/a rw",
            "3 0 0:2 / /srv/ab rw,relatime - zfs tank/ab rw",
            "4 0 0:3 / /srv/x rw,relatime - ext4 tank/a rw",
        ]
        .map(parse)
        .to_vec();
        let paths: Vec<PathBuf> = places(&table, "tank/a").into_iter().map(|p| p.path).collect();
        assert_eq!(paths, [Path::new("/srv/a")]);
    }

    #[test]
    fn what_lies_below_is_found_but_for_snapshot_automounts() {
        let table: Vec<MountEntry> = [
            "1 0 0:1 / /srv/a rw - zfs tank/a rw",
            "2 1 0:2 / /srv/a/.zfs/snapshot/s ro - zfs tank/a@s ro",
            "3 1 0:3 / /srv/a/data rw - tmpfs none rw",
            "5 3 0:5 / /srv/a/data/x rw - tmpfs none rw",
            "4 0 0:4 / /srv/ab rw - tmpfs none rw",
        ]
        .map(parse)
        .to_vec();
        assert_eq!(mounted_on(&table, 1), [Path::new("/srv/a/data"), Path::new("/srv/a/data/x")]);
    }

    #[test]
    fn the_table_of_this_process_is_read() {
        let table = table().unwrap();
        assert!(table.iter().any(|m| m.fs_type == "proc"), "{table:?}");
    }

    #[test]
    fn what_is_not_utf8_is_read_byte_by_byte() {
        let line =
            b"7 1 0:9 /\xff /srv/a/Gr\xfcn rw,n\xfcw shared:\xff \xff - fuse.\xff \xff\\040\xfe rw";
        let entry = MountEntry::parse(line).unwrap();
        assert_eq!(entry.root.as_os_str().as_bytes(), b"/\xff");
        assert_eq!(entry.path.as_os_str().as_bytes(), b"/srv/a/Gr\xfcn");
        assert_eq!(entry.fs_type.as_bytes(), b"fuse.\xff");
        assert_eq!(entry.source.as_bytes(), b"\xff \xfe");
        assert_eq!(entry.unknown.as_deref(), Some("n\u{fffd}w"));
        let table = [parse("1 0 0:1 / /srv/a rw - zfs tank/a rw"), entry];
        assert_eq!(mounted_on(&table, 1), [table[1].path.clone()]);
    }

    #[test]
    fn a_broken_line_is_no_mount() {
        for line in ["", "1 2 3", "1 0 0:1 / /x rw", "1 0 0:1 / /x rw - "] {
            assert_eq!(MountEntry::parse(line.as_bytes()), None, "{line:?}");
        }
    }
}
