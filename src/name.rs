//! Names of datasets, snapshots, bookmarks and transactions, checked as the kernel checks them.
//!
//! The rules are those of `entity_namecheck`, `dataset_nestcheck` and `zfs_ioc_create` in OpenZFS
//! (`module/zcommon/zfs_namecheck.c`, `module/zfs/zfs_ioctl.c`, 2.0 to 2.4). Nothing here talks to
//! ZFS: a name that parses may still belong to nothing.

use std::fmt;
use std::str::FromStr;

/// The longest name that ZFS stores, in bytes: `ZFS_MAX_DATASET_NAME_LEN` less the final NUL.
pub const MAX_NAME_LEN: usize = 255;

/// The largest number of `/` in a dataset's name: one less than `zfs_max_dataset_nesting`.
pub const MAX_DEPTH: usize = 49;

/// Why a string is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a valid {kind} name: {reason}")]
pub struct NameError {
    name: String,
    kind: &'static str,
    reason: NameReason,
}

impl NameError {
    /// What is wrong with the name.
    pub fn reason(&self) -> &NameReason {
        &self.reason
    }
}

/// The rule of ZFS that a name breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameReason {
    /// The name, or a part of it between separators, is empty.
    #[error("a part of it is empty")]
    EmptyComponent,
    /// The name is longer than [`MAX_NAME_LEN`].
    #[error("it has {len} bytes, and ZFS allows {MAX_NAME_LEN}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The name has more than [`MAX_DEPTH`] levels below the pool.
    #[error("it has {depth} levels below the pool, and ZFS allows {MAX_DEPTH}")]
    TooDeep {
        /// How many `/` it has.
        depth: usize,
    },
    /// A character that ZFS does not allow; `%` is kept by ZFS for its own temporary datasets.
    #[error("{character:?} is not allowed in it (letters, digits, space and -_.: are)")]
    InvalidCharacter {
        /// The character.
        character: char,
    },
    /// A part of the name is `.` or `..`.
    #[error("\".\" and \"..\" can't be parts of it")]
    DotComponent,
    /// The separator (`@` for a snapshot, `#` for a bookmark) is missing.
    #[error("it has no {separator:?}")]
    NoSeparator {
        /// `@` or `#`.
        separator: char,
    },
    /// A transaction id is 16 lower-case hexadecimal digits.
    #[error("a transaction id is 16 lower-case hexadecimal digits")]
    NotAnId,
}

fn check_component(component: &str) -> Result<(), NameReason> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.: ".contains(c);
    match component {
        "" => Err(NameReason::EmptyComponent),
        "." | ".." => Err(NameReason::DotComponent),
        _ => match component.chars().find(|&c| !allowed(c)) {
            Some(character) => Err(NameReason::InvalidCharacter { character }),
            None => Ok(()),
        },
    }
}

fn check_dataset(name: &str) -> Result<(), NameReason> {
    check_length(name)?;
    name.split('/').try_for_each(check_component)?;
    let depth = name.matches('/').count();
    if depth > MAX_DEPTH { Err(NameReason::TooDeep { depth }) } else { Ok(()) }
}

fn check_length(name: &str) -> Result<(), NameReason> {
    let len = name.len();
    if len > MAX_NAME_LEN { Err(NameReason::TooLong { len }) } else { Ok(()) }
}

/// The name of a filesystem or volume, such as `tank/repos/alpha`.
///
/// ```
/// use zfs_txn::DatasetName;
///
/// let name: DatasetName = "tank/repos/alpha".parse()?;
/// assert_eq!(name.pool(), "tank");
/// assert!("tank//alpha".parse::<DatasetName>().is_err());
/// # Ok::<(), zfs_txn::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatasetName(String);

