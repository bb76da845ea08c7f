//! The engine on real ZFS: each verb is one call of libzfs_core, libzfs or the mount API, or, where no
//! channel program can be run, several ([`plain`]).

mod busy;
mod in_place;
mod mounts;
#[cfg(test)]
mod on_zfs;
mod pages;
pub(crate) mod plain;
mod room;
mod walk;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use rustix::fs::syncfs;
use rustix::mount::MountAttrFlags;

use crate::compare;
use crate::engine::{
    AtEnd, Attached, Concluded, Conclusion, Difference, Engine, Entry, Facts, Fault, InPlaceEnd,
    Known, Lack, MARK, Place, Predecessor, PreparedMount, Private, Promoted, Promotion,
    PropertyValue, Scope, Settings, Shortage, SnapshotId, Staged, Staging, Unfit, Walk, Watch,
};
use crate::errno::Errno;
use crate::ffi::libzfs::{LibZfs, LibZfsError};
use crate::ffi::lzc::{DatasetKind, Lzc, LzcError, ProgramLimits, ProgramMode};
use crate::ffi::nvlist::{DataType, NvError, NvList, NvRef, Value};
use crate::holders::LONGEST;
use crate::linux;
use crate::mount;
use crate::name::{DatasetName, SnapshotName};
use crate::ownership::Ids;
use crate::patience::patiently;
use crate::receipt::{ElsewhereMount, Guid, Leftover};
use crate::stream::difference::{changes, has_content};
use crate::stream::passage::{Changes, FileId};
use crate::tools;
use crate::transfer::{self, Route};
use crate::txn::journal::Fence;
use crate::txn::plan::GATE_OF_PLAIN_CALLS;
use crate::volume;

use busy::{in_the_way, unmount_automounts, who_holds};
use pages::{let_go_of_pages, stale_names};
use plain::Plain;

const FACTS: &str = include_str!("program/facts.lua");
const JOURNAL: &str = include_str!("program/journal.lua");
const SNAPSHOTS_SINCE: &str = include_str!("program/snapshots_since.lua");
const LONGEST_SNAPSHOT: &str = include_str!("program/longest_snapshot.lua");
const FIND_SNAPSHOT: &str = include_str!("program/find_snapshot.lua");
const PROMOTE: &str = include_str!("program/promote.lua");
const CONCLUDE: &str = include_str!("program/conclude.lua");

/// A program that acts on one dataset, which must be the one that is meant.
macro_rules! on_known {
    ($file:literal) => {
        concat!(include_str!("program/known.lua"), include_str!($file))
    };
}
const DESTROY: &str = on_known!("program/destroy.lua");
const DESTROY_WORKSPACE: &str = on_known!("program/destroy_workspace.lua");
const INHERIT: &str = on_known!("program/inherit.lua");
const WRITE_RECORD: &str = on_known!("program/write_record.lua");

/// `ZFS_KEYSTATUS_UNAVAILABLE`.
const KEY_UNAVAILABLE: u64 = 1;

/// `ZFS_VOLMODE_NONE`.
const VOLMODE_NONE: u64 = 3;

/// The guid of the feature `bookmarks` (zpool-features(7)).
const BOOKMARKS: &str = "com.delphix:bookmarks";

/// For programs that list snapshots: ten times the default instructions, enough for some 100,000.
const LARGE: ProgramLimits = ProgramLimits { instructions: 100_000_000, memory: 32 << 20 };

/// What this crate writes about transactions is none of a dataset's settings.
const OWN_PROPERTIES: &str = "zfs-txn:";

/// Properties that a clone gets from its origin or from the promote, and that can't be set on it.
const NOT_FOR_CLONES: [&str; 14] = [
    "casesensitivity",
    "encryption",
    "jailed",
    "keyformat",
    "keylocation",
    "mlslabel",
    "normalization",
    "pbkdf2iters",
    "pbkdf2salt",
    "utf8only",
    "version",
    "volblocksize",
    "volsize",
    "zoned",
];

impl From<LzcError> for Fault {
    fn from(error: LzcError) -> Self {
        let named = error.per_name.iter().map(|(name, errno)| format!("{name}: {errno}"));
        let detail = named.chain(error.detail).collect::<Vec<_>>().join("; ");
        Self { errno: error.errno, detail: (!detail.is_empty()).then_some(detail) }
    }
}

impl From<LibZfsError> for Fault {
    fn from(error: LibZfsError) -> Self {
        Self { errno: error.errno, detail: Some(error.description) }
    }
}

impl From<NvError> for Fault {
    fn from(error: NvError) -> Self {
        Self { errno: Errno::INVAL, detail: Some(error.to_string()) }
    }
}

impl From<rustix::io::Errno> for Fault {
    fn from(errno: rustix::io::Errno) -> Self {
        Errno::from(errno).into()
    }
}

/// The kernel's ZFS, opened.
pub(crate) struct Kernel {
    lzc: Lzc,
    libzfs: LibZfs,
    /// Whether this process may run channel programs, once that is known.
    programs: OnceLock<bool>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kernel")
    }
}

impl Kernel {
    pub(crate) fn open() -> Result<Self, Fault> {
        let lzc = Lzc::open()?;
        Ok(Self { lzc, libzfs: LibZfs::open(lzc)?, programs: OnceLock::new() })
    }

