//! Volumes by their block devices: which one it is, a private way to it, and its cached pages.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{Advice, Mode, OFlags, fadvise, fsync, open};
use rustix::io::Errno;

use crate::ffi::zvol;
use crate::mount::{errno_of, make_private_directory};

/// How long to wait for a device: the kernel makes it after the volume, in a thread of its own. In
/// steps that double, 10 s in all.
const WAITS_MS: [u64; 11] = [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120];

/// The block device of a volume, once the kernel has made it, and with it replayed the intent log
/// (`zvol_os_create_minor`).
///
/// # Errors
/// `ENXIO` where it doesn't come: with `volmode=none` there is none.
pub(crate) fn device(volume: &str) -> Result<PathBuf, Errno> {
    for wait in WAITS_MS {
        if let Some(found) = find(volume)? {
            return Ok(found);
        }
        sleep(Duration::from_millis(wait));
    }
    find(volume)?.ok_or(Errno::NXIO)
}

fn find(volume: &str) -> Result<Option<PathBuf>, Errno> {
    let shows = |path: &Path| {
        let name = open_device(path, OFlags::NONBLOCK).and_then(zvol::name);
        name.is_ok_and(|name| name == volume)
    };
    // udev's link, where there is udev and it has come so far.
    let link = Path::new("/dev/zvol").join(volume);
    if let Some(path) = fs::canonicalize(link).ok().filter(|path| shows(path)) {
        return Ok(Some(path));
    }
    for entry in fs::read_dir("/sys/block").map_err(|error| errno_of(&error))? {
        let name = entry.map_err(|error| errno_of(&error))?.file_name();
        let path = Path::new("/dev").join(&name);
        if name.to_string_lossy().starts_with("zd") && shows(&path) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn open_device(path: &Path, how: OFlags) -> Result<OwnedFd, Errno> {
    open(path, OFlags::RDONLY | OFlags::CLOEXEC | how, Mode::empty())
}

/// Makes `at` a link to a volume's device, in a directory where only this user looks.
pub(crate) fn link(volume: &str, at: &Path) -> Result<(), Errno> {
    let device = device(volume)?;
    make_private_directory(at.parent().ok_or(Errno::INVAL)?)?;
    symlink(device, at).map_err(|error| errno_of(&error))
}

/// Writes what is in the device's cache, and in the intent log, to the pool.
pub(crate) fn flush(volume: &str) -> Result<(), Errno> {
    fsync(open_device(&device(volume)?, OFlags::empty())?)
}

/// Lets go of the device's cached pages; names it where something has claimed it for itself alone,
/// as a mount or a volume group does.
pub(crate) fn let_go_of_pages(volume: &str) -> Result<Option<PathBuf>, Errno> {
    let path = device(volume)?;
    match open_device(&path, OFlags::EXCL) {
        Ok(device) => {
            fsync(&device)?;
            fadvise(&device, 0, None, Advice::DontNeed)?;
            Ok(None)
        }
        Err(Errno::BUSY) => Ok(Some(path)),
        Err(errno) => Err(errno),
    }
}