impl DatasetName {
    /// The name as ZFS spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The pool's name: everything before the first `/`.
    pub fn pool(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The dataset one level up; `None` for a pool's root dataset.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// The name without what a workspace's or predecessor's ends with.
    pub(crate) fn stem(&self) -> &str {
        const LEN: usize = "-txn-0123456789abcdef".len();
        let split = self.0.len().checked_sub(LEN).and_then(|at| self.0.split_at_checked(at));
        let Some((stem, suffix)) = split.filter(|(stem, _)| !stem.ends_with('/')) else {
            return &self.0;
        };
        let id = suffix.strip_prefix("-txn-").or_else(|| suffix.strip_prefix("-old-"));
        match id.and_then(|id| id.parse::<TransactionId>().ok()) {
            Some(_) => stem,
            None => &self.0,
        }
    }

    /// The last part of the name.
    pub fn leaf(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Whether this is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0
            .strip_prefix(other.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The snapshot `self@name`.
    ///
    /// # Errors
    /// When `name` breaks ZFS's rules or the whole is too long.
    pub fn snapshot(&self, name: &str) -> Result<SnapshotName, NameError> {
        format!("{self}@{name}").parse()
    }

    /// The dataset beside this one whose last part has `suffix` added to it.
    pub(crate) fn with_suffix(&self, suffix: &str) -> Result<Self, NameError> {
        format!("{self}{suffix}").parse()
    }
}

impl FromStr for DatasetName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        match check_dataset(name) {
            Ok(()) => Ok(Self(name.to_owned())),
            Err(reason) => Err(NameError { name: name.to_owned(), kind: "dataset", reason }),
        }
    }
}

fn check_pair(name: &str, separator: char) -> Result<usize, NameReason> {
    check_length(name)?;
    let (dataset, leaf) =
        name.split_once(separator).ok_or(NameReason::NoSeparator { separator })?;
    check_dataset(dataset)?;
    check_component(leaf)?;
    Ok(dataset.len())
}

macro_rules! pair_name {
    ($(#[$doc:meta])* $type:ident, $separator:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type {
            full: String,
            at: usize,
        }

        impl $type {
            /// The whole name as ZFS spells it.
            pub fn as_str(&self) -> &str {
                &self.full
            }

            /// The dataset that it belongs to.
            pub fn dataset(&self) -> DatasetName {
                DatasetName(self.full[..self.at].to_owned())
            }

            /// The part behind the separator.
            pub fn leaf(&self) -> &str {
                &self.full[self.at + 1..]
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                match check_pair(name, $separator) {
                    Ok(at) => Ok(Self { full: name.to_owned(), at }),
                    Err(reason) => Err(NameError { name: name.to_owned(), kind: $kind, reason }),
                }
            }
        }
    };
}

pair_name!(
    /// The name of a snapshot, such as `tank/repos/alpha@monday`.
    SnapshotName,
    '@',
    "snapshot"
);
pair_name!(
    /// The name of a bookmark, such as `tank/repos/alpha#monday`.
    BookmarkName,
    '#',
    "bookmark"
);

/// What tells one transaction from all others: 64 random bits, written as 16 hexadecimal digits.
///
/// It is part of the names of everything that a transaction makes. 64 bits, not 128, because each
/// digit is taken from the bytes that a target's own name may have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(u64);

impl TransactionId {
    /// An id with these bits.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The suffix of the workspace's name.
    pub(crate) fn workspace_suffix(self) -> String {
        format!("-txn-{self}")
    }

    /// The suffix of the predecessor's name; as long as the workspace's.
    pub(crate) fn predecessor_suffix(self) -> String {
        format!("-old-{self}")
    }

    /// The part of the base snapshot's name that follows the `@`.
    pub(crate) fn base_leaf(self) -> String {
        format!("txn-{self}")
    }

    /// The same part of the snapshot that shows what was written to a target.
    pub(crate) fn look_leaf(self) -> String {
        format!("txn-{self}-look")
    }

    /// The same part of the snapshot of a workspace that is sent, where the caller has given it no
    /// name; as long as the look's.
    pub(crate) fn sent_leaf(self) -> String {
        format!("txn-{self}-sent")
    }
}

impl FromStr for TransactionId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = |c: &u8| c.is_ascii_digit() || (b'a'..=b'f').contains(c);
        let error = || NameError {
            name: text.to_owned(),
            kind: "transaction",
            reason: NameReason::NotAnId,
        };
        if text.len() != 16 || !text.as_bytes().iter().all(digits) {
            return Err(error());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| error())
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! shown_as_str {
    ($($type:ident),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
    )*};
}
shown_as_str!(DatasetName, SnapshotName, BookmarkName);

/// Whether a snapshot has the name of one that transactions take for themselves: it comes and goes
/// with them.
pub(crate) fn is_of_a_transaction(name: &str) -> bool {
    name.rsplit_once('@').is_some_and(|(_, leaf)| transaction_of(leaf).is_some())
}

/// The transaction that has taken a snapshot for itself, by the last part of the snapshot's name.
pub(crate) fn transaction_of(leaf: &str) -> Option<TransactionId> {
    let id = leaf.strip_prefix("txn-")?;
    id.strip_suffix("-look").unwrap_or(id).parse().ok()
}

