//! What OpenZFS and the kernel of this machine are, and what they can do for a transaction.
//!
//! The module may be of another release than the library, and the library of another than the headers that the
//! bindings were made from. So what the module can do is asked of the module when it matters, never concluded from
//! a version: a channel program is tried, a mount is put beneath another, a feature is looked for in the pool.
//! Versions are for people, for refusing what is too old, and for [known bugs](KnownBug), which nothing else tells.

use std::fmt;
use std::fs;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};
use rustix::system::uname;

use crate::error::OpenError;
use crate::ffi::library::{self, LoadError};
use crate::kernel::is_too_old_for_in_place;
use crate::kernel::plain::is_in_a_container;
use crate::known_bugs::{KnownBug, Version, of_release};

/// Where the module tells its version, as long as it is loaded.
const MODULE_VERSION: &str = "/sys/module/zfs/version";

/// The oldest release: libzfs of 2.1 can't set a mount point without unmounting, and its kernel module knows no
/// delegation to user namespaces.
const OLDEST: Version = Version { major: 2, minor: 2, patch: 0 };

/// A release whose library and module talk to each other in a way of their own: `zfs_cmd_t` has another size in this
/// one alone.
const APART: Version = Version { major: 2, minor: 3, patch: 1 };

/// What [`Zfs::capabilities`](crate::Zfs::capabilities) finds. [`Display`](fmt::Display) prints what a report of a
/// bug needs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The version of OpenZFS's kernel module, such as `2.3.9-1`; `None` where sysfs doesn't tell.
    pub module: Option<String>,
    /// The version of OpenZFS's libraries.
    pub library: String,
    /// The file that libzfs was loaded from, such as `libzfs.so.6`.
    pub library_file: String,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// Whether this process is in a user namespace of its own, as in a container. There a transaction does without
    /// channel programs, by several calls instead, and reaches the datasets alone that were given to the container
    /// (`zfs zone`).
    pub in_a_container: bool,
    /// Whether this process tries to run channel programs, by which several effects share a txg: not in a container.
    /// Where the kernel refuses them (a module without them, a user who may not), all is done by several calls.
    pub channel_programs: bool,
    /// Whether the kernel does what a commit in place needs (Linux 5.14). A pool needs its feature `bookmarks` as well
    /// ([`BeginError::NoBookmarks`](crate::BeginError::NoBookmarks)).
    pub in_place: bool,
    /// Whether mounts are swapped without a moment without a mount (`MOVE_MOUNT_BENEATH`, Linux 6.5); `None` where
    /// the kernel doesn't tell, as this process may not mount.
    pub swaps_without_a_gap: Option<bool>,
}

/// The releases of the two parts of OpenZFS.
#[derive(Debug)]
struct Releases {
    module: Option<String>,
    library: String,
    library_file: &'static str,
}

/// Refuses releases that can't work, and loads the libraries where that hasn't been done. Asks nothing of the kernel
/// but the module's version.
///
/// # Errors
/// Those of [`Zfs::open`](crate::Zfs::open) that are about releases.
pub(crate) fn check_releases() -> Result<(), OpenError> {
    Releases::find()?.check()
}

impl Releases {
    fn find() -> Result<Self, OpenError> {
        let (library_file, library) = library::version().map_err(|error| match error {
            LoadError::Missing(_) => OpenError::NoLibrary { tried: error.to_string() },
            LoadError::TooOld { .. } => OpenError::TooOld { found: error.to_string() },
        })?;
        Ok(Self { module: module_version(), library, library_file })
    }

    fn check(&self) -> Result<(), OpenError> {
        let library = Version::parse(&self.library);
        let module = self.module.as_deref().and_then(Version::parse);
        for (what, version, text) in [
            ("kernel module", module, self.module.as_deref().unwrap_or_default()),
            ("library", library, &*self.library),
        ] {
            if version.is_some_and(|version| version < OLDEST) {
                return Err(OpenError::TooOld { found: format!("the {what} is {text}") });
            }
        }
        if let (Some(module), Some(library)) = (module, library) {
            if module != library && (module == APART || library == APART) {
                let found = format!("the kernel module is {module}, the library {library}");
                return Err(OpenError::Mismatch { found });
            }
        }
        Ok(())
    }
}

impl Capabilities {
    /// Asks the kernel.
    ///
    /// # Errors
    /// Those of [`check_releases`].
    pub(crate) fn find() -> Result<Self, OpenError> {
        let releases = Releases::find()?;
        releases.check()?;
        let in_a_container = is_in_a_container();
        Ok(Self {
            module: releases.module,
            library: releases.library,
            library_file: releases.library_file.to_owned(),
            kernel: uname().release().to_string_lossy().into_owned(),
            in_a_container,
            channel_programs: !in_a_container,
            in_place: !is_too_old_for_in_place(),
            swaps_without_a_gap: swaps_without_a_gap(),
        })
    }

