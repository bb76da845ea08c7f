//! What a file has beside its status: flags and a project, which can be changed without moving its
//! change time.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, ioctl, opcode};

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extended {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

/// `FS_IOC_FSGETXATTR`.
const EXTENDED: Opcode = opcode::read::<Extended>(b'X', 31);
/// `ZFS_IOC_GETDOSFLAGS` of `sys/fs/zfs.h`.
const DOS: Opcode = opcode::read::<u64>(0x83, 1);

/// A file's flags (chattr(1)), its project, and what Samba keeps of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Attributes {
    flags: u32,
    project: u32,
    dos: u64,
}

/// The attributes of an open file or directory; nothing where the file system has none.
pub(crate) fn attributes(file: impl AsFd) -> Result<Attributes, Errno> {
    // SAFETY: the opcode is FS_IOC_FSGETXATTR's, for which the kernel writes a `struct fsxattr`.
    let extended = known(unsafe { ioctl(&file, Getter::<EXTENDED, Extended>::new()) })?;
    // SAFETY: the opcode is ZFS_IOC_GETDOSFLAGS's, for which ZFS writes 64 bits.
    let dos = known(unsafe { ioctl(&file, Getter::<DOS, u64>::new()) })?.unwrap_or(0);
    let (flags, project) = extended.map_or((0, 0), |extended| (extended.flags, extended.project));
    Ok(Attributes { flags, project, dos })
}

/// `None` where the file system doesn't know what is asked for.
fn known<T>(answer: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Errno::NOTTY | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}