    /// As for whom ZFS lets run no channel programs.
    #[cfg(test)]
    pub(crate) fn open_plain() -> Result<Self, Fault> {
        Ok(Self { programs: OnceLock::from(false), ..Self::open()? })
    }

    /// The way without channel programs, for whom ZFS lets run none. The permission is that of a
    /// process, not of a pool.
    fn plain(&self, name: &str) -> Result<Option<Plain>, Fault> {
        let plain = Plain { lzc: self.lzc, libzfs: self.libzfs };
        if let Some(runs) = self.programs.get() {
            return Ok((!runs).then_some(plain));
        }
        // Before OpenZFS 2.2.11, 2.3.9 and 2.4.4 root of any user namespace could run them, on any dataset: what
        // can be done is no answer to what may be.
        let asked = match plain::is_in_a_container() {
            true => Err(Errno::PERM.into()),
            false => self.program(name, "return 0", &NvList::new()?, ProgramMode::NoSync),
        };
        let runs = match asked {
            Ok(_) => true,
            // The module may have been built without them.
            Err(Fault {
                errno: Errno::PERM | Errno::ACCES | Errno::NOTSUP | Errno::ZFS_ERR_IOC_CMD_UNAVAIL,
                ..
            }) => false,
            // Such as a pool that doesn't exist: whoever asks has to say so in other words.
            Err(_) => return Ok(None),
        };
        let runs = *self.programs.get_or_init(|| runs);
        Ok((!runs).then_some(plain))
    }

    fn program(
        &self,
        name: &str,
        text: &str,
        args: &NvList,
        mode: ProgramMode,
    ) -> Result<NvList, Fault> {
        let pool = name.split(['/', '@']).next().unwrap_or_default();
        self.lzc.program(pool, text, LARGE, args, mode).map_err(|error| {
            match error.detail.as_deref().and_then(unreadable) {
                Some(detail) => Fault { errno: Errno::IO, detail: Some(detail) },
                None => error.into(),
            }
        })
    }

    /// Runs a program that acts on one dataset, known by guid, and returns its verdict.
    /// Says whether the dataset was there.
    fn act(&self, name: &str, guid: Guid, text: &str, mut args: NvList) -> Result<bool, Fault> {
        args.add_str("name", name)?;
        args.add_i64("guid", lua_guid(guid))?;
        let out = self.program(name, text, &args, ProgramMode::Sync)?;
        match out.get("return")? {
            Value::I64(0) => Ok(true),
            Value::Str(verdict) if verdict == "gone" => Ok(false),
            Value::I64(errno) => Err(Errno::from_raw(errno as i32).into()),
            Value::Str(verdict) if verdict == "written" => Err(Errno::TXTBSY.into()),
            _ => Err(not_the_one(name, guid)),
        }
    }

    /// Destroys; waits a little for readers that are about to close a file.
    fn destroy_patiently(
        &self,
        name: &str,
        guid: Guid,
        text: &str,
        args: impl Fn() -> Result<NvList, NvError>,
    ) -> Result<bool, Fault> {
        patiently(|| self.act(name, guid, text, args()?), is_busy)
    }

    fn is_volume(&self, dataset: &DatasetName) -> Result<bool, Fault> {
        Ok(self.facts(dataset.as_str())?.is_some_and(|facts| facts.volume))
    }

    fn properties(&self, own: &[(String, PropertyValue)]) -> Result<NvList, Fault> {
        let mut list = NvList::new()?;
        for (name, value) in own {
            match value {
                PropertyValue::Number(number) => list.add_u64(name, *number)?,
                PropertyValue::Text(text) => list.add_str(name, text)?,
            }
        }
        Ok(list)
    }
}

/// Of a dataset that is neither a filesystem nor a volume: libzfs opens none, and to be asked to may end the process
/// (`make_dataset_handle_common`). A receive takes any type.
fn not_opened() -> Fault {
    let detail = Some("neither a filesystem nor a volume".to_owned());
    Fault { errno: Errno::NOTSUP, detail }
}

fn is_busy(result: &Result<bool, Fault>) -> bool {
    matches!(result, Err(Fault { errno: Errno::BUSY, .. }))
}

impl Engine for Kernel {
    fn runs_programs(&self, dataset: &DatasetName) -> Result<bool, Fault> {
        Ok(self.plain(dataset.as_str())?.is_none())
    }

    fn lacks(&self, dataset: &DatasetName) -> Result<Option<Lack>, Fault> {
        if is_too_old_for_in_place() {
            return Ok(Some(Lack::Kernel));
        }
        let has_bookmarks = self.libzfs.has_feature(dataset.pool(), BOOKMARKS)?;
        Ok((!has_bookmarks).then_some(Lack::Bookmarks))
    }

    fn journal(&self, scope: Scope<'_>) -> Result<Vec<Entry>, Fault> {
        let Scope { target, above, id } = scope;
        if let Some(plain) = self.plain(target.as_str())? {
            return plain.journal(scope);
        }
        let parent = target.parent().ok_or(Errno::INVAL)?;
        let above: Vec<&str> = above.iter().map(DatasetName::as_str).collect();
        let mut args = NvList::new()?;
        args.add_str("target", target.as_str())?;
        args.add_str("parent", parent.as_str())?;
        args.add_str_array("above", &above)?;
        if let Some(id) = id {
            args.add_str("id", &id.to_string())?;
        }
        let out = self.program(target.as_str(), JOURNAL, &args, ProgramMode::NoSync)?;
        walk::entries(out.list("return")?)
    }