    /// Bugs of OpenZFS that the module's release is known to have, and that a user of this crate may meet. A
    /// distribution may have mended one without another version; none where the version isn't known.
    #[must_use]
    pub fn known_bugs(&self) -> Vec<KnownBug> {
        self.module_release().map(of_release).unwrap_or_default()
    }

    fn module_release(&self) -> Option<Version> {
        self.module.as_deref().and_then(Version::parse)
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "zfs-txn {}", env!("CARGO_PKG_VERSION"))?;
        let module = self.module.as_deref().unwrap_or("unknown");
        writeln!(f, "OpenZFS module {module}, library {} ({})", self.library, self.library_file)?;
        writeln!(f, "Linux {}", self.kernel)?;
        writeln!(f, "in a container: {}", yes(Some(self.in_a_container)))?;
        writeln!(f, "channel programs: {}", yes(Some(self.channel_programs)))?;
        writeln!(f, "commits in place: {}", yes(Some(self.in_place)))?;
        write!(f, "mounts are swapped without a gap: {}", yes(self.swaps_without_a_gap))?;
        if self.module_release().is_none_or(|version| !version.is_release()) {
            write!(f, "\nknown bugs: nothing is known of this version")?;
        }
        for bug in self.known_bugs() {
            write!(f, "\nknown bug: {bug}")?;
        }
        Ok(())
    }
}

fn yes(answer: Option<bool>) -> &'static str {
    match answer {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not known",
    }
}

/// The module's own version, if sysfs is mounted.
fn module_version() -> Option<String> {
    let text = fs::read(MODULE_VERSION).ok()?;
    Some(String::from_utf8_lossy(&text).trim_end().to_owned())
}

/// Asks for a move that can't be made, as there is no mount with an empty path: a kernel that doesn't know the flag
/// refuses the flag (`EINVAL`) before it looks for the mount (`ENOENT`), and each kernel asks for the permission
/// first.
fn swaps_without_a_gap() -> Option<bool> {
    match move_mount(CWD, "", CWD, "", MoveMountFlags::MOVE_MOUNT_BENEATH) {
        Err(Errno::NOENT) => Some(true),
        Err(Errno::INVAL | Errno::NOSYS) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(module: Option<&str>, library: &str) -> Releases {
        let module = module.map(str::to_owned);
        Releases { module, library: library.to_owned(), library_file: "libzfs.so.6" }
    }

    #[test]
    fn what_is_too_old_is_refused_by_name() {
        for (module, library) in [("2.1.11-1", "2.3.9-1"), ("2.3.9-1", "2.1.5"), ("0.8.3", "0.8.3")]
        {
            let error = of(Some(module), library).check().unwrap_err();
            assert!(matches!(error, OpenError::TooOld { .. }), "{error}");
            let old = if module < "2.2" { module } else { library };
            assert!(error.to_string().contains(old), "{error}");
        }
        of(Some("2.2.2-0ubuntu9"), "2.2.2").check().unwrap();
    }

    #[test]
    fn a_module_of_another_release_than_the_library_is_taken_but_for_one() {
        for (module, library) in [("2.3.2-1", "2.2.2"), ("2.2.2", "2.4.4"), ("2.3.1", "2.3.1-2")] {
            of(Some(module), library).check().unwrap();
        }
        for (module, library) in [("2.3.1-1", "2.3.2"), ("2.2.2", "2.3.1")] {
            let error = of(Some(module), library).check().unwrap_err();
            assert!(matches!(error, OpenError::Mismatch { .. }), "{error}");
        }
        // A version that nobody can read is no reason to refuse.
        of(None, "2.3.9").check().unwrap();
        of(Some("n/a"), "git").check().unwrap();
    }

    #[test]
    fn a_report_has_versions_and_bugs() {
        let report = |module: Option<&str>| {
            let capabilities = Capabilities {
                module: module.map(str::to_owned),
                library: "2.3.9-2".to_owned(),
                library_file: "libzfs.so.6".to_owned(),
                kernel: "6.12.1".to_owned(),
                in_a_container: false,
                channel_programs: true,
                in_place: true,
                swaps_without_a_gap: None,
            };
            capabilities.to_string()
        };
        let text = report(Some("2.3.9-1"));
        for part in
            ["module 2.3.9-1", "library 2.3.9-2 (libzfs.so.6)", "Linux 6.12.1", "known bug: "]
        {
            assert!(text.contains(part), "{text}");
        }
        for module in [None, Some("2.4.99-1"), Some("n/a")] {
            let text = report(module);
            assert!(text.contains("nothing is known") && !text.contains("known bug: "), "{text}");
        }
    }
}
