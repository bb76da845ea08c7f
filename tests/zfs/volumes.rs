//! Volumes, which are changed in place: what a commit changes, and what it refuses.

use std::fs::{self, File, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use zfs_txn::{
    BeginError, CommitError, Conflict, DatasetName, Keeps, OnConflict, Ownership, Refusal,
    Strategy, Transaction, TransactionBuilder, Zfs,
};

use crate::support::{Identity, Scene, State, again};

const BLOCK: usize = 16384;
/// Linux's `O_EXCL`: on a block device, for oneself alone.
const EXCL: i32 = 0o200;

struct Volume {
    scene: Scene,
    target: DatasetName,
    device: PathBuf,
}

impl Volume {
    /// A volume of 64 MiB whose first block is old.
    fn new(options: &[&str]) -> Self {
        let scene = Scene::new();
        let target = scene.name("volume");
        let create = ["create", "-V", "64M", "-o", "volblocksize=16K"];
        scene.pool.zfs(&[&create[..], options, &[target.as_str()]].concat());
        let device = device_of(target.as_str());
        let volume = Self { scene, target, device };
        write(&volume.device, 0, b'o');
        write(&volume.device, 100, b'o');
        volume
    }

    fn builder(&self) -> TransactionBuilder<'_> {
        self.scene.zfs.transaction(&self.target).strategy(Strategy::InPlace)
    }

    fn begin(&self) -> Transaction {
        self.builder().begin().unwrap()
    }
}

