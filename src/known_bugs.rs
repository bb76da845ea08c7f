//! Bugs of OpenZFS by release, as far as a user of this crate may meet them: read in the sources of the releases'
//! tags. `docs/design.md` has the details, and the bugs that the crate goes around by itself.

use std::fmt;

/// A release: `2.3.9` of `2.3.9-1+deb13u1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) patch: u32,
}

impl Version {
    /// Reads the three numbers that a version begins with.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = text[..end].split('.').map(|number| number.parse().ok());
        Some(Self {
            major: numbers.next()??,
            minor: numbers.next()??,
            // A development version may have two.
            patch: numbers.next().flatten().unwrap_or(0),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The numbers of a release from 2.2 on, without the 2.
type Release = (u32, u32);

/// A bug of OpenZFS that the crate can't keep from its user.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownBug {
    /// What may happen, to whom, and what helps.
    pub what: &'static str,
    /// Where OpenZFS speaks of the bug: an issue, a pull request, or the function that has it.
    pub upstream: &'static str,
    /// The releases that have it: from the first on, and before the second.
    releases: &'static [(Release, Release)],
}

impl fmt::Display for KnownBug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.upstream)
    }
}

const BUGS: &[KnownBug] = &[
    KnownBug {
        what: "in place: whoever is the first to look into one of the target's `.zfs/snapshot/*` while a commit ends \
               may bring the machine to a standstill; keep walks through `.zfs/snapshot` away from commits, or set \
               `snapdir=disabled` (OpenZFS 2.3)",
        upstream: "openzfs/zfs#18409",
        releases: &[((2, 0), (4, 2))],
    },
    KnownBug {
        what: "in place: a POSIX access list that a commit changes counts as it was before, for files that are in the \
               kernel's cache; commit by promote where a right is taken away",
        upstream: "openzfs/zfs#18837",
        releases: &[((2, 0), (3, 9)), ((4, 0), (4, 4))],
    },
    KnownBug {
        what: "a write may be refused with EINVAL (with encryption: EIO) beside a truncation of the same file; write \
               again",
        upstream: "dbuf_read_hole, since openzfs/zfs#18724",
        // Not mended yet: that the next releases are free of the bug is a guess.
        releases: &[((3, 9), (3, 10)), ((4, 4), (4, 5))],
    },
    KnownBug {
        what: "root of any container may run channel programs on every pool (CVE-2026-79619); update OpenZFS",
        upstream: "openzfs/zfs#18959",
        releases: &[((2, 0), (2, 11)), ((3, 0), (3, 9)), ((4, 0), (4, 4))],
    },
    KnownBug {
        what: "in place, volumes: the receive and an open of a volume with `snapdev=visible` wait for each other; such \
               targets are refused",
        upstream: "openzfs/zfs#17923",
        releases: &[((2, 0), (4, 0))],
    },
    KnownBug {
        what: "exporting a pool hangs while one of its volumes is open; end transactions on volumes first",
        upstream: "openzfs/zfs#18841",
        releases: &[((2, 7), (4, 4))],
    },
    KnownBug {
        what: "promote: a target with bookmarks keeps `feature@bookmark_v2` of the pool active for good, and boot loaders \
               refuse such a pool; commit in place where a boot loader reads the pool",
        upstream: "dsl_bookmark_node_add, called by dsl_dataset_promote_sync",
        // Not mended in any release, nor in master of August 2026.
        releases: &[((2, 0), (5, 0))],
    },
    KnownBug {
        what: "what was stored through a mapping may miss a snapshot, and with it a commit; write with write(2)",
        upstream: "zfs_putpage, deb7a84231",
        releases: &[((2, 0), (2, 4))],
    },
    KnownBug {
        what: "promote, with `feature@head_errlog`: memory is used after it was freed, in the kernel; commit in place, \
               or update OpenZFS",
        upstream: "dsl_dataset_promote_sync, 54ef0fdf60",
        releases: &[((2, 0), (2, 5))],
    },
    KnownBug {
        what: "in place: a chmod, chown or truncate in the target while a commit ends may use freed memory, in the \
               kernel; update OpenZFS",
        upstream: "zfs_setattr, 22e4f08c30",
        releases: &[((2, 0), (2, 3))],
    },
];

/// What a development version calls itself, whatever has been mended in it.
const DEVELOPMENT: u32 = 99;

impl Version {
    /// Whether it is a release, of which something is known.
    pub(crate) fn is_release(self) -> bool {
        self.patch != DEVELOPMENT
    }
}

/// What a release has. Of development versions nothing is known.
pub(crate) fn of_release(version: Version) -> Vec<KnownBug> {
    let release = (version.minor, version.patch);
    let has =
        |bug: &&KnownBug| bug.releases.iter().any(|(from, to)| (*from..*to).contains(&release));
    match version.major {
        2 if version.is_release() => BUGS.iter().filter(has).cloned().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_distributions_write_it() {
        let read = |text| Version::parse(text).map(|version| version.to_string());
        assert_eq!(read("2.3.9-1+deb13u1").as_deref(), Some("2.3.9"));
        assert_eq!(read("2.2.2-0ubuntu9.4").as_deref(), Some("2.2.2"));
        assert_eq!(read("2.4.99-1").as_deref(), Some("2.4.99"));
        assert_eq!(read("zfs-kmod-2.3.9-1"), None);
        assert_eq!(read("2.4.0rc1").as_deref(), Some("2.4.0"));
        for text in ["", "2", "x.y.z", "2..1", "99999999999.1"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_bug_is_told_for_the_releases_that_have_it_and_no_others() {
        let has = |version: &str, upstream: &str| {
            let bugs = of_release(Version::parse(version).unwrap());
            bugs.iter().any(|bug| bug.upstream.contains(upstream))
        };
        let acl = "#18837";
        for version in ["2.2.2", "2.2.11", "2.3.0", "2.3.8", "2.4.0", "2.4.3"] {
            assert!(has(version, acl), "{version}");
        }
        for version in ["2.3.9", "2.4.4", "2.5.0", "3.0.0"] {
            assert!(!has(version, acl), "{version}");
        }
        assert!(has("2.3.9", "#18724") && has("2.4.4", "#18724"));
        assert!(!has("2.3.8", "#18724") && !has("2.4.3", "#18724"));
        assert!(has("2.3.9", "#18409") && !has("2.4.2", "#18409"));
        assert!(!has("2.2.6", "#18841") && has("2.2.7", "#18841"));
        assert!(has("2.2.0", "dsl_bookmark_node_add") && has("2.4.4", "dsl_bookmark_node_add"));
        for version in ["2.2.99", "2.3.99", "2.4.99"] {
            assert!(of_release(Version::parse(version).unwrap()).is_empty(), "{version}");
        }
    }

    #[test]
    fn ranges_are_in_order() {
        for bug in BUGS {
            let ends: Vec<_> = bug.releases.iter().flat_map(|(from, to)| [from, to]).collect();
            assert!(ends.is_sorted_by(|one, other| one < other), "{bug}");
        }
    }
}
