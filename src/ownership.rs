//! Who owns the committed content: users, groups and modes, applied inside the workspace.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use crate::error::BeginError;

/// The owner, group and mode that a commit gives to the content. What isn't named stays as it is.
///
/// By default it is about the root directory of the dataset; [`Ownership::whole_tree`] makes it
/// about everything in it. Symbolic links are never followed, and what is mounted inside is left
/// alone.
///
/// ```
/// use zfs_txn::Ownership;
///
/// let ownership = Ownership::new().user("www-data").group(1000).mode(0o2775);
/// # let _ = ownership;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Ownership {
    user: Option<Principal>,
    group: Option<Principal>,
    mode: Option<u32>,
    whole_tree: bool,
}

/// A user or group: by name, looked up in the system's databases at begin, or by number.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Principal {
    /// By name.
    Name(String),
    /// By number.
    Id(u32),
}

impl From<&str> for Principal {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<u32> for Principal {
    fn from(id: u32) -> Self {
        Self::Id(id)
    }
}

impl Ownership {
    /// Changes nothing until told what.
    pub fn new() -> Self {
        Self::default()
    }

    /// The owner, by name or number.
    pub fn user(mut self, user: impl Into<Principal>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The group, by name or number.
    pub fn group(mut self, group: impl Into<Principal>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// The permission bits, such as `0o2775`; bits above `0o7777` are ignored.
    ///
    /// For the whole tree it works as `chmod` does with `X`: a file gets the execute bits only if
    /// it had one of them, and set-id and sticky bits go to directories alone.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode & 0o7777);
        self
    }

    /// Apply it to everything in the dataset. Costs a visit to each file.
    pub fn whole_tree(mut self) -> Self {
        self.whole_tree = true;
        self
    }

    /// Looks the names up.
    pub(crate) fn resolve(&self) -> Result<Ids, BeginError> {
        let group = |name: &str| uzers::get_group_by_name(name).map(|group| group.gid());
        let group = |principal: &Principal| principal.resolve("group", group);
        Ok(Ids {
            user: self.user.as_ref().map(Principal::resolve_user).transpose()?,
            group: self.group.as_ref().map(group).transpose()?,
            mode: self.mode,
            whole_tree: self.whole_tree,
        })
    }
}

impl Principal {
    /// The user's number.
    pub(crate) fn resolve_user(&self) -> Result<u32, BeginError> {
        self.resolve("user", |name| uzers::get_user_by_name(name).map(|user| user.uid()))
    }

    fn resolve(
        &self,
        what: &'static str,
        find: impl Fn(&str) -> Option<u32>,
    ) -> Result<u32, BeginError> {
        let (id, name) = match self {
            // All ones means "leave it" to chown(2), so it is nobody's number.
            Self::Id(u32::MAX) => (None, "-1"),
            Self::Id(id) => (Some(*id), ""),
            Self::Name(name) => (find(name).filter(|id| *id != u32::MAX), name.as_str()),
        };
        id.ok_or_else(|| BeginError::UnknownPrincipal { what, name: name.to_owned() })
    }
}

/// An [`Ownership`] with its names looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ids {
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) mode: Option<u32>,
    pub(crate) whole_tree: bool,
}

impl Ids {
    /// Applies it to the directory `root`.
    pub(crate) fn apply(&self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(root)?;
        if self.whole_tree {
            self.apply_below(root, stat.st_dev)?;
        }
        self.apply_to_opened(root, &stat)
    }

