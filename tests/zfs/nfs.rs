//! What clients of a target that the kernel's NFS server exports see of a commit, over the loopback device.
//!
//! The server asks user space which path a file handle is about, and remembers the answer for half an hour, or
//! until `exportfs -f` (or `-r`) has it forget. The answers come from this test, as rpc.mountd would give them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::thread::sleep;
use std::time::{Duration, Instant};

use zfs_txn::{DatasetName, Receipt, Strategy};

use crate::busy::NAMES_PROCESSES;
use crate::support::{Scene, again};
use crate::test_mapping::Mapping;

/// `NFSEXP_INSECURE_PORT`, `NFSEXP_NOSUBTREECHECK`; root stays root.
const FLAGS: u32 = 0x402;
/// `NFSEXP_FSID`.
const FSID: u32 = 0x2000;
/// As long as clients believe attributes that they were told: by default from 3 to 60 seconds.
const REMEMBERED: Duration = Duration::from_secs(20);
/// What the server remembers.
const CACHES: [&str; 3] = ["nfsd.fh", "nfsd.export", "auth.unix.ip"];
/// `NFSEXP_CROSSMOUNT`.
const CROSS: u32 = 0x4000;

fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// By what an export is known in file handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// `fsid=N` of exports(5).
    Number(u8),
    /// The file system's own number, without that option.
    FileSystem,
}

struct Server {
    scene: Scene,
    /// Where the client has mounted the pool's root dataset, and asks for attributes each time.
    client: PathBuf,
    /// Where it believes for [`REMEMBERED`] what it knows of attributes and names.
    remembers: PathBuf,
    exports: Vec<(PathBuf, By)>,
    /// The numbers of file systems that were exported, also of those that are no more.
    known: RefCell<BTreeSet<String>>,
}

impl Server {
    fn start() -> Self {
        shell("modprobe -a nfsd nfsv4; busybox ip link set lo up");
        let scene = Scene::new();
        let client = scene.pool.directory().join("client");
        let remembers = scene.pool.directory().join("remembers");
        fs::create_dir(&client).unwrap();
        fs::create_dir(&remembers).unwrap();
        // The third version needs a portmapper. The server waits that long for clients of before.
        shell(
            "[ -e /proc/fs/nfsd/threads ] || mount -t nfsd nfsd /proc/fs/nfsd; cd /proc/fs/nfsd; \
             echo -3 >versions; echo 10 >nfsv4leasetime; echo 10 >nfsv4gracetime; \
             echo tcp 2049 >portlist; echo 2 >threads",
        );
        let server =
            Self { scene, client, remembers, exports: Vec::new(), known: RefCell::default() };
        Self::tell(&server.answers());
        for (at, seconds) in [(&server.client, 0), (&server.remembers, REMEMBERED.as_secs())] {
            shell(&format!(
                "mount -i -t nfs4 -o addr=127.0.0.1,clientaddr=127.0.0.1,vers=4.2,actimeo={seconds},soft,\
                 timeo=50 127.0.0.1:/ {}",
                at.display()
            ));
        }
        server
    }

    /// What mountd would tell the server: which cache, and the line.
    fn answers(&self) -> Vec<(&'static str, String)> {
        let end = 2_000_000_000;
        let mut lines = vec![("auth.unix.ip", format!("nfsd 127.0.0.1 {end} loop"))];
        let mut gone = self.known.borrow().clone();
        let mut export = |path: &Path, flags: u32, by: By| {
            let path = path.display();
            let (flags, number, uuid, kind, id) = match by {
                By::Number(number) => {
                    (flags | FSID, number, String::new(), 1, format!("{number:02x}000000"))
                }
                By::FileSystem => {
                    let id = shell(&format!("stat -f -c %i {path}")).trim().to_owned();
                    let id = format!("{id:0>32}");
                    gone.remove(&id);
                    self.known.borrow_mut().insert(id.clone());
                    (flags, 0, format!(" uuid \\x{id}"), 6, id)
                }
            };
            lines.push((
                "nfsd.export",
                format!("loop {path} {end} {flags} 65534 65534 {number}{uuid}"),
            ));
            lines.push(("nfsd.fh", format!("loop {kind} \\x{id} {end} {path}")));
        };
        export(&self.scene.pool.mountpoint(), FLAGS | CROSS, By::Number(0));
        for (path, by) in &self.exports {
            export(path, FLAGS, *by);
        }
        // There is no such file system any more.
        for id in gone {
            lines.push(("nfsd.fh", format!("loop 6 \\x{id} {end}")));
        }
        lines
    }

