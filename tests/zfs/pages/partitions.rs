//! The partitions of a volume: their devices have pages of their own.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use zfs_txn::{CommitError, Conflict, DatasetName, Strategy, Transaction};

use super::assert_clean;
use crate::memory::wait_until;
use crate::support::Scene;
use crate::volumes::device_of;

const BLOCK: usize = 16_384;
const SECTOR: u64 = 512;
/// Where each partition begins, and how long it is, in sectors.
const PARTITIONS: [(u32, u32); 2] = [(2_048, 32_768), (40_960, 65_536)];
/// Linux's `O_EXCL`: on a block device, for oneself alone.
const EXCL: i32 = 0o200;

/// A volume with a table of two partitions, as of a virtual machine's disk, in which all is old.
struct Disk {
    scene: Scene,
    target: DatasetName,
    device: PathBuf,
}

impl Disk {
    fn new() -> Self {
        let scene = Scene::new();
        let target = scene.name("disk");
        let create = ["create", "-V", "64M", "-o", "volblocksize=16K", target.as_str()];
        scene.pool.zfs(&create);
        let device = device_of(target.as_str());
        let mut table = [0; SECTOR as usize];
        for (number, (first, count)) in PARTITIONS.into_iter().enumerate() {
            let entry = &mut table[446 + 16 * number..][..16];
            entry[4] = 0x83;
            entry[8..12].copy_from_slice(&first.to_le_bytes());
            entry[12..].copy_from_slice(&count.to_le_bytes());
        }
        table[510..].copy_from_slice(&[0x55, 0xaa]);
        let file = OpenOptions::new().write(true).open(&device).unwrap();
        file.write_all_at(&table, 0).unwrap();
        file.sync_all().unwrap();
        drop(file);
        PARTITIONS.iter().for_each(|partition| write(&device, start(*partition), b'o'));
        let disk = Self { scene, target, device };
        // Whoever looks at new devices keeps the table from being read again for a moment.
        wait_until("the partitions", || {
            let mut command = Command::new("blockdev");
            let read = command.arg("--rereadpt").arg(&disk.device).output().unwrap();
            read.status.success() && disk.partition(1).exists() && disk.partition(2).exists()
        });
        disk
    }

    fn partition(&self, number: usize) -> PathBuf {
        PathBuf::from(format!("{}p{number}", self.device.display()))
    }

    fn begin(&self) -> Transaction {
        let builder = self.scene.zfs.transaction(&self.target).strategy(Strategy::InPlace);
        builder.begin().unwrap()
    }
}

fn start(partition: (u32, u32)) -> u64 {
    u64::from(partition.0) * SECTOR
}

fn write(device: &Path, offset: u64, byte: u8) {
    let file = OpenOptions::new().write(true).open(device).unwrap();
    file.write_all_at(&[byte; BLOCK], offset).unwrap();
    file.sync_all().unwrap();
}

fn read(file: &File) -> u8 {
    let mut bytes = [0; BLOCK];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a torn block");
    bytes[0]
}

#[test]
fn what_a_partition_has_cached_is_read_as_new() {
    let disk = Disk::new();
    // As long as somebody has them open, their pages stay.
    let held = [1, 2].map(|number| File::open(disk.partition(number)).unwrap());
    let whole = File::open(&disk.device).unwrap();
    assert_eq!(held.each_ref().map(read), [b'o', b'o']);
    for byte in [b'a', b'b'] {
        let transaction = disk.begin();
        write(transaction.path(), start(PARTITIONS[1]), byte);
        assert_eq!(held.each_ref().map(read)[0], b'o');
        assert_clean(&transaction.commit().unwrap());
        assert_eq!(held.each_ref().map(read), [b'o', byte]);
        assert_eq!(read(&File::open(disk.partition(2)).unwrap()), byte);
    }
    drop((held, whole));
    disk.scene.end();
}

/// What is written by a partition's device is in its pages alone.
#[test]
fn a_write_by_a_partition_is_a_conflict() {
    let disk = Disk::new();
    let file = OpenOptions::new().read(true).write(true).open(disk.partition(1)).unwrap();
    file.write_all_at(&[b'p'; BLOCK], 0).unwrap();
    let transaction = disk.begin();
    let mut seen = [0; 1];
    let workspace = File::open(transaction.path()).unwrap();
    workspace.read_exact_at(&mut seen, start(PARTITIONS[0])).unwrap();
    assert_eq!(&seen, b"p", "what was written before begin is not in the workspace");
    drop(workspace);
    write(transaction.path(), start(PARTITIONS[1]), b'a');
    file.write_all_at(&[b't'; BLOCK], BLOCK as u64).unwrap();
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert_eq!(conflict, Conflict::Modified { target: disk.target.clone() });
    transaction.rollback().unwrap();
    drop(file);
    disk.scene.end();
}

#[test]
fn a_partition_that_is_claimed_is_a_conflict() {
    let disk = Disk::new();
    let transaction = disk.begin();
    write(transaction.path(), start(PARTITIONS[1]), b'a');
    let mut claim = OpenOptions::new();
    let claim = claim.read(true).custom_flags(EXCL).open(disk.partition(2)).unwrap();
    let error = transaction.commit().unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    let Conflict::InUse { target, path } = &conflict else { panic!("{conflict}") };
    assert_eq!(target, &disk.target);
    // The disk's, or the partition's own.
    let devices = [disk.device.clone(), disk.partition(2)];
    assert!(devices.iter().any(|device| device == Path::new(path)), "{path}");
    assert_eq!(read(&claim), b'o');
    drop(claim);
    assert_clean(&transaction.commit().unwrap());
    assert_eq!(read(&File::open(disk.partition(2)).unwrap()), b'a');
    disk.scene.end();
}
