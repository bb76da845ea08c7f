//! Volumes by their block devices: which one it is, and its cached pages.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{Advice, Mode, OFlags, fadvise, fsync, open};
use rustix::io::Errno;

use crate::ffi::zvol;
use crate::mount::errno_of;

/// How long to wait for a device: the kernel makes it after the volume, in a thread of its own. In
/// steps that double, 10 s in all.
const WAITS_MS: [u64; 11] = [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120];
/// How many of them for udev's link alone, 1.3 s.
const LINK_WAITS: usize = 7;

/// The block device of a volume, once the kernel has made it, and with it replayed the intent log
/// (`zvol_os_create_minor`).
///
/// # Errors
/// `ENXIO` where it doesn't come: with `volmode=none` there is none.
pub(crate) fn device(volume: &str) -> Result<PathBuf, Errno> {
    // With udev, others' devices are not even opened unless its link doesn't come.
    let udev = Path::new("/run/udev/control").exists();
    for (number, wait) in WAITS_MS.into_iter().enumerate() {
        let found = match by_link(volume) {
            None if !udev || number > LINK_WAITS => find(volume)?,
            found => found,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        sleep(Duration::from_millis(wait));
    }
    find(volume)?.ok_or(Errno::NXIO)
}

fn shows(path: &Path, volume: &str) -> bool {
    let name = open_device(path, OFlags::NONBLOCK).and_then(zvol::name);
    name.is_ok_and(|name| name == volume)
}

/// By udev's link.
fn by_link(volume: &str) -> Option<PathBuf> {
    let path = fs::canonicalize(Path::new("/dev/zvol").join(volume)).ok()?;
    shows(&path, volume).then_some(path)
}

/// By asking each of ZFS's devices.
fn find(volume: &str) -> Result<Option<PathBuf>, Errno> {
    for entry in fs::read_dir("/sys/block").map_err(|error| errno_of(&error))? {
        let name = entry.map_err(|error| errno_of(&error))?.file_name();
        let path = Path::new("/dev").join(&name);
        if name.to_string_lossy().starts_with("zd") && shows(&path, volume) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn open_device(path: &Path, how: OFlags) -> Result<OwnedFd, Errno> {
    open(path, OFlags::RDONLY | OFlags::CLOEXEC | how, Mode::empty())
}

/// A volume's device, and the path to it, which is right as long as the device is open. That keeps the
/// pool from being exported.
pub(crate) fn open_by_name(volume: &str) -> Result<(PathBuf, OwnedFd), Errno> {
    let path = device(volume)?;
    let device = open_device(&path, OFlags::empty())?;
    if zvol::name(&device)? == volume { Ok((path, device)) } else { Err(Errno::STALE) }
}

/// The volume that a link to a device leads to; `None`: it is no link, or leads to no volume.
pub(crate) fn name_of(link: &Path) -> Option<String> {
    // By its name alone: to open what somebody else has put there may have effects.
    let path = fs::read_link(link).ok()?;
    path.to_str()?.strip_prefix("/dev/zd")?;
    zvol::name(&open_device(link, OFlags::NONBLOCK).ok()?).ok()
}

/// The volume's device, and those of its partitions, which have caches of their own.
fn devices(volume: &str) -> Result<Vec<PathBuf>, Errno> {
    let path = device(volume)?;
    let name = path.file_name().unwrap_or_default().to_owned();
    let mut devices = vec![path];
    for entry in
        fs::read_dir(Path::new("/sys/block").join(&name)).map_err(|error| errno_of(&error))?
    {
        let entry = entry.map_err(|error| errno_of(&error))?;
        if entry.path().join("partition").exists() {
            devices.push(Path::new("/dev").join(entry.file_name()));
        }
    }
    Ok(devices)
}

/// The numbers of a volume's devices, partitions included, where it has some by now.
pub(crate) fn numbers(volume: &str) -> Result<Vec<(u32, u32)>, Errno> {
    let Some(whole) = by_link(volume).map_or_else(|| find(volume), |found| Ok(Some(found)))? else {
        return Ok(Vec::new());
    };
    let directory = Path::new("/sys/block").join(whole.file_name().unwrap_or_default());
    let below = fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let number = |path: PathBuf| {
        let text = fs::read_to_string(path.join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let partitions = below.filter(|path| path.join("partition").exists());
    Ok([directory].into_iter().chain(partitions).filter_map(number).collect())
}

/// Devices of the kernel's that are made of these: of a volume group, for example.
pub(crate) fn claims(devices: &[(u32, u32)]) -> Vec<String> {
    let mut found = Vec::new();
    for (major, minor) in devices {
        let holders = format!("/sys/dev/block/{major}:{minor}/holders");
        let entries = fs::read_dir(holders).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| format!("part of the device {:?}", entry.file_name())));
    }
    found
}

/// Writes what is in the caches of the devices, and in the intent log, to the pool.
pub(crate) fn flush(volume: &str) -> Result<(), Errno> {
    // What is in a partition's cache goes to the volume, not to the whole device's cache.
    devices(volume)?.iter().rev().try_for_each(|path| fsync(open_device(path, OFlags::empty())?))
}

/// Lets go of the devices' cached pages; names those that something has claimed for itself alone, as a
/// mount or a volume group does.
pub(crate) fn let_go_of_pages(volume: &str) -> Result<Vec<PathBuf>, Errno> {
    let mut claimed = Vec::new();
    for path in devices(volume)? {
        match open_device(&path, OFlags::EXCL) {
            Ok(device) => {
                fsync(&device)?;
                fadvise(&device, 0, None, Advice::DontNeed)?;
            }
            Err(Errno::BUSY) => claimed.push(path),
            Err(errno) => return Err(errno),
        }
    }
    // A claimed partition keeps the whole from being claimed as well: the one that is meant is named first.
    claimed.reverse();
    Ok(claimed)
}