    fn tell(lines: &[(&str, String)]) {
        for (cache, line) in lines {
            let channel = format!("/proc/net/rpc/{cache}/channel");
            fs::write(channel, format!("{line}\n")).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    /// What `exportfs -f` does, and what mountd answers then. What is told later than that is not forgotten,
    /// not even in the same second.
    fn forget(&self) {
        let lines = self.answers();
        for cache in CACHES {
            fs::write(format!("/proc/net/rpc/{cache}/flush"), "2000000000").unwrap();
        }
        Self::tell(&lines);
    }

    /// Exports a new target: its name, and where it is on the server and the client.
    fn export(&mut self, name: &str, by: By) -> (DatasetName, (PathBuf, PathBuf)) {
        let target = self.scene.dataset(name, &[]);
        let path = self.scene.mounted_at(&target).unwrap();
        for file in ["written", "replaced", "stays"] {
            fs::write(path.join(file), "old").unwrap();
        }
        self.exports.push((path.clone(), by));
        Self::tell(&self.answers());
        let seen = self.client.join(name);
        (target, (path, seen))
    }

    fn end(self) {
        shell(&format!("umount --lazy {} {}", self.client.display(), self.remembers.display()));
        shell("echo 0 >/proc/fs/nfsd/threads");
        for cache in CACHES {
            fs::write(format!("/proc/net/rpc/{cache}/flush"), "2000000000").unwrap();
        }
        // The predecessors were in use by nobody but the server.
        let swept = self.scene.zfs.sweep(&self.scene.name("")).unwrap();
        assert!(swept.unfinished.is_empty(), "{swept:?}");
        self.scene.end();
    }
}

/// What comes of reading: the content, or how it failed.
type Seen = Result<String, i32>;

fn seen(result: std::io::Result<String>) -> Seen {
    result.map_err(|error| error.raw_os_error().unwrap())
}

fn by_path(path: &Path) -> Seen {
    seen(fs::read_to_string(path))
}

fn by_descriptor(file: &mut File) -> Seen {
    let mut text = String::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text));
    seen(read.map(|_| text))
}

const NAMES: [&str; 4] = ["written", "replaced", "stays", "added"];

/// What a client sees by descriptors that it has had open before, without the last name; and by paths.
#[derive(Debug, Clone, PartialEq, Eq)]
struct View([Seen; 3], [Seen; 4]);

impl View {
    /// Each as content, or as the number of an error.
    fn of(open: [&str; 3], paths: [&str; 4]) -> Self {
        let seen = |said: &str| said.parse().map_or_else(|_| Ok(said.to_owned()), Err);
        Self(open.map(seen), paths.map(seen))
    }
}

/// A client that has read the files, with some of them open.
struct Client {
    path: PathBuf,
    open: [File; 3],
    _writers: Vec<File>,
}

impl Client {
    /// By default the server lets clients keep what they have read until it calls that back (a delegation):
    /// not of files that others have open for writing.
    fn new((target, path): &(PathBuf, PathBuf), delegated: bool) -> Self {
        let names = if delegated { &NAMES[..0] } else { &NAMES[..3] };
        let writer = |name: &&str| File::options().write(true).open(target.join(name)).unwrap();
        let writers = names.iter().map(writer).collect();
        let open = [0, 1, 2].map(|number| File::open(path.join(NAMES[number])).unwrap());
        let mut client = Self { path: path.clone(), open, _writers: writers };
        assert_eq!(client.view(), View::of(["old"; 3], ["old", "old", "old", ENOENT]));
        client
    }

    fn view(&mut self) -> View {
        let paths = NAMES.map(|name| by_path(&self.path.join(name)));
        View(self.open.each_mut().map(by_descriptor), paths)
    }
}

const ENOENT: &str = "2";
const ESTALE: &str = "116";

/// Commits one file that is written into, one that is replaced, and one more.
fn commit(server: &Server, target: &DatasetName, strategy: Strategy) -> Receipt {
    let transaction = server.scene.zfs.transaction(target).strategy(strategy).begin().unwrap();
    let root = transaction.path();
    fs::write(root.join("written"), "new").unwrap();
    fs::remove_file(root.join("replaced")).unwrap();
    fs::write(root.join("replaced"), "new").unwrap();
    fs::write(root.join("added"), "new").unwrap();
    transaction.commit().unwrap()
}