    fn walk(&self, below: &DatasetName) -> Result<Walk, Fault> {
        match self.plain(below.as_str())? {
            Some(plain) => plain.walk(below),
            None => self.walk_by_programs(below),
        }
    }

    fn facts(&self, name: &str) -> Result<Option<Facts>, Fault> {
        if let Some(plain) = self.plain(name)? {
            return plain.facts(name);
        }
        let mut args = NvList::new()?;
        args.add_str("name", name)?;
        let out = self.program(name, FACTS, &args, ProgramMode::NoSync)?;
        let facts = out.list("return")?;
        if facts.is_empty() {
            return Ok(None);
        }
        Ok(Some(Facts {
            guid: guid_of(facts.i64("guid")?),
            createtxg: unsigned(facts.i64("createtxg")?),
            volume: matches!(facts.str("type"), Ok("volume")),
            origin: origin_of(facts),
            children: facts.i64("children").unwrap_or(0).unsigned_abs(),
            mountpoint: facts.os_str("mountpoint").unwrap_or_default().into(),
        }))
    }

    fn longest_snapshot(&self, dataset: &DatasetName) -> Result<usize, Fault> {
        if let Some(plain) = self.plain(dataset.as_str())? {
            return plain.longest_snapshot(dataset.as_str());
        }
        let mut args = NvList::new()?;
        args.add_str("name", dataset.as_str())?;
        let out = self.program(dataset.as_str(), LONGEST_SNAPSHOT, &args, ProgramMode::NoSync)?;
        Ok(usize::try_from(out.i64("return")?).unwrap_or(0))
    }

    fn settings(&self, dataset: &DatasetName) -> Result<Settings, Fault> {
        let props = self.libzfs.props(dataset.as_str())?;
        let mut own_properties = Vec::new();
        let mut named_for_tools = Vec::new();
        for pair in props.iter() {
            let (name, value) = pair?;
            // The kernel takes no other names of properties, so none could be given to a clone.
            let (Some(name), Value::List(attributes)) = (name.to_str(), value) else {
                continue;
            };
            if tools::is_named(name) {
                named_for_tools.push(name.to_owned());
            }
            let source = attributes.os_str("source").unwrap_or_default();
            // A received value counts as the dataset's own: a clone can't be given it as received.
            let own = source == dataset.as_str() || source == "$recvd";
            if !own || name.starts_with(OWN_PROPERTIES) || NOT_FOR_CLONES.contains(&name) {
                continue;
            }
            let value = match attributes.get("value")? {
                Value::U64(number) => PropertyValue::Number(number),
                Value::Str(text) => PropertyValue::Text(text.to_owned()),
                _ => continue,
            };
            own_properties.push((name.to_owned(), value));
        }
        // The library's order is of no meaning; two looks at one dataset are to be comparable.
        own_properties.sort_by(|(one, _), (other, _)| one.cmp(other));
        let permissions = self.libzfs.permissions(dataset.as_str())?;
        let permissions = match permissions.list(dataset.as_str()) {
            Ok(own) => Some(own.pack()?),
            Err(_) => None,
        };
        let canmount_on = number(props.view(), "canmount").unwrap_or(1) == 1;
        let zoned = number(props.view(), "zoned").unwrap_or(0) == 1 && !plain::is_in_a_container();
        let claim = (canmount_on && !zoned).then(|| mountpoint(props.view(), dataset)).flatten();
        Ok(Settings {
            own: own_properties,
            claim,
            readonly: number(props.view(), "readonly").unwrap_or(0) == 1,
            encryption_root: props.list("encryptionroot").is_ok_and(
                |root| matches!(root.os_str("value"), Ok(name) if name == dataset.as_str()),
            ),
            // Filesystems have the property for the volumes below them.
            snapshot_devices: number(props.view(), "snapdev") == Some(1)
                && props.list("volsize").is_ok(),
            no_device: number(props.view(), "volmode") == Some(VOLMODE_NONE)
                && props.list("volsize").is_ok(),
            // Has no source, as it can't be set; of an incremental receive, it is the hidden clone's.
            partly_received: props.contains("receive_resume_token"),
            key_loaded: number(props.view(), "keystatus") != Some(KEY_UNAVAILABLE),
            zoned,
            named_for_tools,
            permissions,
        })
    }

    fn shortage(&self, dataset: &DatasetName) -> Result<Option<Shortage>, Fault> {
        let props = self.libzfs.props(dataset.as_str())?;
        let number = |name| number(props.view(), name).unwrap_or(0);
        Ok(room::shortage(room::Sizes {
            reserved: number("refreservation"),
            unique: number("unique"),
            available: number("available"),
            quota: number("refquota"),
            referenced: number("referenced"),
        }))
    }

    fn is_empty(&self, dataset: &DatasetName) -> Result<bool, Fault> {
        let contexts = self.contexts(dataset)?;
        Ok(mount::is_empty(&mount::root_as_it_is(dataset.as_str(), &contexts)?)?)
    }

