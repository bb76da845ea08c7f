//! [`Errno`]: what a call into the kernel failed with.

use std::fmt;
use std::io;

use rustix::io::Errno as Os;

/// An error number from the kernel's ZFS module: the operating system's, or one of ZFS's own above 1023.
///
/// Unknown numbers are kept as they are; they display as a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

impl Errno {
    /// The number itself.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// Wraps a number that a C function returned.
    pub(crate) const fn from_raw(raw: i32) -> Self {
        Self(raw)
    }
}

/// The operating system's numbers, as far as ZFS calls use them.
macro_rules! os_codes {
    ($($(#[$cfg:meta])* $name:ident = $os:expr, $doc:literal;)*) => {
        impl Errno {$(
            #[doc = $doc]
            $(#[$cfg])*
            pub const $name: Self = Self($os.raw_os_error());
        )*}
    };
}

os_codes! {
    NOENT = Os::NOENT, "There is no such dataset, snapshot, bookmark, hold or file (`ENOENT`).";
    EXIST = Os::EXIST, "The name is taken, or dependents exist (`EEXIST`).";
    BUSY = Os::BUSY, "Mounted, held or otherwise in use (`EBUSY`).";
    PERM = Os::PERM, "Not permitted (`EPERM`).";
    ACCES = Os::ACCESS, "Permission denied, or an encryption key is missing (`EACCES`).";
    INVAL = Os::INVAL, "An argument doesn't fit the operation (`EINVAL`).";
    NOMEM = Os::NOMEM, "Out of memory (`ENOMEM`).";
    NOSPC = Os::NOSPC, "Out of space, in the pool or a quota (`ENOSPC`).";
    DQUOT = Os::DQUOT, "A quota is exceeded (`EDQUOT`).";
    XDEV = Os::XDEV, "The names are in different pools (`EXDEV`).";
    NAMETOOLONG = Os::NAMETOOLONG, "A name is too long (`ENAMETOOLONG`).";
    ROFS = Os::ROFS, "The pool or dataset is read-only (`EROFS`).";
    AGAIN = Os::AGAIN, "Try again: the pool is suspended, or no thread can be started (`EAGAIN`).";
    INTR = Os::INTR, "A signal interrupted the operation (`EINTR`).";
    TXTBSY = Os::TXTBSY, "The dataset was changed since its latest snapshot (`ETXTBSY`).";
    NODEV = Os::NODEV, "An incremental stream doesn't fit the dataset's snapshots (`ENODEV`).";
    NXIO = Os::NXIO, "No such device: the kernel module isn't loaded (`ENXIO`).";
    IO = Os::IO, "Input/output error (`EIO`).";
    BADF = Os::BADF, "A file descriptor is unsuitable (`EBADF`).";
    PIPE = Os::PIPE, "The reader of a stream went away (`EPIPE`).";
    TOOBIG = Os::TOOBIG, "A value is too large (`E2BIG`).";
    ILSEQ = Os::ILSEQ, "Bytes are not valid in this place (`EILSEQ`).";
    NOTSUP = Os::NOTSUP, "Not supported, for instance by the pool's version (`ENOTSUP`).";
    SRCH = Os::SRCH, "No such hold (`ESRCH`).";
    STALE = Os::STALE, "The name belongs to another dataset than the one that is meant (`ESTALE`).";
    CANCELED = Os::CANCELED, "Cancelled (`ECANCELED`).";
}

// FreeBSD lacks the next three; OpenZFS substitutes others there.
#[cfg(target_os = "linux")]
os_codes! {
    CHRNG = Os::CHRNG, "A channel program raised an error while running (`ECHRNG`).";
    TIME = Os::TIME, "A channel program exceeded its instruction limit (`ETIME`).";
    CKSUM = Os::BADE, "A checksum doesn't match (`ECKSUM`).";
}
#[cfg(not(target_os = "linux"))]
os_codes! {
    CHRNG = Os::NXIO, "A channel program raised an error while running (`ECHRNG`).";
    TIME = Os::TIMEDOUT, "A channel program exceeded its instruction limit (`ETIME`).";
}

/// ZFS's own numbers (`zfs_errno_t`), the same in every release that has them.
macro_rules! zfs_codes {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Errno {$(
            #[doc = concat!("ZFS: ", $text, " (`", stringify!($name), "`).")]
            pub const $name: Self = Self($value);
        )*}

        const fn zfs_text(raw: i32) -> Option<&'static str> {
            match raw {
                $($value => Some($text),)*
                _ => None,
            }
        }
    };
}

zfs_codes! {
    ZFS_ERR_CHECKPOINT_EXISTS = 1024, "the pool already has a checkpoint";
    ZFS_ERR_DISCARDING_CHECKPOINT = 1025, "the pool's checkpoint is being discarded";
    ZFS_ERR_NO_CHECKPOINT = 1026, "the pool has no checkpoint";
    ZFS_ERR_DEVRM_IN_PROGRESS = 1027, "a device is being removed from the pool";
    ZFS_ERR_VDEV_TOO_BIG = 1028, "a device is larger than the pool can hold";
    ZFS_ERR_IOC_CMD_UNAVAIL = 1029, "the loaded kernel module doesn't know this operation";
    ZFS_ERR_IOC_ARG_UNAVAIL = 1030, "the loaded kernel module doesn't know an argument of this operation";
    ZFS_ERR_IOC_ARG_REQUIRED = 1031, "a required argument of this operation is missing";
    ZFS_ERR_IOC_ARG_BADTYPE = 1032, "an argument of this operation has the wrong type";
    ZFS_ERR_WRONG_PARENT = 1033, "a dataset of this type can't have children";
    ZFS_ERR_FROM_IVSET_GUID_MISSING = 1034, "the encrypted stream's source snapshot carries no ivset guid";
    ZFS_ERR_FROM_IVSET_GUID_MISMATCH = 1035, "the encrypted stream's source is not the snapshot it has to apply to";
    ZFS_ERR_SPILL_BLOCK_FLAG_MISSING = 1036, "the stream lacks the spill block flag";
    ZFS_ERR_UNKNOWN_SEND_STREAM_FEATURE = 1037, "the stream uses a feature that the kernel module doesn't know";
    ZFS_ERR_EXPORT_IN_PROGRESS = 1038, "the pool is being exported";
    ZFS_ERR_BOOKMARK_SOURCE_NOT_ANCESTOR = 1039, "the bookmark's source is neither in its dataset nor an ancestor of it";
    ZFS_ERR_STREAM_TRUNCATED = 1040, "the stream ended early";
    ZFS_ERR_STREAM_LARGE_BLOCK_MISMATCH = 1041, "the stream doesn't allow the large blocks that the dataset already has";
    ZFS_ERR_RESILVER_IN_PROGRESS = 1042, "a resilver is running";
    ZFS_ERR_REBUILD_IN_PROGRESS = 1043, "a rebuild is running";
    ZFS_ERR_BADPROP = 1044, "a property is invalid";
    ZFS_ERR_VDEV_NOTSUP = 1045, "this type of device doesn't support the operation";
    ZFS_ERR_NOT_USER_NAMESPACE = 1046, "the file is not a user namespace";
    ZFS_ERR_RESUME_EXISTS = 1047, "a partly received state exists already";
    ZFS_ERR_CRYPTO_NOTSUP = 1048, "the kernel can't do this encryption";
    ZFS_ERR_RAIDZ_EXPAND_IN_PROGRESS = 1049, "a raidz device is being expanded";
    ZFS_ERR_ASHIFT_MISMATCH = 1050, "the devices' sector sizes differ";
    ZFS_ERR_STREAM_LARGE_MICROZAP = 1051, "the stream needs large microzap blocks, which weren't allowed";
    ZFS_ERR_TOO_MANY_SITOUTS = 1052, "too many devices are sitting out reads";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = zfs_text(self.0) {
            return f.write_str(text);
        }
        let text = io::Error::from_raw_os_error(self.0).to_string();
        // The number that std appends is in Debug; a sentence reads better without it.
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl From<Os> for Errno {
    fn from(errno: Os) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<Errno> for io::Error {
    /// ZFS's own numbers mean nothing to the operating system: they become [`io::ErrorKind::Other`].
    fn from(errno: Errno) -> Self {
        match zfs_text(errno.0) {
            Some(text) => Self::other(text),
            None => Self::from_raw_os_error(errno.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_without_numbers() {
        assert_eq!(Errno::NOENT.to_string(), "No such file or directory");
        assert_eq!(
            Errno::ZFS_ERR_WRONG_PARENT.to_string(),
            "a dataset of this type can't have children"
        );
        assert_eq!(format!("{:?}", Errno::BUSY), "Errno(16: Device or resource busy)");
        assert!(Errno::from_raw(4_000).to_string().contains("4000"));
    }

    #[test]
    fn converts_to_io_error_and_from_rustix() {
        assert_eq!(io::Error::from(Errno::EXIST).kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(io::Error::from(Errno::ZFS_ERR_BADPROP).kind(), io::ErrorKind::Other);
        assert_eq!(Errno::from(Os::XDEV), Errno::XDEV);
        assert_eq!(Errno::XDEV.raw(), Os::XDEV.raw_os_error());
    }
}