/// The volume's block device, by what OpenZFS's own tool says of each one.
pub fn device_of(volume: &str) -> PathBuf {
    let shows = |path: &PathBuf| {
        let said = Command::new("/usr/lib/udev/zvol_id").arg(path).output().unwrap();
        String::from_utf8_lossy(&said.stdout).trim() == volume
    };
    let find = || {
        let names = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().file_name());
        let zvols = names.filter(|name| name.to_str().unwrap().starts_with("zd"));
        zvols.map(|name| Path::new("/dev").join(name)).find(shows)
    };
    // The kernel makes it in a thread of its own.
    for _ in 0..100 {
        if let Some(path) = find() {
            return path;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("{volume} has no device");
}

fn write(device: &Path, block: u64, byte: u8) {
    let file = OpenOptions::new().write(true).open(device).unwrap();
    file.write_all_at(&[byte; BLOCK], block * BLOCK as u64).unwrap();
    file.sync_all().unwrap();
}

fn read(file: &File, block: u64) -> u8 {
    let mut bytes = [0; BLOCK];
    file.read_exact_at(&mut bytes, block * BLOCK as u64).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a torn block");
    bytes[0]
}

/// I3: nothing but the content changes, also for whoever has had the device open all the time.
#[test]
fn the_content_of_a_volume_is_changed_in_one_go() {
    let volume = Volume::new(&["-o", "compression=gzip", "-o", "com.example:note=x"]);
    let snapshot = format!("{}@kept", volume.target);
    volume.scene.pool.zfs(&["snapshot", &snapshot]);
    volume.scene.pool.zfs(&["hold", "tag", &snapshot]);
    let before = State::of(&volume.scene, Identity::Kept);
    let held = File::open(&volume.device).unwrap();
    assert_eq!((read(&held, 0), read(&held, 100)), (b'o', b'o'));
    for byte in [b'a', b'b'] {
        let transaction = volume.begin();
        assert_ne!(fs::canonicalize(transaction.path()).unwrap(), volume.device);
        write(transaction.path(), 0, byte);
        write(transaction.path(), 3000, byte);
        assert_ne!(read(&File::open(&volume.device).unwrap(), 0), byte);
        let receipt = transaction.commit().unwrap();
        assert!(receipt.leftovers.is_empty() && receipt.stale.is_empty(), "{receipt:?}");
        assert_eq!(receipt.guid.to_string(), volume.scene.property(&volume.target, "guid").0);
        for file in [&held, &File::open(&volume.device).unwrap()] {
            let found = [0, 100, 3000, 200].map(|block| read(file, block));
            assert_eq!(found, [byte, b'o', byte, 0]);
        }
    }
    before.assert_same(&State::of(&volume.scene, Identity::Kept));
    drop(held);
    volume.scene.end();
}

#[test]
fn what_a_rollback_and_a_drop_leave_of_a_volume_is_as_it_was() {
    let volume = Volume::new(&[]);
    let before = State::of(&volume.scene, Identity::Kept);
    let transaction = volume.begin();
    let link = transaction.path().to_owned();
    write(transaction.path(), 0, b'a');
    transaction.rollback().unwrap();
    assert!(!link.is_symlink());
    let dropped = volume.begin();
    write(dropped.path(), 0, b'a');
    drop(dropped);
    before.assert_same(&State::of(&volume.scene, Identity::Kept));
    assert_eq!(read(&File::open(&volume.device).unwrap(), 0), b'o');
    volume.scene.end();
}

/// I6: what was written is found, also what was not synced; opening the device for writing is nothing.
#[test]
fn a_write_to_a_volume_is_a_conflict_and_opening_it_is_none() {
    let volume = Volume::new(&[]);
    let transaction = volume.begin();
    write(transaction.path(), 0, b'a');
    let mut open = OpenOptions::new();
    let file = open.write(true).open(&volume.device).unwrap();
    file.write_all_at(&[b't'; BLOCK], 7 * BLOCK as u64).unwrap();
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert_eq!(conflict, Conflict::Modified { target: volume.target.clone() });
    transaction.rollback().unwrap();
    drop(file);
    let transaction = volume.begin();
    write(transaction.path(), 0, b'b');
    drop(open.open(&volume.device).unwrap());
    transaction.commit().unwrap();
    let now = File::open(&volume.device).unwrap();
    assert_eq!((read(&now, 0), read(&now, 7)), (b'b', b't'));
    drop(now);
    volume.scene.end();
}

#[test]
fn what_others_have_written_to_a_volume_can_be_overwritten_and_is_kept() {
    let volume = Volume::new(&[]);
    let transaction = volume.builder().on_conflict(OnConflict::Overwrite).begin().unwrap();
    write(transaction.path(), 0, b'a');
    for block in [0, 5, 4000] {
        write(&volume.device, block, b't');
    }
    let receipt = transaction.commit().unwrap();
    assert_eq!(receipt.overridden, [Conflict::Modified { target: volume.target.clone() }]);
    let now = File::open(&volume.device).unwrap();
    assert_eq!([0, 5, 100, 4000].map(|block| read(&now, block)), [b'a', 0, b'o', 0]);
    let kept: Vec<_> = receipt.leftovers.iter().filter(|l| l.keeps == Keeps::Changes).collect();
    let [kept] = kept[..] else { panic!("{receipt:?}") };
    volume.scene.pool.zfs(&["set", "snapdev=visible", volume.target.as_str()]);
    let theirs = File::open(device_of(&kept.name)).unwrap();
    assert_eq!([0, 5, 100, 4000].map(|block| read(&theirs, block)), [b't', b't', b'o', b't']);
    drop((now, theirs));
    let error = volume.builder().begin().unwrap_err();
    assert!(matches!(error, BeginError::SnapshotDevices { .. }), "{error}");
    volume.scene.pool.zfs(&["destroy", &kept.name]);
    let swept = volume.scene.zfs.sweep(&volume.target).unwrap();
    assert!(swept.unfinished.is_empty() && swept.finished.len() == 1, "{swept:?}");
    volume.scene.end();
}

/// A mount or a volume group on it would go on with what it has read of the old content.
#[test]
fn a_volume_that_is_claimed_is_a_conflict() {
    let volume = Volume::new(&[]);
    let transaction = volume.begin();
    write(transaction.path(), 0, b'a');
    let claim = OpenOptions::new().read(true).custom_flags(EXCL).open(&volume.device).unwrap();
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    let path = volume.device.display().to_string();
    assert_eq!(conflict, Conflict::InUse { target: volume.target.clone(), path });
    assert_eq!(read(&claim, 0), b'o');
    drop(claim);
    transaction.commit().unwrap();
    assert_eq!(read(&File::open(&volume.device).unwrap(), 0), b'a');
    volume.scene.end();
}

#[test]
fn a_volume_can_be_detached_and_resumed_after_an_import() {
    let volume = Volume::new(&[]);
    let transaction = volume.begin();
    write(transaction.path(), 0, b'a');
    let id = transaction.detach().unwrap();
    volume.scene.pool.reimport();
    let transaction = volume.scene.zfs.resume(&volume.target, id).unwrap();
    assert_eq!(read(&File::open(transaction.path()).unwrap(), 0), b'a');
    write(transaction.path(), 1, b'b');
    transaction.commit().unwrap();
    let now = File::open(device_of(volume.target.as_str())).unwrap();
    assert_eq!([0, 1, 100].map(|block| read(&now, block)), [b'a', b'b', b'o']);
    drop(now);
    volume.scene.end();
}

#[test]
fn a_size_that_was_set_in_the_workspace_becomes_the_volumes() {
    let volume = Volume::new(&[]);
    let transaction = volume.begin();
    let workspace = format!("{}-txn-{}", volume.target, transaction.id());
    volume.scene.pool.zfs(&["set", "volsize=128M", &workspace]);
    write(transaction.path(), 8000, b'a');
    transaction.commit().unwrap();
    assert_eq!(volume.scene.property(&volume.target, "volsize").0, (128 << 20).to_string());
    assert_eq!(read(&File::open(&volume.device).unwrap(), 8000), b'a');
    volume.scene.end();
}

#[test]
fn what_is_not_for_volumes_is_refused_at_begin() {
    let volume = Volume::new(&["-o", "volmode=dev"]);
    let before = State::of(&volume.scene, Identity::Kept);
    let error = volume.scene.zfs.transaction(&volume.target).begin().unwrap_err();
    assert!(matches!(error, BeginError::Volume { .. }), "{error}");
    let error = volume.builder().ownership(Ownership::new().mode(0o600)).begin().unwrap_err();
    assert!(matches!(error, BeginError::OwnershipOfVolume { .. }), "{error}");
    let error = volume.builder().fence().begin().unwrap_err();
    assert!(matches!(error, BeginError::FenceOfVolume { .. }), "{error}");
    before.assert_same(&State::of(&volume.scene, Identity::Kept));
    let hidden = volume.scene.name("hidden");
    volume.scene.pool.zfs(&["create", "-V", "1M", "-o", "volmode=none", hidden.as_str()]);
    let builder = volume.scene.zfs.transaction(&hidden).strategy(Strategy::InPlace);
    let error = builder.begin().unwrap_err();
    assert!(matches!(error, BeginError::NoDevice { .. }), "{error}");
    volume.scene.end();
}

/// What begin would refuse is met by the commit; a size that was set is a write like others.
#[test]
fn settings_of_a_volume_changed_meanwhile_are_a_conflict() {
    let volume = Volume::new(&[]);
    let (pool, target) = (&volume.scene.pool, &volume.target);
    let mut transaction = volume.builder().on_conflict(OnConflict::Overwrite).begin().unwrap();
    write(transaction.path(), 0, b'a');
    for (setting, refusal) in
        [("snapdev=visible", Refusal::SnapshotDevices), ("volmode=none", Refusal::NoDevice)]
    {
        pool.zfs(&["set", setting, target.as_str()]);
        let error = transaction.commit().unwrap_err();
        let CommitError::Conflict { conflict, transaction: back } = error else {
            panic!("{error}")
        };
        assert_eq!(conflict, Conflict::Refused { target: target.clone(), refusal });
        let (property, _) = setting.split_once('=').unwrap();
        pool.zfs(&["inherit", property, target.as_str()]);
        transaction = *back;
    }
    device_of(target.as_str());
    transaction.commit().unwrap();
    let transaction = volume.begin();
    pool.zfs(&["set", "volsize=128M", target.as_str()]);
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert_eq!(conflict, Conflict::Modified { target: target.clone() });
    drop(transaction);
    volume.scene.end();
}

const CHILD: &str = "ZFS_TXN_VOLUME_CHILD";

/// No test by itself: dies with a transaction, in the middle of its receive or before.
#[test]
fn a_child_process_dies_with_a_transaction() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (when, target) = order.split_once(' ').unwrap();
    let (zfs, target) = (Zfs::open().unwrap(), target.parse().unwrap());
    let transaction = zfs.transaction(&target).strategy(Strategy::InPlace).begin();
    let mut transaction = transaction.unwrap();
    for block in 0..200 {
        write(transaction.path(), block, b'a');
    }
    if when == "receiving" {
        transaction.on_progress(|progress| match progress.bytes {
            0 => ControlFlow::Continue(()),
            _ => std::process::exit(7),
        });
        drop(transaction.commit());
    }
    std::process::exit(7);
}

/// I4: a process that dies leaves nothing of a volume's transaction that recovery doesn't remove.
#[test]
fn a_volume_is_as_it_was_when_its_transactions_process_has_died() {
    let volume = Volume::new(&[]);
    let before = State::of(&volume.scene, Identity::Kept);
    for when in ["open", "receiving"] {
        let order = format!("{when} {}", volume.target);
        let mut child = again("volumes::a_child_process_dies_with_a_transaction", CHILD, &order);
        assert_eq!(child.output().unwrap().status.code(), Some(7));
        assert_ne!(volume.scene.zfs.pending(&volume.target).unwrap(), []);
        let recovery = volume.scene.zfs.recover(&volume.scene.name("")).unwrap();
        assert!(recovery.unfinished.is_empty() && recovery.finished.len() == 1, "{recovery:?}");
        before.assert_same(&State::of(&volume.scene, Identity::Kept));
        assert_eq!(read(&File::open(&volume.device).unwrap(), 0), b'o');
    }
    volume.scene.end();
}