    fn snapshots_since(&self, dataset: &DatasetName, base: &str) -> Result<Vec<String>, Fault> {
        if let Some(plain) = self.plain(dataset.as_str())? {
            return plain.snapshots_since(dataset.as_str(), base);
        }
        let mut args = NvList::new()?;
        args.add_str("name", dataset.as_str())?;
        args.add_str("base", base)?;
        let out = self.program(dataset.as_str(), SNAPSHOTS_SINCE, &args, ProgramMode::NoSync)?;
        if let Value::Str(_) = out.get("return")? {
            return Err(Errno::NOENT.into());
        }
        let newer = out.list("return")?;
        let names = newer.iter().map(|pair| match pair? {
            (_, Value::Str(name)) => Ok(name.to_string_lossy().into_owned()),
            (position, other) => {
                Err(Fault::from(other.is_not(&position.to_string_lossy(), DataType::STR)))
            }
        });
        names.collect()
    }

    fn snapshots_and_bookmarks(&self, dataset: &DatasetName) -> Result<Vec<String>, Fault> {
        let calls = Plain { lzc: self.lzc, libzfs: self.libzfs };
        let found = calls.snapshots(dataset.as_str()).and_then(|mut found| {
            let bookmarks = calls.bookmarks(dataset.as_str())?;
            found.extend(bookmarks.into_iter().map(|leaf| format!("{dataset}#{leaf}")));
            // What could not be destroyed by its name must not be taken for destroyed.
            found.iter().try_for_each(|name| check_name(name))?;
            Ok(found)
        });
        match found {
            Err(Fault { errno: Errno::NOENT, .. }) => Ok(Vec::new()),
            found => found,
        }
    }

    fn find_snapshot(
        &self,
        target: &DatasetName,
        leaf: &str,
        id: SnapshotId,
    ) -> Result<Option<String>, Fault> {
        let Some(parent) = target.parent() else { return Ok(None) };
        if let Some(plain) = self.plain(target.as_str())? {
            return plain.find_snapshot(&format!("{target}@{leaf}"), id);
        }
        let mut args = NvList::new()?;
        args.add_str("parent", parent.as_str())?;
        args.add_str("stem", target.stem())?;
        args.add_str("leaf", leaf)?;
        args.add_i64("guid", lua_guid(id.guid))?;
        args.add_i64("createtxg", lua_number(id.createtxg))?;
        let out = self.program(target.as_str(), FIND_SNAPSHOT, &args, ProgramMode::NoSync)?;
        let found = out.str("return")?;
        Ok((found != "gone").then(|| found.to_owned()))
    }

    fn difference(&self, one: &SnapshotName, base: &SnapshotName) -> Result<Difference, Fault> {
        let is_volume = self.is_volume(&one.dataset())?;
        transfer::look(self.lzc, one.as_str(), Some(base.as_str()), |stream| match is_volume {
            true if has_content(&stream)? => Ok(Difference::Content),
            true => Ok(Difference::Nothing),
            false => compare::difference(stream, one.as_str(), base.as_str()),
        })
    }

    fn newcomers(&self, one: &SnapshotName, base: &SnapshotName) -> Result<Vec<FileId>, Fault> {
        if self.is_volume(&one.dataset())? {
            return Ok(Vec::new());
        }
        transfer::look(self.lzc, one.as_str(), Some(base.as_str()), |stream| {
            compare::newcomers(stream, base.as_str())
        })
    }

    fn places(&self, dataset: &DatasetName) -> Result<Vec<Place>, Fault> {
        Ok(mount::places(&mount::table()?, dataset.as_str()))
    }

