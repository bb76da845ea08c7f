//! What a stream tells of a file or directory: the attributes in the bonus of its object.
//!
//! Only those are read that stand at a fixed place, by which the kernel itself counts space for users
//! and projects (`zpl_get_file_info`).

use super::{BONUS_TYPE, OBJECT_TYPE, Record, u32_at, u64_at};

/// `dmu_object_type`.
const ZNODE: u32 = 17;
pub(super) const FILE: u32 = 19;
pub(super) const DIRECTORY: u32 = 20;
const SYSTEM_ATTRIBUTES: u32 = 44;

/// `SA_MAGIC`, of a pool of this byte order, and of the other.
const MAGIC: u32 = 0x002f_505a;
/// `S_IFMT`.
const TYPE: u64 = 0o170_000;
/// `ZFS_XATTR`: an extended attribute, or a directory of those.
const EXTENDED_ATTRIBUTE: u64 = 1;
/// Mode, size, generation, owner, group, parent, flags, and four times of two numbers each come before
/// the count of links (`zfs_mknode`).
const LINKS: usize = 7 * 8 + 4 * 16;

/// An object of the file system layer: a file of any kind, or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Znode {
    /// As in `st_mode`.
    pub(crate) mode: u64,
    /// What tells files apart that had the object's number one after the other.
    pub(crate) generation: u64,
    /// How long its data is, in bytes.
    pub(crate) size: u64,
    /// Whether it is (a directory of) extended attributes, which have no path.
    pub(crate) is_attribute: bool,
    /// The count of links, where it stands in the layout that new files are given. Others are possible:
    /// this number alone proves nothing.
    pub(crate) links: Option<u64>,
}

/// What an object is to readers of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Znode(Znode),
    /// A table of the file system's own, by its type.
    Table(u32),
    /// A file or directory whose attributes can't be read.
    Unknown,
}

impl Role {
    /// The role of the object of a record with this payload.
    pub(super) fn of(record: Record<'_>, bonus: &[u8]) -> Self {
        let kind = u32_at(record.0, OBJECT_TYPE);
        if !matches!(kind, FILE | DIRECTORY) {
            return Self::Table(kind);
        }
        let znode = match u32_at(record.0, BONUS_TYPE) {
            SYSTEM_ATTRIBUTES => Znode::from_system_attributes(bonus),
            ZNODE => Znode::from_old(bonus),
            _ => None,
        };
        znode.map_or(Self::Unknown, Self::Znode)
    }
}

impl Znode {
    fn from_system_attributes(bonus: &[u8]) -> Option<Self> {
        let head = bonus.get(..8)?;
        // The bonus of a pool of the other byte order is in that order (`DMU_BSWAP_UINT8`).
        let swapped = match u32_at(head, 0) {
            MAGIC => false,
            magic if magic == MAGIC.swap_bytes() => true,
            _ => return None,
        };
        let layout = u16::from_ne_bytes([head[4], head[5]]);
        let layout = if swapped { layout.swap_bytes() } else { layout };
        let header = usize::from(layout >> 10 & 0x3f) << 3;
        let attributes = bonus.get(header..header + 56)?;
        let number = |at| {
            let number = u64_at(attributes, at);
            if swapped { number.swap_bytes() } else { number }
        };
        let links = bonus.get(header + LINKS..header + LINKS + 8).map(|field| u64_at(field, 0));
        let links = links.map(|links| if swapped { links.swap_bytes() } else { links });
        let is_attribute = number(48) & EXTENDED_ATTRIBUTE != 0;
        Some(Self { mode: number(0), generation: number(16), size: number(8), is_attribute, links })
    }

    /// `znode_phys_t`, of file systems before version 5.
    fn from_old(bonus: &[u8]) -> Option<Self> {
        let bonus = bonus.get(..128)?;
        let number = |at| u64_at(bonus, at);
        let is_attribute = number(120) & EXTENDED_ATTRIBUTE != 0;
        let (mode, links) = (number(72), Some(number(96)));
        Some(Self { mode, generation: number(64), size: number(80), is_attribute, links })
    }

    /// Whether the kernel's page cache can have pages of it that somebody reads by a path.
    pub(super) fn is_regular(self) -> bool {
        self.mode & TYPE == 0o100_000 && !self.is_attribute
    }

    /// Whether it has entries that somebody finds by a path.
    pub(super) fn is_directory(self) -> bool {
        self.mode & TYPE == 0o040_000 && !self.is_attribute
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{object, system_attributes};
    use super::*;

    fn role(bonus: &[u8]) -> Role {
        Role::of(Record::new(&object(7, FILE, SYSTEM_ATTRIBUTES, 1, bonus)), bonus)
    }

    #[test]
    fn attributes_are_read_in_either_byte_order() {
        let bonus = system_attributes(0o100_644, 9, 0);
        let expected =
            Znode { mode: 0o100_644, generation: 9, size: 0, is_attribute: false, links: Some(0) };
        assert_eq!(role(&bonus), Role::Znode(expected));
        let mut other = bonus.clone();
        other[..4].reverse();
        other[4..6].reverse();
        other[8..].chunks_mut(8).for_each(<[u8]>::reverse);
        assert_eq!(role(&other), Role::Znode(expected));
    }

    #[test]
    fn what_has_no_attributes_of_a_known_form_is_told() {
        for bonus in [&[][..], &[1; 200], &system_attributes(0, 0, 0)[..40]] {
            assert_eq!(role(bonus), Role::Unknown);
        }
        let table = object(7, 22, 0, 1, &[]);
        assert_eq!(Role::of(Record::new(&table), &[]), Role::Table(22));
    }

    #[test]
    fn only_regular_files_with_a_path_have_pages() {
        let is_regular = |mode, flags| match role(&system_attributes(mode, 1, flags)) {
            Role::Znode(znode) => znode.is_regular(),
            other => panic!("{other:?}"),
        };
        assert!(is_regular(0o100_600, 0) && is_regular(0o106_755, 0x4000));
        assert!(
            !is_regular(0o120_777, 0) && !is_regular(0o040_755, 0) && !is_regular(0o100_600, 1)
        );
    }
}
