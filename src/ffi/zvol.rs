//! The dataset behind a block device.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, ioctl, opcode};

/// The kernel's buffer for a dataset's name (`ZFS_MAX_DATASET_NAME_LEN`), with its NUL.
type Name = [u8; 256];

/// `BLKZNAME` of `sys/fs/zfs.h`.
const NAME: Opcode = opcode::read::<Name>(0x12, 125);

/// The name of the volume, or of the snapshot of one, that an open block device shows.
///
/// # Errors
///
/// `ENOTTY` where it is not ZFS's.
#[doc(alias = "BLKZNAME")]
pub(crate) fn name(device: impl AsFd) -> Result<String, Errno> {
    // SAFETY: the opcode is BLKZNAME's, for which zvol_ioctl writes as many bytes as `Name` has; on
    // other devices the kernel refuses it.
    let bytes = unsafe { ioctl(device, Getter::<NAME, Name>::new()) }?;
    let end = bytes.iter().position(|&byte| byte == 0).ok_or(Errno::NAMETOOLONG)?;
    String::from_utf8(bytes[..end].to_vec()).map_err(|_| Errno::ILSEQ)
}
