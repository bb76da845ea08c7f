//! What keeps a transaction from changing a dataset: one list, at begin and in the commit alike. Pure.
//!
//! Begin refuses a target for what is on this list. While the transaction is open, somebody may bring
//! the target into such a state, so the commit looks at the whole list once more.

use std::fmt;

use crate::engine::{Facts, Settings};
use crate::error::{BeginError, Conflict};
use crate::name::{DatasetName, SnapshotName};
use crate::receipt::Strategy;

/// Why a dataset can't be changed by a transaction, as it is.
///
/// `Display` gives it as the rest of a sentence that begins with the dataset's name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It is a volume, which can be changed [in place](Strategy::InPlace) alone, and which has nothing
    /// below it.
    Volume,
    /// It has child datasets, which a promote would leave behind.
    HasChildren {
        /// How many.
        count: u64,
    },
    /// It has a receive that was interrupted and can be resumed (`receive_resume_token`), or one that
    /// goes on at this moment. A promote would give that state to the predecessor, and in place no
    /// other receive can be begun.
    PartlyReceived,
    /// Its encryption key is not loaded.
    KeyNotLoaded,
    /// It has `readonly=on`, inherited or not.
    ReadOnly,
    /// It has `zoned=on`, inherited or not, and so is a container's.
    Zoned,
    /// It is its own encryption root. A promote hands the root to the workspace, but not the loaded
    /// key (`dsl_dataset_promote_crypt_sync`).
    EncryptionRoot,
    /// It is a volume whose snapshots get devices (`snapdev=visible`), with which a receive can come
    /// to a deadlock.
    SnapshotDevices,
    /// It is a volume without a block device (`volmode=none`).
    NoDevice,
    /// It has a snapshot of the name that the final snapshot is to get.
    SnapshotExists {
        /// The snapshot.
        name: SnapshotName,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Volume => {
                "is a volume: it can only be changed in place (Strategy::InPlace), and has nothing below it"
            }
            Self::HasChildren { count } => {
                return write!(
                    f,
                    "has {count} child datasets, which would not move along: use Strategy::InPlace, or \
                     have them elsewhere"
                );
            }
            Self::PartlyReceived => {
                "has a receive that is not at its end (receive_resume_token): resume it, or drop what \
                 was received with `zfs receive -A`"
            }
            Self::KeyNotLoaded => "has an encryption key that is not loaded: `zfs load-key` it",
            Self::ReadOnly => "has readonly=on: set it to off for as long as it is changed",
            Self::Zoned => "has zoned=on: it is a container's, which alone may change it",
            Self::EncryptionRoot => {
                "is its own encryption root, and would come out of the commit with its key unloaded: \
                 use Strategy::InPlace, or let it inherit the key of an encrypted parent \
                 (`zfs change-key -i`)"
            }
            Self::SnapshotDevices => {
                "has snapdev=visible, with which a receive can deadlock: set it to hidden"
            }
            Self::NoDevice => "has volmode=none, and so no block device: set it to dev",
            Self::SnapshotExists { name } => {
                return write!(f, "has a snapshot {name} already: destroy or rename that");
            }
        })
    }
}

/// What a dataset is to a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role<'a> {
    /// The target of an update.
    Target {
        strategy: Strategy,
        /// Whether `readonly=on` is this transaction's own fence.
        fenced: bool,
        /// A snapshot of the target that is there, and has the name of the final snapshot.
        taken: Option<&'a SnapshotName>,
    },
    /// The dataset below which an init creates its target.
    Parent,
}

/// The first entry of the list that holds for a dataset.
///
/// Not on the list, because the commit is none the worse for it: an encryption root that is another
/// dataset by now (workspace and target have the same one, whose key is loaded), and features of the pool
/// (which are never turned off).
pub(crate) fn refusal(facts: &Facts, settings: &Settings, role: Role<'_>) -> Option<Refusal> {
    let (promotes, in_place, fenced) = match role {
        Role::Target { strategy, fenced, .. } => {
            (strategy == Strategy::Promote, strategy == Strategy::InPlace, fenced)
        }
        Role::Parent => (false, false, false),
    };
    let is_target = promotes || in_place;
    let list = [
        (facts.volume && !in_place, Refusal::Volume),
        (promotes && facts.children > 0, Refusal::HasChildren { count: facts.children }),
        (is_target && settings.partly_received, Refusal::PartlyReceived),
        (!settings.key_loaded, Refusal::KeyNotLoaded),
        (settings.readonly && !fenced, Refusal::ReadOnly),
        (settings.zoned, Refusal::Zoned),
        (promotes && settings.encryption_root, Refusal::EncryptionRoot),
        (in_place && settings.snapshot_devices, Refusal::SnapshotDevices),
        (in_place && settings.no_device, Refusal::NoDevice),
    ];
    let found = list.into_iter().find_map(|(holds, refusal)| holds.then_some(refusal));
    let taken = || match role {
        Role::Target { taken: Some(name), .. } => {
            Some(Refusal::SnapshotExists { name: name.clone() })
        }
        _ => None,
    };
    found.or_else(taken)
}

