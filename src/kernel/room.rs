//! Room for snapshots. Pure.

use crate::engine::Shortage;

/// What a dataset's properties say of room, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// `refreservation`.
    pub(super) reserved: u64,
    /// What the dataset alone refers to.
    pub(super) unique: u64,
    pub(super) available: u64,
    /// `refquota`; 0: none.
    pub(super) quota: u64,
    pub(super) referenced: u64,
}

/// Whether a snapshot has no room, because what it keeps has to be reserved once more
/// (`dsl_dataset_snapshot_reserve_space`).
pub(super) fn shortage(sizes: Sizes) -> Option<Shortage> {
    let Sizes { reserved, unique, available, quota, referenced } = sizes;
    let needed = reserved.min(unique);
    // What is available has the rest of the reservation in it (`dsl_dataset_space`).
    let beside = available.saturating_sub(reserved.saturating_sub(unique));
    if needed <= beside {
        return None;
    }
    let hidden = quota != 0 && available >= quota.saturating_sub(referenced);
    Some(Shortage { needed, missing: (!hidden).then_some(needed - beside) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_snapshot_keeps_is_to_be_reserved_once_more() {
        let of = |reserved, unique, available, quota| {
            let sizes = Sizes { reserved, unique, available, quota, referenced: unique };
            shortage(sizes).map(|found| (found.needed, found.missing))
        };
        assert_eq!(of(0, 600, 0, 0), None);
        // 400 of the reservation are still to be written, and 500 are free beside.
        assert_eq!(of(1000, 600, 900, 0), Some((600, Some(100))));
        assert_eq!(of(1000, 600, 1000, 0), None);
        // More is written than reserved.
        assert_eq!(of(1000, 1200, 999, 0), Some((1000, Some(1))));
        // The quota leaves 400, and nobody knows what else there is.
        assert_eq!(of(1000, 600, 400, 1000), Some((600, None)));
    }
}