    fn mount_options(&self, dataset: &DatasetName) -> Result<MountAttrFlags, Fault> {
        let props = self.libzfs.props(dataset.as_str())?;
        let is = |name, default| number(props.view(), name).unwrap_or(default) == 1;
        let mut options = MountAttrFlags::empty();
        for (name, default, flag) in [
            ("setuid", 1, MountAttrFlags::MOUNT_ATTR_NOSUID),
            ("devices", 1, MountAttrFlags::MOUNT_ATTR_NODEV),
            ("exec", 1, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        ] {
            options.set(flag, !is(name, default));
        }
        options.set(MountAttrFlags::MOUNT_ATTR_RDONLY, is("readonly", 0));
        Ok(options
            | match (is("atime", 1), is("relatime", 1)) {
                (false, _) => MountAttrFlags::MOUNT_ATTR_NOATIME,
                (true, true) => MountAttrFlags::MOUNT_ATTR_RELATIME,
                (true, false) => MountAttrFlags::MOUNT_ATTR_STRICTATIME,
            })
    }

    fn mounts_on(&self, place: &Place) -> Result<Vec<PathBuf>, Fault> {
        let id = place.replaces.unwrap_or_default();
        Ok(mount::mounted_on(&mount::table()?, id))
    }

    fn unfit(&self, place: &Path, shared: bool) -> Result<Option<Unfit>, Fault> {
        Ok(mount::unfit(place, shared)?)
    }

    fn unmountable(&self, dataset: &DatasetName, path: &Path) -> Result<Option<Unfit>, Fault> {
        let props = self.libzfs.props(dataset.as_str())?;
        let overlay = number(props.view(), "overlay").unwrap_or(1) == 1;
        Ok(mount::unmountable(path, overlay)?)
    }

    fn leads_to(&self, at: &Path, root: BorrowedFd<'_>) -> Result<bool, Fault> {
        if !mount::leads_to(at, root)? {
            return Ok(false);
        }
        if mount::has_something_below(at)? {
            let detail = "there is something in the directory below the mount".to_owned();
            return Err(Fault { errno: Errno::STALE, detail: Some(detail) });
        }
        Ok(true)
    }

    fn displaced(
        &self,
        dataset: &DatasetName,
        workspace: BorrowedFd<'_>,
    ) -> Result<Vec<PathBuf>, Fault> {
        if self.is_volume(dataset)? {
            return Ok(Vec::new());
        }
        let root = mount::root_as_it_is(dataset.as_str(), &self.contexts(dataset)?)?;
        Ok(mount::displaced(dataset.as_str(), root.as_fd(), workspace)?)
    }

    fn holders(&self, name: &str) -> Result<Option<String>, Fault> {
        who_holds(self.libzfs, name, Instant::now() + LONGEST)
    }

    fn is_seen_by_first(&self, dataset: &DatasetName) -> Result<bool, Fault> {
        Ok(mount::is_seen_by_first(dataset.as_str()))
    }

    fn mounted_anywhere(&self, dataset: &DatasetName) -> Result<Vec<ElsewhereMount>, Fault> {
        Ok(mount::everywhere(dataset.as_str())?)
    }

    fn create(&self, name: &DatasetName, own: &[(String, PropertyValue)]) -> Result<(), Fault> {
        let properties = self.properties(own)?;
        Ok(self.lzc.create(name.as_str(), DatasetKind::Filesystem, &properties)?)
    }

    fn snapshot(&self, name: &SnapshotName, property: Option<(&str, &str)>) -> Result<(), Fault> {
        let mut properties = NvList::new()?;
        if let Some((property, value)) = property {
            properties.add_str(property, value)?;
        }
        Ok(self.lzc.snapshot(&[name.as_str()], &properties)?)
    }

    fn clone_snapshot(
        &self,
        name: &DatasetName,
        origin: &SnapshotName,
        own: &[(String, PropertyValue)],
    ) -> Result<(), Fault> {
        Ok(self.lzc.clone(name.as_str(), origin.as_str(), &self.properties(own)?)?)
    }

    fn copy_permissions(&self, from: &DatasetName, to: &DatasetName) -> Result<(), Fault> {
        let all = self.libzfs.permissions(from.as_str())?;
        let own = all.list(from.as_str())?.try_clone()?;
        Ok(self.libzfs.set_permissions(to.as_str(), &own)?)
    }

    fn promote(&self, promotion: Promotion<'_>) -> Result<Promoted, Fault> {
        self.unmount_what_moves(promotion)?;
        if let Some(plain) = self.plain(promotion.clone.name.as_str())? {
            return plain.promote(promotion).map_err(|fault| self.naming_busy(promotion, fault));
        }
        let Promotion { clone, head, head_origin, base, since, record, undoes: _ } = promotion;
        let (property, record) = record;
        let mut args = NvList::new()?;
        add_known(&mut args, "clone", clone)?;
        add_known(&mut args, "head", head)?;
        args.add_i64("head_origin", head_origin.map_or(0, lua_guid))?;
        args.add_i64("base", lua_guid(base))?;
        args.add_str("property", property)?;
        args.add_str("record", record)?;
        if let Some(since) = since {
            args.add_str("since", since)?;
        }
        let out = self.program(clone.name.as_str(), PROMOTE, &args, ProgramMode::Sync)?;
        let out = out.list("return")?;
        match (out.str("verdict")?, out.i64("errno")) {
            ("done", Ok(0)) => Ok(Promoted::Done),
            ("done", Ok(errno)) => {
                let conflicts = out.list("conflicts").ok();
                let names = conflicts.iter().flat_map(NvRef::iter).filter_map(|pair| match pair {
                    Ok((_, Value::Str(name))) => Some(name.to_string_lossy().into_owned()),
                    _ => None,
                });
                let names = names.collect::<Vec<_>>().join(", ");
                let detail = (!names.is_empty()).then(|| format!("in the way: {names}"));
                let fault = Fault { errno: Errno::from_raw(errno as i32), detail };
                Err(self.naming_busy(promotion, fault))
            }
            ("written", _) => Ok(Promoted::Written),
            ("busy", _) => {
                Ok(Promoted::Busy(out.os_str("snapshot")?.to_string_lossy().into_owned()))
            }
            ("newer", _) => {
                Ok(Promoted::Newer(out.os_str("snapshot")?.to_string_lossy().into_owned()))
            }
            _ => Ok(Promoted::Replaced),
        }
    }

    fn conclude(&self, conclusion: Conclusion<'_>) -> Result<Concluded, Fault> {
        let Conclusion { target, gate, marked, predecessor, carrier, property, committed } =
            conclusion;
        let mut args = NvList::new()?;
        add_known(&mut args, "target", target)?;
        let closed: Vec<&str> = gate.unwrap_or_default().iter().map(String::as_str).collect();
        args.add_str_array("gate", &closed)?;
        let marked: Vec<&str> = marked.iter().map(|name| name.as_str()).collect();
        args.add_str_array("marked", &marked)?;
        args.add_str("mark", MARK)?;
        let mut off = NvList::new()?;
        for (tool, value) in tools::ALWAYS.iter().filter(|_| gate.is_some()) {
            off.add_str(tool, *value)?;
        }
        args.add_nvlist("tools", &off)?;
        let named = gate.map(|_| &tools::NAMED[..]).unwrap_or_default();
        args.add_str_array("named_for_tools", named)?;
        args.add_str("named_off", tools::NAMED_OFF)?;
        args.add_str("carrier", carrier.0)?;
        args.add_i64("carrier_guid", lua_guid(carrier.1.guid))?;
        args.add_str("property", property)?;
        args.add_str("committed", committed)?;
        if let Some(Predecessor { known, since }) = predecessor {
            add_known(&mut args, "predecessor", known)?;
            if let Some((since, guid)) = since {
                args.add_str("since", since)?;
                args.add_i64("since_guid", lua_guid(guid))?;
            }
        }
        let plain = match closed.contains(&GATE_OF_PLAIN_CALLS) {
            // No program can open it: what was begun with plain calls ends with them.
            true => Some(Plain { lzc: self.lzc, libzfs: self.libzfs }),
            false => self.plain(target.name.as_str())?,
        };
        let call = || -> Result<Concluded, Fault> {
            let since = predecessor.and_then(|predecessor| predecessor.since);
            unmount_automounts(&[Some(carrier.0), since.map(|(since, _)| since)])?;
            if let Some(plain) = plain {
                return plain.conclude(conclusion);
            }
            let out = self.program(target.name.as_str(), CONCLUDE, &args, ProgramMode::Sync)?;
            let out = out.list("return")?;
            let errno = out.i64("errno")?;
            let said = (errno != 0).then(|| Errno::from_raw(errno as i32));
            Ok(match (out.str("verdict")?, said) {
                ("done", said) => Concluded::Done(said),
                ("written", _) => Concluded::Written,
                ("busy", Some(errno)) => Concluded::Busy(errno),
                _ => Concluded::Replaced,
            })
        };
        // A snapshot of the predecessor's own is gone after the first try.
        let own = |Predecessor { known, since }: Predecessor<'_>| {
            since.is_some_and(|(since, _)| since.starts_with(&format!("{}@", known.name)))
        };
        if predecessor.is_some_and(own) {
            return call();
        }
        patiently(call, |result| matches!(result, Ok(Concluded::Busy(Errno::BUSY))))
    }

