//! Paths below a directory, of any length.
//!
//! The kernel takes paths of up to 4,095 bytes; trees may be deeper.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// The longest part of a path that is passed in one call.
const PART: usize = 3072;

/// A path below a directory; empty for the directory itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Below(Vec<u8>);

impl Below {
    pub(crate) fn root() -> Self {
        Self(Vec::new())
    }

    /// The entry of this name in the directory that the path leads to.
    pub(crate) fn join(&self, name: &[u8]) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self(path)
    }

    /// The path in parts, each of which the kernel takes.
    fn parts(&self) -> Vec<&[u8]> {
        let mut parts = Vec::new();
        let mut rest = &self.0[..];
        while rest.len() > PART {
            // No name is as long as a part.
            let Some(end) = rest[..PART].iter().rposition(|byte| *byte == b'/') else { break };
            parts.push(&rest[..end]);
            rest = &rest[end + 1..];
        }
        parts.push(if rest.is_empty() { b"." } else { rest });
        parts
    }
}

impl From<Below> for PathBuf {
    fn from(path: Below) -> Self {
        OsString::from_vec(path.0).into()
    }
}

/// Opens what a path leads to, for reading; no link is followed, and no other file system entered.
pub(crate) fn open_below(
    root: BorrowedFd<'_>,
    path: &Below,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let open = |root: BorrowedFd<'_>, part: &[u8], flags: OFlags| {
        // A signal, or a rename of something else, may come in between.
        loop {
            match openat2(root, part, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                opened => return opened,
            }
        }
    };
    let parts = path.parts();
    let Some((last, directories)) = parts.split_last() else { return Err(Errno::INVAL) };
    let mut at: Option<OwnedFd> = None;
    for part in directories {
        let root = at.as_ref().map_or(root, AsFd::as_fd);
        at = Some(open(root, part, OFlags::PATH | OFlags::DIRECTORY)?);
    }
    open(at.as_ref().map_or(root, AsFd::as_fd), last, flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_is_taken_in_parts() {
        let mut path = Below::root();
        assert_eq!(path.parts(), [b"."]);
        for number in 0..100 {
            path = path.join(format!("{number:0200}").as_bytes());
        }
        let parts = path.parts();
        assert!(parts.len() > 5 && parts.iter().all(|part| part.len() <= PART));
        assert_eq!(parts.join(&b'/'), path.0);
    }
}