impl Refusal {
    /// As begin says it, of the dataset with this name.
    pub(crate) fn at_begin(self, name: DatasetName) -> BeginError {
        let target = name;
        match self {
            Self::Volume => BeginError::Volume { name: target },
            Self::HasChildren { count } => BeginError::HasChildren { target, count },
            Self::PartlyReceived => BeginError::PartlyReceived { target },
            Self::KeyNotLoaded => BeginError::KeyNotLoaded { target },
            Self::ReadOnly => BeginError::ReadOnly { target },
            Self::Zoned => BeginError::Zoned { target },
            Self::EncryptionRoot => BeginError::EncryptionRoot { target },
            Self::SnapshotDevices => BeginError::SnapshotDevices { target },
            Self::NoDevice => BeginError::NoDevice { target },
            Self::SnapshotExists { name } => BeginError::SnapshotExists { name },
        }
    }

    /// As a commit says it, of what has come about since begin.
    pub(crate) fn meanwhile(self, target: DatasetName) -> Conflict {
        match self {
            Self::HasChildren { count } => Conflict::ChildrenAppeared { target, count },
            refusal => Conflict::Refused { target, refusal },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::Guid;

    fn facts() -> Facts {
        let mountpoint = "/tank/t".into();
        let (guid, origin) = (Guid(1), None);
        Facts { guid, createtxg: 1, volume: false, origin, children: 0, mountpoint }
    }

    fn target(strategy: Strategy) -> Role<'static> {
        Role::Target { strategy, fenced: false, taken: None }
    }

    /// What each state comes to: by promote, in place, and of an init's parent.
    #[test]
    fn each_state_is_refused_where_it_is_in_the_way() {
        type Make = fn(&mut Facts, &mut Settings);
        let same = |refusal: Refusal| [Some(refusal.clone()), Some(refusal), None];
        let of_all = |refusal: Refusal| [(); 3].map(|()| Some(refusal.clone()));
        let by_promote = |refusal: Refusal| [Some(refusal), None, None];
        let in_place = |refusal: Refusal| [None, Some(refusal), None];
        let cases: [(Make, [Option<Refusal>; 3]); 10] = [
            (|_, _| {}, [None, None, None]),
            (|facts, _| facts.volume = true, [Some(Refusal::Volume), None, Some(Refusal::Volume)]),
            (|facts, _| facts.children = 2, by_promote(Refusal::HasChildren { count: 2 })),
            (|_, settings| settings.partly_received = true, same(Refusal::PartlyReceived)),
            (|_, settings| settings.key_loaded = false, of_all(Refusal::KeyNotLoaded)),
            (|_, settings| settings.readonly = true, of_all(Refusal::ReadOnly)),
            (|_, settings| settings.zoned = true, of_all(Refusal::Zoned)),
            (|_, settings| settings.encryption_root = true, by_promote(Refusal::EncryptionRoot)),
            (|_, settings| settings.snapshot_devices = true, in_place(Refusal::SnapshotDevices)),
            (|_, settings| settings.no_device = true, in_place(Refusal::NoDevice)),
        ];
        for (make, expected) in cases {
            let (mut facts, mut settings) = (facts(), Settings::plain());
            make(&mut facts, &mut settings);
            let roles = [target(Strategy::Promote), target(Strategy::InPlace), Role::Parent];
            let found = roles.map(|role| refusal(&facts, &settings, role));
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_transactions_own_fence_is_no_refusal_and_a_taken_name_is_one() {
        let fenced = Settings { readonly: true, ..Settings::plain() };
        let strategy = Strategy::InPlace;
        let role = Role::Target { strategy, fenced: true, taken: None };
        assert_eq!(refusal(&facts(), &fenced, role), None);
        let name: SnapshotName = "tank/t@final".parse().unwrap();
        let role = Role::Target { strategy, fenced: false, taken: Some(&name) };
        let expected = Refusal::SnapshotExists { name: name.clone() };
        assert_eq!(refusal(&facts(), &Settings::plain(), role), Some(expected));
    }
}