    fn stage(&self, staging: Staging<'_>) -> Result<Staged, Fault> {
        match self.plain(staging.target.name.as_str())? {
            Some(plain) => plain.stage(staging),
            None => self.stage_change(staging),
        }
    }

    fn stream_length(&self, route: Route<'_>) -> Result<u64, Fault> {
        Ok(self.lzc.send_space(route.snapshot, route.from, transfer::FLAGS)?)
    }

    fn transfer(&self, route: Route<'_>, watch: Watch<'_>, at_end: AtEnd<'_>) -> Result<(), Fault> {
        transfer::carry(self.lzc, route, watch, at_end)
    }

    fn conclude_in_place(&self, end: InPlaceEnd<'_>) -> Result<Option<Errno>, Fault> {
        let Some(plain) = self.plain(end.target.name.as_str())? else {
            return self.end_in_place(end);
        };
        patiently(|| plain.conclude_in_place(end), |result| matches!(result, Ok(Some(Errno::BUSY))))
    }

    fn changes(&self, snapshot: &str, from: Option<&str>) -> Result<Changes, Fault> {
        transfer::look(self.lzc, snapshot, from, changes)
    }

    fn let_go_of_pages(
        &self,
        dataset: &DatasetName,
        sent: &str,
        changes: &mut Changes,
        received: bool,
    ) -> Result<Vec<PathBuf>, Fault> {
        if self.is_volume(dataset)? {
            return volume::let_go_of_pages(dataset.as_str()).map_err(no_device);
        }
        let contexts = self.contexts(dataset)?;
        let_go_of_pages(dataset, &contexts, sent, &mut changes.files, received)
    }

    fn stale_names(
        &self,
        dataset: &DatasetName,
        before: &str,
        directories: &[FileId],
    ) -> Result<Vec<PathBuf>, Fault> {
        stale_names(dataset, &self.contexts(dataset)?, before, directories)
    }

    fn write_record(
        &self,
        (carrier, guid): (&str, Guid),
        property: &str,
        old: Option<&str>,
        new: Option<&str>,
    ) -> Result<(), Fault> {
        if let Some(plain) = self.plain(carrier)? {
            let there = plain.write_record((carrier, guid), property, old, new)?;
            return if there { Ok(()) } else { Err(Errno::NOENT.into()) };
        }
        let mut args = NvList::new()?;
        args.add_str("property", property)?;
        for (role, value) in [("old", old), ("new", new)] {
            if let Some(value) = value {
                args.add_str(role, value)?;
            }
        }
        match self.act(carrier, guid, WRITE_RECORD, args)? {
            true => Ok(()),
            false => Err(Errno::NOENT.into()),
        }
    }

    fn rename(&self, from: &DatasetName, to: &DatasetName) -> Result<(), Fault> {
        match self.plain(to.as_str())? {
            Some(plain) => plain.rename(from.as_str(), to.as_str()),
            None => Ok(self.lzc.rename(from.as_str(), to.as_str())?),
        }
    }

    fn destroy(&self, name: &str, guid: Guid) -> Result<bool, Fault> {
        unmount_automounts(&[Some(name)])?;
        match self.plain(name)? {
            Some(plain) => patiently(|| plain.destroy(name, guid), is_busy),
            None => self.destroy_patiently(name, guid, DESTROY, NvList::new),
        }
    }

