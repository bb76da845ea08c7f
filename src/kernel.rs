//! The engine on real ZFS: each verb is one call of libzfs_core, libzfs or the mount API.

use std::fmt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::mount::MountAttrFlags;

use crate::compare;
use crate::engine::{
    Engine, Facts, Fault, Known, Place, PreparedMount, Promotion, PropertyValue, Settings,
};
use crate::errno::Errno;
use crate::ffi::libzfs::{LibZfs, LibZfsError};
use crate::ffi::lzc::{DatasetKind, Lzc, LzcError, ProgramLimits, ProgramMode};
use crate::ffi::nvlist::{NvError, NvList, NvRef, Value};
use crate::mount;
use crate::name::{DatasetName, SnapshotName};
use crate::ownership::Ids;
use crate::receipt::Guid;

const FACTS: &str = include_str!("program/facts.lua");
const SNAPSHOTS_SINCE: &str = include_str!("program/snapshots_since.lua");
const LONGEST_SNAPSHOT: &str = include_str!("program/longest_snapshot.lua");
const WRITTEN_SINCE: &str = include_str!("program/written_since.lua");
const DESTROY: &str =
    concat!(include_str!("program/known.lua"), include_str!("program/destroy.lua"));
const PROMOTE: &str = include_str!("program/promote.lua");
const INHERIT: &str =
    concat!(include_str!("program/known.lua"), include_str!("program/inherit.lua"));
const FIND_SNAPSHOT: &str = include_str!("program/find_snapshot.lua");

/// `ZFS_KEYSTATUS_UNAVAILABLE`.
const KEY_UNAVAILABLE: u64 = 1;

/// For programs that list snapshots: ten times the default instructions, enough for some 100,000.
const LARGE: ProgramLimits = ProgramLimits { instructions: 100_000_000, memory: 32 << 20 };

/// How long to wait for readers that are about to close a file: in steps that double, 1 s in all.
const BUSY_WAITS_MS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

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
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kernel")
    }
}

impl Kernel {
    pub(crate) fn open() -> Result<Self, Fault> {
        let lzc = Lzc::open()?;
        Ok(Self { lzc, libzfs: LibZfs::open(lzc)? })
    }

    fn program(
        &self,
        name: &str,
        text: &str,
        args: &NvList,
        mode: ProgramMode,
    ) -> Result<NvList, Fault> {
        let pool = name.split(['/', '@']).next().unwrap_or_default();
        Ok(self.lzc.program(pool, text, LARGE, args, mode)?)
    }

    /// Runs a program that acts on one dataset, known by guid, and returns its verdict.
    /// Says whether the dataset was there.
    fn act(&self, name: &str, guid: Guid, text: &str, mut args: NvList) -> Result<bool, Fault> {
        args.add_str("name", name)?;
        args.add_i64("guid", lua_guid(guid))?;
        let out = self.program(name, text, &args, ProgramMode::Sync)?;
        match out.get("return")? {
            Value::I64(0) => Ok(true),
            Value::Str("gone") => Ok(false),
            Value::I64(errno) => Err(Errno::from_raw(errno as i32).into()),
            Value::Str("written") => Err(Errno::TXTBSY.into()),
            _ => Err(not_the_one(name, guid)),
        }
    }