    /// Visits directories breadth first, each by its path from the root's descriptor, so that a
    /// deep tree needs no more than two descriptors at a time.
    fn apply_below(&self, root: BorrowedFd<'_>, device: u64) -> Result<(), Errno> {
        let mut pending = VecDeque::from([OsString::from(".")]);
        while let Some(path) = pending.pop_front() {
            let directory = open_directory(root, &path, device)?;
            for entry in Dir::read_from(&directory)? {
                let entry = entry?;
                let name = entry.file_name();
                // With snapdir=visible the root lists ZFS's own directory, too.
                let control = path == "." && name.to_bytes() == b".zfs";
                if control || matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if stat.st_dev != device {
                    continue;
                }
                self.apply_to_entry(&directory, name, &stat)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    let mut below = path.clone().into_vec();
                    below.push(b'/');
                    below.extend_from_slice(name.to_bytes());
                    pending.push_back(OsString::from_vec(below));
                }
            }
        }
        Ok(())
    }

    fn apply_to_entry(
        &self,
        directory: &OwnedFd,
        name: &std::ffi::CStr,
        stat: &Stat,
    ) -> Result<(), Errno> {
        let (user, group) = self.owner();
        rustix::fs::chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
        // A link has no mode of its own; fchmodat would follow it.
        match self.mode_for(stat) {
            Some(mode) if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink => {
                rustix::fs::chmodat(directory, name, mode, AtFlags::empty())
            }
            _ => Ok(()),
        }
    }

    fn apply_to_opened(&self, fd: impl AsFd, stat: &Stat) -> Result<(), Errno> {
        let (user, group) = self.owner();
        rustix::fs::fchown(&fd, user, group)?;
        self.mode_for(stat).map_or(Ok(()), |mode| rustix::fs::fchmod(&fd, mode))
    }

    fn owner(&self) -> (Option<Uid>, Option<Gid>) {
        (self.user.map(Uid::from_raw), self.group.map(Gid::from_raw))
    }

    /// The mode to set; after a change of owner the kernel may have cleared the set-id bits, so
    /// those of the old mode are set again where no mode was asked for.
    fn mode_for(&self, stat: &Stat) -> Option<Mode> {
        let had = stat.st_mode & 0o7777;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let bits = match self.mode {
            Some(mode) if directory => mode,
            Some(mode) if had & 0o111 != 0 => mode & 0o777,
            Some(mode) => mode & 0o666,
            None if had & 0o6000 != 0 => had,
            None => return None,
        };
        Some(Mode::from_raw_mode(bits))
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory below `root`, refusing links and other file systems on the way.
fn open_directory(root: BorrowedFd<'_>, path: &OsString, device: u64) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let directory = rustix::fs::openat2(root, path, DIRECTORY, Mode::empty(), resolve)?;
    match rustix::fs::fstat(&directory)?.st_dev == device {
        true => Ok(directory),
        false => Err(Errno::XDEV),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn apply(ownership: &Ownership, root: &Path) {
        let root = rustix::fs::open(root, DIRECTORY, Mode::empty()).unwrap();
        ownership.resolve().unwrap().apply(root.as_fd()).unwrap();
    }

    fn own_ids() -> Ownership {
        let meta = fs::metadata("/proc/self").unwrap();
        Ownership::new().user(meta.uid()).group(meta.gid())
    }

    #[test]
    fn the_root_alone_unless_the_whole_tree_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        apply(&own_ids().mode(0o2775), dir.path());
        assert_eq!((mode(dir.path()), mode(&file)), (0o2775, 0o600));
    }

    #[test]
    fn a_tree_is_changed_without_following_links_and_files_get_no_new_execute_bit() {
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        fs::write(&secret, "x").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("a/b");
        fs::create_dir_all(&sub).unwrap();
        let (data, program) = (sub.join("data"), sub.join("program"));
        for (path, bits) in [(&data, 0o600), (&program, 0o700)] {
            fs::write(path, "x").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
        }
        symlink(&secret, dir.path().join("link")).unwrap();
        symlink(outside.path(), dir.path().join("dirlink")).unwrap();
        apply(&own_ids().mode(0o2775).whole_tree(), dir.path());
        assert_eq!(mode(&sub), 0o2775);
        assert_eq!(mode(&data), 0o664);
        assert_eq!(mode(&program), 0o775);
        assert_eq!(mode(&secret), 0o600);
        assert_ne!(mode(outside.path()), 0o2775);
    }

    #[test]
    fn unknown_names_are_errors_and_known_ones_are_found() {
        assert_eq!(Ownership::new().user("root").group("root").resolve().unwrap().user, Some(0));
        let error = Ownership::new().group("no such group").resolve().unwrap_err();
        assert!(error.to_string().contains("no group"), "{error}");
        assert!(Ownership::new().user(u32::MAX).resolve().is_err());
    }
}
