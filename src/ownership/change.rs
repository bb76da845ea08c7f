//! What of a file is not as it is to be, and what a change of owner may leave it.

use rustix::fs::{FileType, Gid, Stat, Uid};

use super::Ids;

const SET_ID: u32 = 0o6000;
const EXECUTE: u32 = 0o111;
/// Writing and executing: what turns capabilities of a file into capabilities of whoever may do it.
const WRITE_OR_EXECUTE: u32 = 0o3;

/// What a file has of what an ownership is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) kind: FileType,
    pub(super) user: u32,
    pub(super) group: u32,
    /// The permission bits.
    pub(super) mode: u32,
}

impl From<&Stat> for Status {
    fn from(stat: &Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            user: stat.st_uid,
            group: stat.st_gid,
            mode: stat.st_mode & 0o7777,
        }
    }
}

/// An owner or a group, or both, that a file is to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gift {
    pub(super) user: Option<Uid>,
    pub(super) group: Option<Gid>,
}

impl Ids {
    /// Whom a file is to be given to; `None` where owner and group are right.
    pub(super) fn gift(&self, file: &Status) -> Option<Gift> {
        let user = self.user.filter(|user| *user != file.user).map(Uid::from_raw);
        let group = self.group.filter(|group| *group != file.group).map(Gid::from_raw);
        (user.is_some() || group.is_some()).then_some(Gift { user, group })
    }

    /// The mode that a file is to have, after it was given away or not; `None` where any is right.
    ///
    /// A change of owner or group takes the set-id bits from all but directories, for good: with them
    /// whoever runs the file would become the new owner. The kernel leaves the bit for the group where the
    /// group may not execute.
    pub(super) fn mode_for(&self, file: &Status, given: bool) -> Option<u32> {
        let directory = file.kind == FileType::Directory;
        match self.mode {
            // A link has no mode of its own.
            _ if file.kind == FileType::Symlink => None,
            Some(mode) if directory => Some(mode),
            Some(mode) if file.mode & EXECUTE != 0 => Some(mode & 0o777),
            Some(mode) => Some(mode & 0o666),
            None if given && !directory => Some(file.mode & !SET_ID),
            None => None,
        }
    }
}

/// Whether a file may have its capabilities back after it was given away: only where nobody may write or run
/// it who could not before. `mode` is the one that it has in the end.
///
/// A new owner could, who may give the file any mode; root alone has all capabilities anyway. A new group
/// can do no more than everybody where its bits are those of the others.
pub(super) fn may_keep_capabilities(gift: Gift, mode: u32) -> bool {
    let group_is_as_others = (mode >> 3) & WRITE_OR_EXECUTE == mode & WRITE_OR_EXECUTE;
    gift.user.is_none_or(Uid::is_root) && (gift.group.is_none() || group_is_as_others)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [FileType; 5] = [
        FileType::RegularFile,
        FileType::Directory,
        FileType::Symlink,
        FileType::Fifo,
        FileType::Socket,
    ];

    fn file(user: u32, group: u32, mode: u32) -> Status {
        Status { kind: FileType::RegularFile, user, group, mode }
    }

    fn to(user: Option<u32>, group: Option<u32>) -> Ids {
        Ids { user, group, whole_tree: true, ..Ids::default() }
    }

    #[test]
    fn only_what_is_wrong_is_given() {
        let both = to(Some(1), Some(2));
        let gift = |user, group| both.gift(&file(user, group, 0o644));
        let (user, group) = (Some(Uid::from_raw(1)), Some(Gid::from_raw(2)));
        assert_eq!(gift(1, 2), None);
        assert_eq!(gift(0, 2), Some(Gift { user, group: None }));
        assert_eq!(gift(1, 0), Some(Gift { user: None, group }));
        assert_eq!(gift(0, 0), Some(Gift { user, group }));
        assert_eq!(to(None, None).gift(&file(5, 6, 0o644)), None);
    }

    #[test]
    fn capabilities_stay_only_where_nobody_new_can_use_them() {
        let gift = |user: Option<u32>, group: Option<u32>| Gift {
            user: user.map(Uid::from_raw),
            group: group.map(Gid::from_raw),
        };
        for (gift, mode, may) in [
            (gift(Some(0), None), 0o750, true),
            (gift(Some(33), None), 0o755, false),
            (gift(None, Some(5)), 0o755, true),
            (gift(None, Some(5)), 0o700, true),
            (gift(None, Some(5)), 0o751, true),
            (gift(None, Some(5)), 0o750, false),
            (gift(None, Some(5)), 0o775, false),
            // Who was in the old group may now do what others may.
            (gift(None, Some(5)), 0o705, false),
            (gift(Some(0), Some(0)), 0o755, true),
            (gift(Some(0), Some(0)), 0o750, false),
        ] {
            assert_eq!(may_keep_capabilities(gift, mode), may, "{gift:?} {mode:o}");
        }
    }

    proptest! {
        #[test]
        fn what_was_given_away_has_no_set_id_bit(kind in 0..KINDS.len(), had in 0_u32..0o10000) {
            let file = Status { kind: KINDS[kind], ..file(1000, 1000, had) };
            match to(Some(0), None).mode_for(&file, true) {
                Some(mode) => prop_assert_eq!(mode, had & !SET_ID),
                None => prop_assert!(matches!(file.kind, FileType::Directory | FileType::Symlink)),
            }
            prop_assert_eq!(to(Some(0), None).mode_for(&file, false), None);
        }

        /// A second visit, as by another hard link or after a crash, finds nothing to do.
        #[test]
        fn what_was_put_right_is_right(kind in 0..KINDS.len(), had in 0_u32..0o10000, mode in 0_u32..0o10000) {
            let ids = Ids { mode: Some(mode), ..to(Some(0), None) };
            let mut file = Status { kind: KINDS[kind], ..file(1000, 1000, had) };
            file.user = 0;
            file.mode = ids.mode_for(&file, true).unwrap_or(file.mode);
            prop_assert_eq!(ids.gift(&file), None);
            prop_assert_eq!(ids.mode_for(&file, false).unwrap_or(file.mode), file.mode);
        }
    }
}
