//! For tests: an engine on real ZFS that has each verb pass through one place.

/// Implements [`Engine`](crate::engine::Engine) for a type that has a field `kernel` and two methods:
/// `question(call)` for verbs that only ask, `effect(verb, call)` for those that change something.
macro_rules! forward_to_kernel {
    ($engine:ty) => {
        forward_to_kernel! {
            $engine;
            questions {
                fn runs_programs(dataset: &DatasetName) -> bool;
                fn journal(scope: Scope<'_>) -> Vec<Entry>;
                fn walk(below: &DatasetName) -> Walk;
                fn facts(name: &str) -> Option<Facts>;
                fn settings(dataset: &DatasetName) -> Settings;
                fn is_empty(dataset: &DatasetName) -> bool;
                fn longest_snapshot(dataset: &DatasetName) -> usize;
                fn snapshots_since(dataset: &DatasetName, base: &str) -> Vec<String>;
                fn snapshots_and_bookmarks(dataset: &DatasetName) -> Vec<String>;
                fn find_snapshot(target: &DatasetName, leaf: &str, id: SnapshotId) -> Option<String>;
                fn difference(one: &SnapshotName, base: &SnapshotName) -> Difference;
                fn newcomers(one: &SnapshotName, base: &SnapshotName) -> Vec<FileId>;
                fn lacks(dataset: &DatasetName) -> Option<Lack>;
                fn shortage(dataset: &DatasetName) -> Option<Shortage>;
                fn holders(name: &str) -> Option<String>;
                fn places(dataset: &DatasetName) -> Vec<Place>;
                fn mount_options(dataset: &DatasetName) -> MountAttrFlags;
                fn mounts_on(place: &Place) -> Vec<PathBuf>;
                fn stream_length(route: Route<'_>) -> u64;
                fn changes(snapshot: &str, from: Option<&str>) -> Changes;
                fn stale_names(
                    dataset: &DatasetName,
                    before: &str,
                    directories: &[FileId]
                ) -> Vec<PathBuf>;
                fn unfit(place: &Path, shared: bool) -> Option<Unfit>;
                fn unmountable(dataset: &DatasetName, path: &Path) -> Option<Unfit>;
                fn leads_to(at: &Path, root: BorrowedFd<'_>) -> bool;
                fn displaced(dataset: &DatasetName, workspace: BorrowedFd<'_>) -> Vec<PathBuf>;
                fn is_seen_by_first(dataset: &DatasetName) -> bool;
                fn mounted_anywhere(dataset: &DatasetName) -> Vec<ElsewhereMount>;
            }
            effects {
                fn create(name: &DatasetName, own: &[(String, PropertyValue)]) -> ();
                fn snapshot(name: &SnapshotName, property: Option<(&str, &str)>) -> ();
                fn clone_snapshot(
                    name: &DatasetName,
                    origin: &SnapshotName,
                    own: &[(String, PropertyValue)]
                ) -> ();
                fn copy_permissions(from: &DatasetName, to: &DatasetName) -> ();
                fn promote(promotion: Promotion<'_>) -> Promoted;
                fn conclude(conclusion: Conclusion<'_>) -> Concluded;
                fn stage(staging: Staging<'_>) -> Staged;
                fn transfer(route: Route<'_>, watch: Watch<'_>, at_end: AtEnd<'_>) -> ();
                fn conclude_in_place(end: InPlaceEnd<'_>) -> Option<Errno>;
                fn let_go_of_pages(
                    dataset: &DatasetName,
                    sent: &str,
                    changes: &mut Changes,
                    received: bool
                ) -> Vec<PathBuf>;
                fn write_record(
                    carrier: (&str, Guid),
                    property: &str,
                    old: Option<&str>,
                    new: Option<&str>
                ) -> ();
                fn rename(from: &DatasetName, to: &DatasetName) -> ();
                fn destroy(name: &str, guid: Guid) -> bool;
                fn destroy_unchanged(name: &str, guid: Guid, since: (&str, Guid)) -> bool;
                fn destroy_workspace(
                    name: &DatasetName,
                    guid: Guid,
                    origin: Option<Guid>
                ) -> bool;
                fn destroy_snapshots(names: &[String]) -> ();
                fn destroy_bookmarks(names: &[String]) -> ();
                fn inherit(name: &DatasetName, guid: Guid, properties: &[&str]) -> ();
                fn set_mountpoint(name: &DatasetName, value: &std::ffi::OsStr) -> ();
                fn fence(name: &DatasetName) -> ();
                fn unfence(name: &DatasetName, guid: Guid, before: Fence) -> ();
                fn keep_from_boot_mounts(name: &DatasetName) -> ();
                fn mount_private(dataset: &DatasetName, at: Private<'_>) -> OwnedFd;
                fn unmount_private(
                    at: Private<'_>,
                    root: Option<BorrowedFd<'_>>,
                    of: &[&DatasetName]
                ) -> Option<Leftover>;
                fn unmount_stray(place: &Place) -> ();
                fn unmount_unused(dataset: &DatasetName, place: &Place) -> ();
                fn renew_deletions(dataset: &DatasetName) -> bool;
                fn flush_workspace(root: BorrowedFd<'_>) -> ();
                fn set_ownership(root: BorrowedFd<'_>, ids: &Ids) -> ();
                fn prepare_mount(dataset: &DatasetName, place: Place) -> PreparedMount;
                fn attach(prepared: PreparedMount) -> Attached;
            }
        }
    };
    ($engine:ty;
     questions { $(fn $q:ident($($qa:ident: $qt:ty),*) -> $qr:ty;)* }
     effects { $(fn $e:ident($($ea:ident: $et:ty),*) -> $er:ty;)* }) => {
        const _: () = {
            use std::os::fd::{BorrowedFd, OwnedFd};
            use std::path::{Path, PathBuf};

            use rustix::mount::MountAttrFlags;

            use $crate::engine::{
    AtEnd, Attached, Concluded, Conclusion, Difference, Engine, Entry, Facts, Fault, InPlaceEnd, Lack, Place, PreparedMount, Private, Promoted, Promotion, PropertyValue, Scope, Settings, Shortage, SnapshotId, Staged, Staging, Unfit, Walk, Watch,
            };
            use $crate::errno::Errno;
            use $crate::name::{DatasetName, SnapshotName};
            use $crate::ownership::Ids;
            use $crate::receipt::{ElsewhereMount, Guid, Leftover};
            use $crate::stream::passage::{Changes, FileId};
            use $crate::transfer::Route;
            use $crate::txn::journal::Fence;

            impl Engine for $engine {
                // A first mount may count as a write: who tests an intent log does so on the kernel itself.
                fn write_back(&self, dataset: &DatasetName) -> Result<(), Fault> {
                    match self.kernel.places(dataset)?.is_empty() {
                        true => Ok(()),
                        false => self.question(|| self.kernel.write_back(dataset)),
                    }
                }

                $(fn $q(&self, $($qa: $qt),*) -> Result<$qr, Fault> {
                    self.question(|| self.kernel.$q($($qa),*))
                })*
                $(fn $e(&self, $($ea: $et),*) -> Result<$er, Fault> {
                    self.effect(stringify!($e), || self.kernel.$e($($ea),*))
                })*
            }
        };
    };
}

pub(crate) use forward_to_kernel;