#[cfg(test)]
mod on_zfs;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason(name: &str) -> NameReason {
        name.parse::<DatasetName>().unwrap_err().reason
    }

    #[test]
    fn a_stem_is_the_name_that_a_transaction_has_added_to() {
        let stem = |name: &str| name.parse::<DatasetName>().unwrap().stem().to_owned();
        for (name, expected) in [
            ("tank/a-txn-0123456789abcdef", "tank/a"),
            ("tank/a-old-0123456789abcdef", "tank/a"),
            ("tank/a-txn-0123456789abcdef-old-0123456789abcdef", "tank/a-txn-0123456789abcdef"),
            ("tank/a-new-0123456789abcdef", "tank/a-new-0123456789abcdef"),
            ("tank/a-txn-0123456789abcdeg", "tank/a-txn-0123456789abcdeg"),
            ("tank/-txn-0123456789abcdef", "tank/-txn-0123456789abcdef"),
            ("tank/a", "tank/a"),
            ("tank", "tank"),
        ] {
            assert_eq!(stem(name), expected);
        }
    }

    #[test]
    fn each_broken_rule_is_named() {
        assert_eq!(reason(""), NameReason::EmptyComponent);
        assert_eq!(reason("/tank"), NameReason::EmptyComponent);
        assert_eq!(reason("tank/"), NameReason::EmptyComponent);
        assert_eq!(reason("tank//a"), NameReason::EmptyComponent);
        assert_eq!(reason("tank/./a"), NameReason::DotComponent);
        assert_eq!(reason("tank/.."), NameReason::DotComponent);
        assert_eq!(reason("tank/%recv"), NameReason::InvalidCharacter { character: '%' });
        assert_eq!(reason("tank/ä"), NameReason::InvalidCharacter { character: 'ä' });
        assert_eq!(reason("tank@a"), NameReason::InvalidCharacter { character: '@' });
        assert_eq!(reason("tank\0a"), NameReason::InvalidCharacter { character: '\0' });
        assert_eq!(reason(&"a".repeat(256)), NameReason::TooLong { len: 256 });
        assert_eq!(reason(&vec!["a"; 51].join("/")), NameReason::TooDeep { depth: 50 });
    }

    #[test]
    fn the_limits_themselves_are_allowed() {
        assert!("a".repeat(255).parse::<DatasetName>().is_ok());
        assert!(vec!["a"; 50].join("/").parse::<DatasetName>().is_ok());
        assert!("tank/... /-_.:".parse::<DatasetName>().is_ok());
    }

    #[test]
    fn snapshots_and_bookmarks_need_exactly_one_separator_of_their_own() {
        let name: SnapshotName = "tank/a@b".parse().unwrap();
        assert_eq!((name.dataset().as_str(), name.leaf()), ("tank/a", "b"));
        for bad in ["tank/a", "tank@", "@a", "tank@a@b", "tank@a/b", "tank#a", "tank@.."] {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad}");
        }
        assert!("tank/a#b".parse::<BookmarkName>().is_ok());
        assert!("tank/a@b#c".parse::<BookmarkName>().is_err());
    }

    #[test]
    fn within_respects_component_boundaries() {
        let name = |s: &str| s.parse::<DatasetName>().unwrap();
        assert!(name("tank/a/b").is_within(&name("tank/a")));
        assert!(name("tank/a").is_within(&name("tank/a")));
        assert!(!name("tank/ab").is_within(&name("tank/a")));
        assert!(!name("tank").is_within(&name("tank/a")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn what_parses_is_shown_unchanged_and_parses_again(text in "[a-zA-Z0-9/@#%._: -]{0,40}") {
            if let Ok(name) = text.parse::<DatasetName>() {
                prop_assert_eq!(name.as_str(), &text);
                prop_assert!(text.split('/').all(|c| !c.is_empty() && c != "." && c != ".."));
                prop_assert!(!text.contains(['@', '#', '%']));
                prop_assert_eq!(name.pool().len() + text.len() - text.find('/').unwrap_or(text.len()), text.len());
            }
            if let Ok(name) = text.parse::<SnapshotName>() {
                prop_assert_eq!(format!("{}@{}", name.dataset(), name.leaf()), text);
            }
        }

        #[test]
        fn no_string_makes_parsing_panic(text in any::<String>()) {
            let _ = text.parse::<DatasetName>();
            let _ = text.parse::<SnapshotName>();
            let _ = text.parse::<BookmarkName>();
            let _ = text.parse::<TransactionId>();
        }

        #[test]
        fn transaction_ids_are_read_back(bits: u64) {
            let id = TransactionId::from_bits(bits);
            prop_assert_eq!(id.to_string().parse::<TransactionId>(), Ok(id));
        }
    }
}
