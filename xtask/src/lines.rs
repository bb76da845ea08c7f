//! The OpenZFS release lines that tests run on: one row each.

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
    /// The release line, as `--zfs` names it.
    pub(crate) zfs: &'static str,
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
pub(crate) const LINES: &[Line] =
    &[Line { zfs: "2.3", suite: "trixie", pin: None, packages: PACKAGES }];

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
    fn an_unknown_line_is_refused_with_the_known_ones() {
        assert!(find("0.8").unwrap_err().to_string().contains("2.3"));
    }
}
