//! The OpenZFS release lines that tests run on: one row each, all from Debian's packages.

use anyhow::{Result, anyhow};

/// One source package taken from another suite than the rest of the tree.
#[derive(Debug)]
pub(crate) struct Pin {
    /// The suite to take it from, such as a backports suite.
    pub(crate) suite: &'static str,
    /// The source package, as apt preferences name it.
    pub(crate) package: &'static str,
}

/// How a root tree with one OpenZFS release line is put together.
#[derive(Debug)]
pub(crate) struct Line {
    /// The line, as `--zfs` names it.
    pub(crate) zfs: &'static str,
    /// What its releases begin with: a mirror may have gone on to others.
    pub(crate) release: &'static str,
    /// The Debian suite of everything not pinned.
    pub(crate) suite: &'static str,
    /// Where OpenZFS itself comes from, when not from `suite`.
    pub(crate) pin: Option<Pin>,
    /// Packages of the tree: a kernel with its headers, ZFS as dkms source, libraries, tools.
    pub(crate) packages: &'static [&'static str],
}

const PACKAGES: &[&str] = &[
    "zfs-dkms",
    "linux-image-cloud-amd64",
    "linux-headers-cloud-amd64",
    "libzfslinux-dev",
    "zfsutils-linux",
    "gcc",
    "libc6-dev",
    "pkg-config",
    "busybox-static",
    "kmod",
];

/// All lines; the first is the default.
pub(crate) const LINES: &[Line] = &[
    Line { zfs: "2.3", release: "2.3.", suite: "trixie", pin: None, packages: PACKAGES },
    // The same kernel with a newer module: another order of locks for volumes, mounts by the kernel's own way.
    Line {
        zfs: "2.4",
        release: "2.4.",
        suite: "trixie",
        pin: Some(Pin { suite: "trixie-backports", package: "src:zfs-linux" }),
        packages: PACKAGES,
    },
    // All that is old at once: Linux 6.1 puts no mount beneath another, and the module has bugs that were mended.
    Line {
        zfs: "2.3.2",
        release: "2.3.2",
        suite: "bookworm",
        pin: Some(Pin { suite: "bookworm-backports", package: "src:zfs-linux" }),
        packages: PACKAGES,
    },
    // What breaks next.
    Line { zfs: "newest", release: "2.", suite: "forky", pin: None, packages: PACKAGES },
];

/// The lines that `zfs` names, in this order, with commas between them; or all.
pub(crate) fn chosen(zfs: &str) -> Result<Vec<&'static Line>> {
    match zfs {
        "all" => Ok(LINES.iter().collect()),
        some => some.split(',').map(find).collect(),
    }
}

/// The row for `zfs`.
pub(crate) fn find(zfs: &str) -> Result<&'static Line> {
    LINES.iter().find(|line| line.zfs == zfs).ok_or_else(|| {
        let known: Vec<_> = LINES.iter().map(|line| line.zfs).collect();
        anyhow!("no OpenZFS line {zfs:?}; known: {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_found_by_its_name_and_only_once() {
        for line in LINES {
            assert_eq!(LINES.iter().filter(|other| other.zfs == line.zfs).count(), 1);
            assert_eq!(find(line.zfs).unwrap().suite, line.suite);
        }
    }

    #[test]
    fn several_lines_are_chosen_in_order() {
        let names =
            |zfs| chosen(zfs).map(|lines| lines.iter().map(|line| line.zfs).collect::<Vec<_>>());
        assert_eq!(names("2.4,2.3").unwrap(), ["2.4", "2.3"]);
        assert_eq!(names("all").unwrap().len(), LINES.len());
        assert!(names("2.4,").is_err());
    }

    #[test]
    fn an_unknown_line_is_refused_with_the_known_ones() {
        assert!(find("0.8").unwrap_err().to_string().contains("2.3"));
    }
}