    fn destroy_unchanged(
        &self,
        name: &str,
        guid: Guid,
        (since, since_guid): (&str, Guid),
    ) -> Result<bool, Fault> {
        let args = || {
            let mut args = NvList::new()?;
            args.add_str("since", since)?;
            args.add_i64("since_guid", lua_guid(since_guid))?;
            Ok(args)
        };
        // A snapshot of its own is gone after the first try.
        let once = since.starts_with(&format!("{name}@"));
        if let Some(plain) = self.plain(name)? {
            let call = || plain.destroy_unchanged(name, guid, (since, since_guid));
            return if once { call() } else { patiently(call, is_busy) };
        }
        if once {
            return self.act(name, guid, DESTROY, args()?);
        }
        self.destroy_patiently(name, guid, DESTROY, args)
    }

    fn destroy_workspace(
        &self,
        name: &DatasetName,
        guid: Guid,
        origin: Option<Guid>,
    ) -> Result<bool, Fault> {
        if let Some(plain) = self.plain(name.as_str())? {
            let call = || plain.destroy_workspace(name.as_str(), guid, origin);
            return patiently(call, is_busy);
        }
        self.destroy_patiently(name.as_str(), guid, DESTROY_WORKSPACE, || {
            let mut args = NvList::new()?;
            args.add_i64("origin", origin.map_or(0, lua_guid))?;
            Ok(args)
        })
    }

    fn destroy_snapshots(&self, names: &[String]) -> Result<(), Fault> {
        let list: Vec<&str> = names.iter().map(String::as_str).collect();
        self.lzc.destroy_snaps(&list, false).map_err(|error| in_the_way(self.libzfs, error))
    }

    fn destroy_bookmarks(&self, names: &[String]) -> Result<(), Fault> {
        let list: Vec<&str> = names.iter().map(String::as_str).collect();
        Ok(self.lzc.destroy_bookmarks(&list)?)
    }

    fn inherit(&self, name: &DatasetName, guid: Guid, properties: &[&str]) -> Result<(), Fault> {
        let there = match self.plain(name.as_str())? {
            Some(plain) => plain.inherit(name.as_str(), guid, properties)?,
            None => {
                let mut args = NvList::new()?;
                args.add_str_array("properties", properties)?;
                self.act(name.as_str(), guid, INHERIT, args)?
            }
        };
        match there {
            true => Ok(()),
            false => Err(Errno::NOENT.into()),
        }
    }

    fn set_mountpoint(&self, name: &DatasetName, value: &OsStr) -> Result<(), Fault> {
        Ok(self.libzfs.set_without_mounting(name.as_str(), "mountpoint", value)?)
    }

    fn fence(&self, name: &DatasetName) -> Result<(), Fault> {
        let Err(error) = self.libzfs.set_without_mounting(name.as_str(), "readonly", "on") else {
            return Ok(());
        };
        // It counts as set when only the mount could not be made read-only as well, because a file is
        // open for writing: ZFS refuses the writes by itself.
        if self.settings(name)?.readonly { Ok(()) } else { Err(error.into()) }
    }

    fn unfence(&self, name: &DatasetName, guid: Guid, before: Fence) -> Result<(), Fault> {
        // By way of libzfs, which has made the mount read-only as well.
        self.libzfs.set_without_mounting(name.as_str(), "readonly", "off")?;
        match before {
            Fence::Own => Ok(()),
            Fence::Inherited => self.inherit(name, guid, &["readonly"]),
        }
    }

    fn keep_from_boot_mounts(&self, name: &DatasetName) -> Result<(), Fault> {
        Ok(self.libzfs.set_without_mounting(name.as_str(), "canmount", "noauto")?)
    }

    fn mount_private(&self, dataset: &DatasetName, at: Private<'_>) -> Result<OwnedFd, Fault> {
        // Nobody may do more in the workspace than in the target.
        let limits = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let options = MountAttrFlags::MOUNT_ATTR_RELATIME | (self.mount_options(dataset)? & limits);
        let shared = self.shared(dataset, at.becomes)?;
        match mount::detached(dataset.as_str(), options, &shared) {
            Err(_) if self.is_volume(dataset)? => {
                let (path, device) = volume::open_by_name(dataset.as_str()).map_err(no_device)?;
                mount::link_private(&path, at)?;
                Ok(device)
            }
            mount => mount::attach_private(&mount?, at),
        }
    }

    fn unmount_private(
        &self,
        at: Private<'_>,
        root: Option<BorrowedFd<'_>>,
        of: &[&DatasetName],
    ) -> Result<Option<Leftover>, Fault> {
        if root.is_none() {
            let is_own = |found: &OsStr| of.iter().any(|name| found == name.as_str());
            let linked = volume::name_of(at.path).is_none_or(|volume| is_own(volume.as_ref()));
            let mounted = mount::on_top(&mount::table()?, at.path).is_none_or(is_own);
            if !(linked && mounted) {
                return Ok(Some(mount::another_ones(at.path)));
            }
        }
        Ok(mount::take_away_private(at, root)?)
    }

    fn unmount_stray(&self, place: &Place) -> Result<(), Fault> {
        mount::detach(&place.path)?;
        // Made for that mount; what has anything in it is somebody else's.
        let _ = std::fs::remove_dir(&place.path);
        Ok(())
    }

