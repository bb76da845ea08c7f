//! What all mounts of a dataset have in common, because they share one file system: it counts when the
//! first of them is made, and is what `zfs mount` passes besides the mount's own options
//! (`zfs_adjust_mount_options`).

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::mount::fsconfig_set_string;

/// SELinux contexts, by the names of the options.
pub(crate) type Contexts = Vec<(&'static str, String)>;

/// What the first mount of a dataset is given for all of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared {
    /// Where the dataset is seen: below it ZFS mounts the snapshots into which somebody looks. From OpenZFS 2.2.7
    /// on this counts for processes in a chroot alone, before for all (`zfsctl_snapshot_mount`).
    pub(crate) seen_at: Option<PathBuf>,
    /// SELinux refuses mounts of one file system that don't have the same.
    pub(crate) contexts: Contexts,
}

impl Shared {
    pub(super) fn set(&self, context: BorrowedFd<'_>) -> Result<(), Errno> {
        for (option, value) in &self.contexts {
            fsconfig_set_string(context, *option, value.as_str())?;
        }
        if let Some(path) = &self.seen_at {
            // A hint: the kernel takes no strings of more than 255 bytes here, and before 2.3.7 and 2.4.2
            // no commas.
            let set = fsconfig_set_string(context, "mntpoint", path.as_path());
            if let Err(errno) = set {
                tracing::debug!(path = %path.display(), %errno, "the mount doesn't know its place");
            }
        }
        Ok(())
    }
}

/// The contexts that a dataset's properties ask for: one for everything, or up to three.
pub(crate) fn contexts(property: impl Fn(&str) -> Option<String>) -> Contexts {
    let set = |name: &'static str| {
        property(name).filter(|value| value != "none").map(|value| (name, value))
    };
    match set("context") {
        Some(all) => vec![all],
        None => ["fscontext", "defcontext", "rootcontext"].into_iter().filter_map(set).collect(),
    }
}

/// Whether this kernel takes contexts: else they have no effect.
pub(crate) fn has_contexts() -> bool {
    static SELINUX: OnceLock<bool> = OnceLock::new();
    *SELINUX.get_or_init(|| {
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        known.lines().any(|line| line.ends_with("\tselinuxfs"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_context_for_all_excludes_the_others() {
        let of = |set: &[(&str, &str)]| {
            contexts(|name| {
                let found = set.iter().find(|(property, _)| *property == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[]), []);
        let (all, root) = ("u:object_r:web_t:s0:c1,c2", "u:object_r:root_t:s0");
        assert_eq!(of(&[("context", all), ("rootcontext", root)]), [("context", all.to_owned())]);
        let three = [("context", "none"), ("defcontext", "none"), ("rootcontext", root)];
        assert_eq!(of(&three), [("rootcontext", root.to_owned())]);
        let both = [("rootcontext", root), ("fscontext", all)];
        assert_eq!(of(&both), [("fscontext", all.to_owned()), ("rootcontext", root.to_owned())]);
    }
}