    /// Destroys; waits a little for readers that are about to close a file.
    fn destroy_patiently(
        &self,
        name: &str,
        guid: Guid,
        args: impl Fn() -> Result<NvList, NvError>,
    ) -> Result<bool, Fault> {
        let mut waits = BUSY_WAITS_MS.iter();
        loop {
            let result = self.act(name, guid, DESTROY, args()?);
            match (&result, waits.next()) {
                (Err(Fault { errno: Errno::BUSY, .. }), Some(&wait)) => {
                    sleep(Duration::from_millis(wait));
                }
                _ => return result,
            }
        }
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

impl Engine for Kernel {
    fn facts(&self, name: &str) -> Result<Option<Facts>, Fault> {
        let mut args = NvList::new()?;
        args.add_str("name", name)?;
        let out = self.program(name, FACTS, &args, ProgramMode::NoSync)?;
        let facts = out.list("return")?;
        if facts.is_empty() {
            return Ok(None);
        }
        Ok(Some(Facts {
            guid: guid_of(facts.i64("guid")?),
            creation: facts.i64("creation")?,
            volume: matches!(facts.str("type"), Ok("volume")),
            origin: facts.i64("origin_guid").ok().map(guid_of),
            children: facts.i64("children").unwrap_or(0).unsigned_abs(),
            mountpoint: facts.str("mountpoint").unwrap_or_default().to_owned(),
        }))
    }

    fn longest_snapshot(&self, dataset: &DatasetName) -> Result<usize, Fault> {
        let mut args = NvList::new()?;
        args.add_str("name", dataset.as_str())?;
        let out = self.program(dataset.as_str(), LONGEST_SNAPSHOT, &args, ProgramMode::NoSync)?;
        Ok(usize::try_from(out.i64("return")?).unwrap_or(0))
    }

    fn settings(&self, dataset: &DatasetName) -> Result<Settings, Fault> {
        let props = self.libzfs.props(dataset.as_str())?;
        let mut own_properties = Vec::new();
        for pair in props.iter() {
            let (name, value) = pair?;
            let Value::List(attributes) = value else {
                continue;
            };
            let source = attributes.str("source").unwrap_or_default();
            // A received value counts as the dataset's own: a clone can't be given it as received.
            let own = source == dataset.as_str() || source == "$recvd";
            if !own || NOT_FOR_CLONES.contains(&name) {
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
        Ok(Settings {
            own: own_properties,
            canmount_on: number(props.view(), "canmount").unwrap_or(1) == 1,
            readonly: number(props.view(), "readonly").unwrap_or(0) == 1,
            encryption_root: props.list("encryptionroot").is_ok_and(
                |root| matches!(root.str("value"), Ok(name) if name == dataset.as_str()),
            ),
            key_loaded: number(props.view(), "keystatus") != Some(KEY_UNAVAILABLE),
            zoned: number(props.view(), "zoned").unwrap_or(0) == 1,
            permissions,
        })
    }

    fn snapshots_since(&self, dataset: &DatasetName, base: &str) -> Result<Vec<String>, Fault> {
        let mut args = NvList::new()?;
        args.add_str("name", dataset.as_str())?;
        args.add_str("base", base)?;
        let out = self.program(dataset.as_str(), SNAPSHOTS_SINCE, &args, ProgramMode::NoSync)?;
        if let Value::Str(_) = out.get("return")? {
            return Err(Errno::NOENT.into());
        }
        let newer = out.list("return")?;
        let names = newer.iter().map(|pair| match pair? {
            (_, Value::Str(name)) => Ok(name.to_owned()),
            (position, _) => Err(Fault::from(NvError::Missing { name: position.to_owned() })),
        });
        names.collect()
    }

    fn find_snapshot(
        &self,
        parent: &DatasetName,
        leaf: &str,
        guid: Guid,
    ) -> Result<Option<String>, Fault> {
        let mut args = NvList::new()?;
        args.add_str("parent", parent.as_str())?;
        args.add_str("leaf", leaf)?;
        args.add_i64("guid", lua_guid(guid))?;
        let out = self.program(parent.as_str(), FIND_SNAPSHOT, &args, ProgramMode::NoSync)?;
        let found = out.str("return")?;
        Ok((found != "gone").then(|| found.to_owned()))
    }

    fn written_since(&self, dataset: &DatasetName, snapshot: &str) -> Result<u64, Fault> {
        let mut args = NvList::new()?;
        args.add_str("name", dataset.as_str())?;
        args.add_str("snapshot", snapshot)?;
        let out = self.program(dataset.as_str(), WRITTEN_SINCE, &args, ProgramMode::Sync)?;
        Ok(out.i64("return")?.unsigned_abs())
    }

    fn differs(&self, one: &SnapshotName, base: &SnapshotName) -> Result<bool, Fault> {
        let taken = self.facts(base.as_str())?.ok_or(Errno::NOENT)?.creation;
        let now = mount::detached(one.as_str(), READ_ONLY)?;
        let then = mount::detached(base.as_str(), READ_ONLY)?;
        Ok(compare::differs(&now, &then, taken)?)
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

    fn create(&self, name: &DatasetName, own: &[(String, PropertyValue)]) -> Result<(), Fault> {
        let properties = self.properties(own)?;
        Ok(self.lzc.create(name.as_str(), DatasetKind::Filesystem, &properties)?)
    }

    fn snapshot(&self, name: &SnapshotName) -> Result<(), Fault> {
        Ok(self.lzc.snapshot(&[name.as_str()], &NvList::new()?)?)
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

    fn promote(&self, promotion: Promotion<'_>) -> Result<(), Fault> {
        let Promotion { clone, head, head_origin, base } = promotion;
        let mut args = NvList::new()?;
        for (role, role_guid, Known { name, guid }) in
            [("clone", "clone_guid", clone), ("head", "head_guid", head)]
        {
            args.add_str(role, name.as_str())?;
            args.add_i64(role_guid, lua_guid(guid))?;
        }
        args.add_i64("head_origin", head_origin.map_or(0, lua_guid))?;
        args.add_i64("base", lua_guid(base))?;
        let out = self.program(clone.name.as_str(), PROMOTE, &args, ProgramMode::Sync)?;
        let out = out.list("return")?;
        match out.i64("errno") {
            Ok(0) => Ok(()),
            Ok(errno) => {
                let conflicts = out.list("conflicts").ok();
                let names = conflicts.iter().flat_map(NvRef::iter).filter_map(|pair| match pair {
                    Ok((_, Value::Str(name))) => Some(name.to_owned()),
                    _ => None,
                });
                let names = names.collect::<Vec<_>>().join(", ");
                let detail = (!names.is_empty()).then(|| format!("in the way: {names}"));
                Err(Fault { errno: Errno::from_raw(errno as i32), detail })
            }
            Err(_) => Err(not_the_one(head.name.as_str(), head.guid)),
        }
    }

    fn rename(&self, from: &DatasetName, to: &DatasetName) -> Result<(), Fault> {
        Ok(self.lzc.rename(from.as_str(), to.as_str())?)
    }

    fn destroy(&self, name: &str, guid: Guid) -> Result<bool, Fault> {
        self.destroy_patiently(name, guid, NvList::new)
    }

    fn destroy_unchanged(&self, name: &str, guid: Guid, since: &str) -> Result<bool, Fault> {
        let args = || {
            let mut args = NvList::new()?;
            args.add_str("since", since)?;
            Ok(args)
        };
        // A snapshot of its own is gone after the first try.
        if since.starts_with(&format!("{name}@")) {
            return self.act(name, guid, DESTROY, args()?);
        }
        self.destroy_patiently(name, guid, args)
    }

    fn inherit(&self, name: &DatasetName, guid: Guid, properties: &[&str]) -> Result<(), Fault> {
        let mut args = NvList::new()?;
        args.add_str_array("properties", properties)?;
        match self.act(name.as_str(), guid, INHERIT, args)? {
            true => Ok(()),
            false => Err(Errno::NOENT.into()),
        }
    }

    fn set_mountpoint(&self, name: &DatasetName, value: &str) -> Result<(), Fault> {
        Ok(self.libzfs.set_without_mounting(name.as_str(), "mountpoint", value)?)
    }

    fn keep_from_boot_mounts(&self, name: &DatasetName) -> Result<(), Fault> {
        Ok(self.libzfs.set_without_mounting(name.as_str(), "canmount", "noauto")?)
    }

    fn mount_private(&self, dataset: &DatasetName, at: &Path) -> Result<(), Fault> {
        let options = MountAttrFlags::MOUNT_ATTR_RELATIME;
        let mount = mount::detached(dataset.as_str(), options)?;
        mount::make_private_directory(at)?;
        Ok(mount::attach(&mount, at)?)
    }

    fn unmount_private(&self, at: &Path) -> Result<(), Fault> {
        // EINVAL: no mount point, so there is nothing to unmount.
        match mount::detach(at) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(mount::remove_private_directory(at)?)
    }

    fn flush(&self, at: &Path) -> Result<(), Fault> {
        Ok(mount::flush(at)?)
    }

    fn set_ownership(&self, at: &Path, ids: &Ids) -> Result<(), Fault> {
        Ok(ids.apply(at)?)
    }

    fn prepare_mount(&self, dataset: &DatasetName, place: Place) -> Result<PreparedMount, Fault> {
        let mount = mount::detached(dataset.as_str(), place.options)?;
        Ok(PreparedMount { place, mount })
    }

    fn attach(&self, prepared: PreparedMount) -> Result<bool, Fault> {
        let PreparedMount { place, mount } = prepared;
        let table = mount::table()?;
        let Some(old) = place.replaces else {
            if let Some(below) = mount::below(&table, &place.path).first() {
                return Err(in_the_way(below));
            }
            mount::make_mount_point(&place.path)?;
            mount::attach(&mount, &place.path)?;
            return Ok(true);
        };
        if !mount::is_mounted(&table, old) {
            return Ok(false);
        }
        if let Some(on) = mount::mounted_on(&table, old).first() {
            return Err(in_the_way(on));
        }
        mount::exchange(&mount, &place.path, old)?;
        Ok(true)
    }
}

/// Something that a mount or unmount would hide or take along.
fn in_the_way(path: &Path) -> Fault {
    let detail = format!("{} is mounted there: it is left alone", path.display());
    Fault { errno: Errno::BUSY, detail: Some(detail) }
}

fn not_the_one(name: &str, guid: Guid) -> Fault {
    let detail = format!("{name} is not the one with guid {guid}: it is left alone");
    Fault { errno: Errno::STALE, detail: Some(detail) }
}

const READ_ONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;

/// Channel programs have signed numbers only, and refuse unsigned arguments; guids use all 64 bits.
fn lua_guid(guid: Guid) -> i64 {
    i64::from_ne_bytes(guid.0.to_ne_bytes())
}

fn guid_of(number: i64) -> Guid {
    Guid(u64::from_ne_bytes(number.to_ne_bytes()))
}

/// A property's effective value; `None` where it has its default.
fn number(props: NvRef<'_>, name: &str) -> Option<u64> {
    props.list(name).ok()?.u64("value").ok()
}