/// One test, because there is one server.
#[test]
fn what_clients_see_of_a_commit() {
    let mut server = Server::start();
    // In place, the new content at once, by the handles that a client has.
    let (target, paths) = server.export("in-place", By::FileSystem);
    let mut client = Client::new(&paths, false);
    let receipt = commit(&server, &target, Strategy::InPlace);
    assert!(receipt.leftovers.is_empty(), "{receipt:?}");
    assert_eq!(client.view(), View::of(["new", ESTALE, "old"], ["new", "new", "old", "new"]));
    server.forget();
    assert_eq!(client.view(), View::of(["new", ESTALE, "old"], ["new", "new", "old", "new"]));
    drop(client);

    // By promote, the old content as a whole until the server forgets. Then the new, which is another file
    // system; with a number of its own the same one, in which what has the same number is the same file.
    let old = View::of(["old"; 3], ["old", "old", "old", ENOENT]);
    let new = ["new", "new", "old", "new"];
    for (name, by, delegated, then) in [
        ("file-system", By::FileSystem, false, View::of([ESTALE; 3], new)),
        ("number", By::Number(7), false, View::of(["new", ESTALE, "old"], new)),
        ("kept", By::Number(8), true, View::of(["old"; 3], ["old", "old", "old", "new"])),
    ] {
        let (target, paths) = server.export(name, by);
        let mut client = Client::new(&paths, delegated);
        let receipt = commit(&server, &target, Strategy::Promote);
        assert!(receipt.leftovers[0].name.contains("-old-"), "{receipt:?}");
        assert_eq!(client.view(), old);
        server.forget();
        assert_eq!(client.view(), then, "{name}");
    }

    // No delegation is called back: the server doesn't notice a receive.
    let (target, paths) = server.export("delegated", By::FileSystem);
    let mut client = Client::new(&paths, true);
    commit(&server, &target, Strategy::InPlace);
    assert_eq!(client.view(), View::of(["old"; 3], ["old", "old", "old", "new"]));
    drop(client);
    what_a_client_sees_that_remembers(&mut server);
    one_that_is_stuck_keeps_no_error_waiting(&mut server);
    server.end();
}

/// By default a client asks anew when a file is opened, and else when what it was told has expired.
fn what_a_client_sees_that_remembers(server: &mut Server) {
    let (target, (path, _)) = server.export("remembered", By::FileSystem);
    let seen = server.remembers.join("remembered");
    let changed = |at: &Path| fs::metadata(at.join("written")).unwrap().modified().unwrap();
    let begun = Instant::now();
    let mut client = Client::new(&(path.clone(), seen.clone()), false);
    let before = changed(&seen);
    commit(server, &target, Strategy::InPlace);
    let (open, stat) = (client.open.each_mut().map(by_descriptor), changed(&seen));
    let [written, replaced, stays, added] = client.view().1;
    // Not on a machine that was so slow that it has expired.
    if begun.elapsed() < REMEMBERED {
        assert_eq!((open, stat), (["old"; 3].map(|old| Ok(old.to_owned())), before));
        // Also that a name was not there is remembered.
        assert_eq!(added, Err(ENOENT.parse().unwrap()));
    }
    assert_eq!([written, replaced, stays], ["new", "new", "old"].map(|said| Ok(said.to_owned())));
    let now = (by_descriptor(&mut client.open[0]), changed(&seen));
    assert_eq!(now, (Ok("new".to_owned()), changed(&path)));
    sleep((REMEMBERED + Duration::from_secs(1)).saturating_sub(begun.elapsed()));
    assert_eq!(client.view(), View::of(["new", ESTALE, "old"], ["new", "new", "old", "new"]));
}

const STUCK: &str = "ZFS_TXN_STUCK";

/// Maps a file of a server that doesn't answer by then: the process holds the lock of its mappings while it asks
/// (`nfs_file_mmap`), and nobody can read what it has mapped.
#[test]
fn maps_a_file_when_it_is_told_to() {
    let Some(path) = std::env::var_os(STUCK) else { return };
    let file = File::open(path).unwrap();
    let waits = std::thread::spawn(move || {
        println!("ready");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        // Nothing is asked before.
        let _ = Mapping::part(&file, 3, false);
    });
    let _ = waits.join();
}

fn one_that_is_stuck_keeps_no_error_waiting(server: &mut Server) {
    let _alone = NAMES_PROCESSES.write().unwrap_or_else(PoisonError::into_inner);
    let (target, (path, seen)) = server.export("stuck", By::FileSystem);
    // So that the client gets no delegation, and has to ask.
    let _writer = File::options().write(true).open(path.join("stays")).unwrap();
    let name = "nfs::maps_a_file_when_it_is_told_to";
    let mut child = again(name, STUCK, seen.join("stays").to_str().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")));
    let transaction = server.scene.begin(&target);
    let file = File::open(transaction.path().join("file")).unwrap();
    // From now on the server doesn't answer.
    shell("busybox ip link set lo down");
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    sleep(Duration::from_secs(1));
    let maps = format!("/proc/{}/maps", child.id());
    let reads = std::thread::spawn(move || fs::read(maps).map(|read| read.len()));
    let error = transaction.rollback().unwrap_err().to_string();
    let is_stuck = !reads.is_finished();
    shell("busybox ip link set lo up");
    child.kill().unwrap();
    child.wait().unwrap();
    let _ = reads.join().unwrap();
    drop(file);
    assert!(is_stuck, "{error}");
    // Who was found until then is named.
    assert!(error.contains(&format!("used by process {} ", std::process::id())), "{error}");
    assert!(error.contains("whom it took too long to find"), "{error}");
    assert!(server.scene.zfs.sweep(&target).unwrap().unfinished.is_empty());
}