    fn unmount_unused(&self, dataset: &DatasetName, place: &Place) -> Result<(), Fault> {
        if mount::take_away_empty(&place.path, place.replaces)? {
            let _ = std::fs::remove_dir(&place.path);
        } else if mount::places(&mount::table()?, dataset.as_str()).is_empty() {
            // Something came in at the last moment.
            let shared = self.shared(dataset, None)?;
            let mount = mount::detached(dataset.as_str(), place.options, &shared)?;
            mount::attach(&mount, &place.path)?;
        }
        Ok(())
    }

    fn flush_workspace(&self, root: BorrowedFd<'_>) -> Result<(), Fault> {
        Ok(mount::flush_workspace(root)?)
    }

    fn write_back(&self, dataset: &DatasetName) -> Result<(), Fault> {
        // A first mount replays the intent log (zfsvfs_setup, zil_replay); a volume's log is replayed
        // before it has a device.
        match mount::root_of(dataset.as_str(), &self.contexts(dataset)?) {
            Err(_) if self.is_volume(dataset)? => {
                volume::flush(dataset.as_str()).map_err(no_device)
            }
            root => Ok(syncfs(root?)?),
        }
    }

    fn renew_deletions(&self, dataset: &DatasetName) -> Result<bool, Fault> {
        let props = self.libzfs.props(dataset.as_str())?;
        let objset = number(props.view(), "objsetid").ok_or(Errno::NOENT)?;
        in_place::renew_deletions(dataset, &self.contexts(dataset)?, objset)
    }

    fn set_ownership(&self, root: BorrowedFd<'_>, ids: &Ids) -> Result<(), Fault> {
        ids.apply(root)
    }

    fn prepare_mount(&self, dataset: &DatasetName, place: Place) -> Result<PreparedMount, Fault> {
        let mut shared = self.shared(dataset, None)?;
        if place.replaces.is_some() {
            shared.seen_at = Some(place.path.clone());
        }
        mount::prepare(dataset.as_str(), place, &shared)
    }

    fn attach(&self, prepared: PreparedMount) -> Result<Attached, Fault> {
        mount::put(&prepared)
    }
}

/// A channel program may have given a snapshot any name.
fn check_name(name: &str) -> Result<(), Fault> {
    if name.is_ascii() {
        return Ok(());
    }
    let detail = format!("{name} is not a name that ZFS allows: nothing can be done about it");
    Err(Fault { errno: Errno::ILSEQ, detail: Some(detail) })
}

fn not_the_one(name: &str, guid: Guid) -> Fault {
    let detail = format!("{name} is not the one with guid {guid}: it is left alone");
    Fault { errno: Errno::STALE, detail: Some(detail) }
}

/// What a volume's device has refused, or that there is none.
fn no_device(errno: rustix::io::Errno) -> Fault {
    let detail = (errno == rustix::io::Errno::NXIO)
        .then(|| "the volume has no block device: is its volmode none?".to_owned());
    Fault { detail, ..Fault::from(errno) }
}

/// Whether the kernel is older than Linux 5.14.
pub(crate) fn is_too_old_for_in_place() -> bool {
    linux::is_before(5, 14)
}

/// Says it of what a program could not read, and has told by the error `EIO: NAME`, with a traceback below.
fn unreadable(message: &str) -> Option<String> {
    let name = message.lines().next()?.strip_prefix("EIO: ")?;
    Some(format!("{name} is damaged, or neither a filesystem nor a volume"))
}

/// The origin among what facts.lua tells.
fn origin_of(facts: NvRef<'_>) -> Option<SnapshotId> {
    let guid = guid_of(facts.i64("origin_guid").ok()?);
    let createtxg = unsigned(facts.i64("origin_createtxg").ok()?);
    Some(SnapshotId { guid, createtxg })
}

/// Channel programs have signed numbers only, and refuse unsigned arguments; guids use all 64 bits.
fn lua_number(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

fn unsigned(number: i64) -> u64 {
    u64::from_ne_bytes(number.to_ne_bytes())
}

fn lua_guid(guid: Guid) -> i64 {
    lua_number(guid.0)
}

fn guid_of(number: i64) -> Guid {
    Guid(unsigned(number))
}

fn add_known(args: &mut NvList, role: &str, known: Known<'_>) -> Result<(), NvError> {
    args.add_str(role, known.name.as_str())?;
    args.add_i64(&format!("{role}_guid"), lua_guid(known.guid))
}

/// The path at which a boot mounts a dataset that it mounts: the kernel gives the property's value
/// where it was set, and the names below are added (as libzfs does).
fn mountpoint(props: NvRef<'_>, dataset: &DatasetName) -> Option<PathBuf> {
    let name = dataset.as_str();
    let Ok(attributes) = props.list("mountpoint") else {
        return Some(Path::new("/").join(name));
    };
    let (value, source) = (attributes.os_str("value").ok()?, attributes.os_str("source").ok()?);
    if !Path::new(value).is_absolute() {
        return None;
    }
    let below = source.to_str().and_then(|source| name.strip_prefix(source)).unwrap_or_default();
    let mut path = if value == "/" && !below.is_empty() { OsString::new() } else { value.into() };
    path.push(below);
    Some(path.into())
}

/// A property's effective value; `None` where it has its default.
fn number(props: NvRef<'_>, name: &str) -> Option<u64> {
    props.list(name).ok()?.u64("value").ok()
}
