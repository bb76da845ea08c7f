//! What the tests of mapped files share: a kernel that writes nothing back by itself, stores by this
//! process and by others, and mounts in other mount namespaces.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use zfs_txn::{DatasetName, Keeps, Receipt};

use crate::support::{Scene, again, assert_passed};
use crate::test_mapping::{Mapping, cached};

/// How often the kernel writes dirty pages back, and how old these have to be.
const FLUSHER: [(&str, &str); 2] = [
    ("/proc/sys/vm/dirty_writeback_centisecs", "0"),
    ("/proc/sys/vm/dirty_expire_centisecs", "360000"),
];

/// How many tests need the flusher to stand still, and how it was set before.
static STOPPED: Mutex<(usize, Vec<String>)> = Mutex::new((0, Vec::new()));

fn stopped() -> MutexGuard<'static, (usize, Vec<String>)> {
    STOPPED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As long as one of these is there, the kernel writes no dirty pages back on its own: what is stored
/// into a mapped file is in memory alone, until somebody asks for it. Other tests, which may do that
/// for the whole machine (`sync`), can make a test here pass, but not fail.
pub struct NoFlusher(());

impl NoFlusher {
    pub fn new() -> Self {
        let mut stopped = stopped();
        if stopped.0 == 0 {
            stopped.1 = FLUSHER.map(|(path, _)| fs::read_to_string(path).unwrap()).into();
            FLUSHER.iter().for_each(|(path, value)| fs::write(path, value).unwrap());
        }
        stopped.0 += 1;
        Self(())
    }
}

impl Drop for NoFlusher {
    fn drop(&mut self) {
        let mut stopped = stopped();
        stopped.0 -= 1;
        if stopped.0 == 0 {
            let before = std::mem::take(&mut stopped.1);
            for ((path, _), value) in FLUSHER.iter().zip(before) {
                let _ = fs::write(path, value);
            }
        }
    }
}

/// Waits until something is so, for a minute at most.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "waited for too long: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Makes a file of so many zeros, none of which is on disk.
pub fn make(path: &Path, length: u64) {
    File::create_new(path).unwrap().set_len(length).unwrap();
}

/// Stores bytes into a file through a mapping that is gone afterwards, and sees that they are in memory
/// alone.
pub fn store(path: &Path, offset: usize, bytes: &[u8]) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    store_by(&Mapping::of(&file, true), &file, offset, bytes);
}

/// As [`store`], through a mapping of `file` that is there already.
pub fn store_by(mapping: &Mapping, file: &File, offset: usize, bytes: &[u8]) {
    for _ in 0..50 {
        mapping.store(offset, bytes);
        if cached(file).dirty > 0 {
            return;
        }
    }
    panic!("what is stored into {file:?} is written back without a pause");
}

/// Maps a file once and reads all of it through the mapping: from now on, whoever reads the file reads
/// it through the kernel's page cache.
pub fn map_once(path: &Path) {
    let file = File::open(path).unwrap();
    map_once_of(&file);
}

pub fn map_once_of(file: &File) {
    Mapping::of(file, false).touch();
    assert!(cached(file).pages > 0, "nothing of {file:?} is cached");
}

/// What another process is to store, and where: `stay PATH OFFSET COUNT BYTE`, or `go` instead.
const ORDER: &str = "ZFS_TXN_STORE";

/// No test by itself: stores through a mapping, in a process of its own.
#[test]
fn another_process_stores() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let words: Vec<&str> = order.split(' ').collect();
    let [then, path, offset, count, byte] = words[..] else { panic!("{order}") };
    let bytes = vec![byte.parse().unwrap(); count.parse().unwrap()];
    let mapping = Mapping::writable(Path::new(path));
    mapping.store(offset.parse().unwrap(), &bytes);
    if then == "stay" {
        sleep(Duration::from_secs(600));
    }
}

fn process(then: &str, path: &Path, offset: usize, (count, byte): (usize, u8)) -> Command {
    let order = format!("{then} {} {offset} {count} {byte}", path.display());
    again("memory::another_process_stores", ORDER, &order)
}

/// A process stores so many bytes, and is gone afterwards.
pub fn store_by_another(path: &Path, offset: usize, bytes: (usize, u8)) {
    assert_passed(&process("go", path, offset, bytes).output().unwrap());
}

/// A process stores so many bytes and goes on to have the file mapped.
pub fn store_by_one_that_stays(path: &Path, offset: usize, bytes: (usize, u8)) -> Process {
    let mut command = process("stay", path, offset, bytes);
    let child = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let expected = vec![bytes.1; bytes.0];
    wait_until("a store by another process", || {
        fs::read(path).unwrap()[offset..offset + bytes.0] == expected
    });
    child
}

/// Another process, which is killed when this goes.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A dataset that is mounted in a mount namespace of another process, and nothing else of ZFS.
pub struct Elsewhere {
    process: Process,
    path: PathBuf,
}

impl Elsewhere {
    /// Mounts a dataset there, for the first time or once more.
    pub fn mount(scene: &Scene, target: &DatasetName) -> Self {
        let path = scene.pool.directory().join("elsewhere");
        fs::create_dir_all(&path).unwrap();
        // Mounts of other tests' pools would be kept busy.
        let script = "umount -a -l -t zfs; mount -t zfs -o zfsutil \"$0\" \"$1\" 2>/dev/null || \
                      mount -t zfs \"$0\" \"$1\" && echo ready && exec sleep 1000";
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script, target.as_str()])
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let process = Process(child);
        assert_eq!(said, "ready\n");
        Self { process, path }
    }

    /// A file in that mount, by a path that leads there from here.
    pub fn file(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.process.0.id()));
        root.join(self.path.strip_prefix("/").unwrap()).join(name)
    }
}

/// Mounts a filesystem or a snapshot for a look at it.
pub fn look_at<T>(scene: &Scene, name: &str, look: impl FnOnce(&Path) -> T) -> T {
    let at = tempfile::Builder::new().prefix("look-").tempdir_in(scene.pool.directory()).unwrap();
    let options = if name.contains('@') { "ro" } else { "zfsutil" };
    // The command insists on it, but for a legacy mount point.
    let mounted = [options, "rw"].iter().any(|options| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "zfs", "-o", options, name]).arg(at.path()).stderr(Stdio::null());
        mount.status().unwrap().success()
    });
    assert!(mounted, "{name} can't be mounted");
    let found = look(at.path());
    assert!(Command::new("umount").arg(at.path()).status().unwrap().success());
    found
}

/// Whether one of the leftovers that keep something has what is looked for.
pub fn is_kept(scene: &Scene, receipt: &Receipt, look: impl Fn(&Path) -> bool) -> bool {
    let mut keeps = receipt.leftovers.iter().filter(|left| left.keeps != Keeps::Nothing);
    keeps.any(|left| look_at(scene, &left.name, &look))
}

/// Mounts a dataset anew, so that all that is read is read from disk.
pub fn remount(scene: &Scene, target: &DatasetName) {
    scene.pool.zfs(&["unmount", target.as_str()]);
    scene.pool.zfs(&["mount", target.as_str()]);
}
