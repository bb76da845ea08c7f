//! Whether something can be mounted at a path, found out without changing anything.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, open};
use rustix::io::Errno;

use super::{below, errno_of, is_empty, table};
use crate::engine::Unfit;
use crate::name::DatasetName;

/// What keeps a dataset from being mounted at `path`, as `zfs mount` does: its directory is made if it
/// isn't there. `overlay` says whether it may hide what is in the directory.
pub(crate) fn unmountable(path: &Path, overlay: bool) -> Result<Option<Unfit>, Errno> {
    let unfit = |path: &Path, reason| Ok(Some(Unfit { path: path.to_owned(), reason }));
    match fs::canonicalize(path) {
        Ok(real) => {
            if let Some(below) = below(&table()?, &real).first() {
                return unfit(below, "is mounted below it, and would be hidden");
            }
            match open(&real, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(directory) if !overlay && !is_empty(&directory)? => {
                    unfit(path, "is not empty, which overlay=off forbids")
                }
                Ok(_) => Ok(None),
                Err(Errno::NOTDIR) => unfit(path, "is no directory"),
                Err(errno) => Err(errno),
            }
        }
        Err(error) => match errno_of(&error) {
            Errno::NOENT | Errno::LOOP if fs::symlink_metadata(path).is_ok() => {
                unfit(path, "is a symbolic link that leads nowhere")
            }
            Errno::NAMETOOLONG => unfit(path, "is too long"),
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => match path.parent() {
                Some(parent) => cannot_be_made_in(parent),
                None => unfit(path, "doesn't exist"),
            },
            errno => Err(errno),
        },
    }
}

/// What keeps a directory from being made in `parent`, which is made as well if it isn't there.
fn cannot_be_made_in(parent: &Path) -> Result<Option<Unfit>, Errno> {
    let unfit = |reason| Ok(Some(Unfit { path: parent.to_owned(), reason }));
    match fs::metadata(parent) {
        Ok(there) if !there.is_dir() => return unfit("is no directory"),
        Ok(_) => {}
        Err(error) => match (errno_of(&error), parent.parent()) {
            (Errno::NOENT | Errno::LOOP, _) if fs::symlink_metadata(parent).is_ok() => {
                return unfit("is a symbolic link that leads nowhere");
            }
            (Errno::NOENT | Errno::NOTDIR | Errno::LOOP, Some(above)) => {
                return cannot_be_made_in(above);
            }
            (Errno::NAMETOOLONG, _) => return unfit("is too long"),
            (errno, _) => return Err(errno),
        },
    }
    match accessat(CWD, parent, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => Ok(None),
        Err(Errno::ROFS) => unfit("is on a file system that is read-only"),
        // Such as an immutable one.
        Err(Errno::PERM | Errno::ACCESS) => unfit("is a directory in which no other can be made"),
        Err(errno) => Err(errno),
    }
}

/// The mount point that a workspace has under the name of its target, if it inherits the one that it has.
pub(crate) fn under_name(path: &Path, workspace: &DatasetName, target: &DatasetName) -> PathBuf {
    // The workspace's name has the transaction's id in it: no path of somebody's choice ends with that.
    match path.file_name() == Some(workspace.leaf().as_ref()) {
        true => path.with_file_name(target.leaf()),
        false => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_place_that_can_be_mounted_on_is_told_from_one_that_can_t() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("full/deep")).unwrap();
        fs::create_dir(top.join("empty")).unwrap();
        fs::write(top.join("file"), "").unwrap();
        symlink(top.join("nowhere"), top.join("dangling")).unwrap();
        symlink(top.join("full"), top.join("link")).unwrap();
        symlink("circle", top.join("circle")).unwrap();
        for (path, overlay, named) in [
            ("full", true, None),
            ("full", false, Some("full")),
            ("link", true, None),
            ("link", false, Some("link")),
            ("link/deep", false, None),
            ("empty", false, None),
            ("new", false, None),
            ("new/deeper/still", false, None),
            ("link/new", false, None),
            ("file", true, Some("file")),
            ("file/below", true, Some("file")),
            ("file/below/deep", true, Some("file")),
            ("dangling", true, Some("dangling")),
            ("dangling/below", true, Some("dangling")),
            ("circle", true, Some("circle")),
            ("circle/below", true, Some("circle")),
        ] {
            let unfit = unmountable(&top.join(path), overlay).unwrap();
            assert_eq!(unfit.map(|unfit| unfit.path), named.map(|named| top.join(named)), "{path}");
        }
        assert!(!top.join("new").exists());
        let proc = unmountable(Path::new("/"), true).unwrap().unwrap();
        assert!(proc.reason.contains("mounted below"), "{proc:?}");
    }
}
