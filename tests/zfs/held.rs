//! What a process that holds something of the target sees when a commit lands: a row of the table in
//! docs/design.md for each test, with a column for each strategy.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use zfs_txn::{CommitError, Conflict, DatasetName, Receipt, Strategy};

use crate::support::{Scene, run};
use crate::test_pool::figures;

const EIO: i32 = 5;

/// A target with a directory that has some files.
struct Held {
    scene: Scene,
    target: DatasetName,
    path: PathBuf,
}

impl Held {
    fn new() -> Self {
        let scene = Scene::new();
        let target = scene.dataset("t", &[]);
        let path = scene.mounted_at(&target).unwrap();
        fs::create_dir(path.join("directory")).unwrap();
        for name in ["file", "directory/file"] {
            fs::write(path.join(name), "old").unwrap();
        }
        fs::copy("/bin/sleep", path.join("program")).unwrap();
        Self { scene, target, path }
    }

    fn try_commit(
        &self,
        strategy: Strategy,
        change: impl Fn(&Path),
    ) -> Result<Receipt, CommitError> {
        let transaction = self.scene.zfs.transaction(&self.target).strategy(strategy).begin();
        let transaction = transaction.unwrap();
        change(transaction.path());
        transaction.commit()
    }

    fn commit(&self, strategy: Strategy, change: impl Fn(&Path)) -> Receipt {
        self.try_commit(strategy, change).unwrap()
    }

    /// When nothing is held any more, what was kept for it can go.
    fn end(self) {
        let swept = self.scene.zfs.sweep(&self.scene.name("")).unwrap();
        assert!(swept.unfinished.is_empty(), "{swept:?}");
        self.scene.end();
    }
}

fn read(file: &mut File) -> Result<String, i32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    let read = file.read_to_string(&mut text);
    read.map(|_| text).map_err(|error| error.raw_os_error().unwrap())
}

/// What a descriptor of `file` reads after a commit with a change.
fn descriptor(strategy: Strategy, change: impl Fn(&Path)) -> Result<String, i32> {
    let held = Held::new();
    let mut file = File::open(held.path.join("file")).unwrap();
    held.commit(strategy, change);
    let found = read(&mut file);
    drop(file);
    held.end();
    found
}

#[test]
fn a_descriptor_of_a_file_that_is_written_into() {
    let write = |root: &Path| fs::write(root.join("file"), "new").unwrap();
    assert_eq!(descriptor(Strategy::Promote, write).as_deref(), Ok("old"));
    assert_eq!(descriptor(Strategy::InPlace, write).as_deref(), Ok("new"));
}

#[test]
fn a_descriptor_of_a_file_that_is_replaced() {
    let replace = |root: &Path| {
        fs::write(root.join("new"), "new").unwrap();
        fs::rename(root.join("new"), root.join("file")).unwrap();
    };
    assert_eq!(descriptor(Strategy::Promote, replace).as_deref(), Ok("old"));
    assert_eq!(descriptor(Strategy::InPlace, replace), Err(EIO));
}

#[test]
fn a_descriptor_of_a_file_that_is_deleted() {
    let delete = |root: &Path| fs::remove_file(root.join("file")).unwrap();
    assert_eq!(descriptor(Strategy::Promote, delete).as_deref(), Ok("old"));
    assert_eq!(descriptor(Strategy::InPlace, delete), Err(EIO));
}

/// What is written by it afterwards is in the old content, which is kept, or in the new.
#[test]
fn a_descriptor_that_is_written_by_after_the_commit() {
    for (strategy, expected) in [(Strategy::Promote, "new"), (Strategy::InPlace, "NEW")] {
        let held = Held::new();
        let file = File::options().write(true).open(held.path.join("file")).unwrap();
        let write = |root: &Path| fs::write(root.join("file"), "new").unwrap();
        let receipt = held.commit(strategy, write);
        file.write_all_at(b"NEW", 0).unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(held.path.join("file")).unwrap(), expected);
        let kept = receipt.leftovers.iter().any(|left| left.name.contains("-old-"));
        assert_eq!(kept, strategy == Strategy::Promote, "{receipt:?}");
        // It has what is nowhere else: a sweep leaves it alone.
        let swept = held.scene.zfs.sweep(&held.scene.name("")).unwrap();
        assert_eq!(swept.unfinished.len(), usize::from(kept), "{swept:?}");
        held.scene.pool.cleanup();
    }
}

#[test]
fn a_descriptor_of_a_directory() {
    for (strategy, expected) in [(Strategy::Promote, "old"), (Strategy::InPlace, "new")] {
        let held = Held::new();
        let directory = File::open(held.path.join("directory")).unwrap();
        let below = format!("/proc/self/fd/{}", directory.as_raw_fd());
        held.commit(strategy, |root| {
            fs::write(root.join("directory/file"), "new").unwrap();
            fs::write(root.join("directory/added"), "new").unwrap();
        });
        let below = Path::new(&below);
        assert_eq!(fs::read_to_string(below.join("file")).unwrap(), expected);
        assert_eq!(below.join("added").exists(), strategy == Strategy::InPlace);
        drop(directory);
        held.end();
    }
}

/// A shell in the target, that answers one line for each command.
struct Shell(Child, BufReader<std::process::ChildStdout>);

impl Shell {
    fn start(directory: &Path) -> Self {
        let mut shell = Command::new("sh")
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(shell.stdout.take().unwrap());
        Self(shell, said)
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.0.stdin.as_mut().unwrap(), "{command} 2>&1; echo").unwrap();
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn a_current_directory() {
    for (strategy, expected) in [(Strategy::Promote, "old"), (Strategy::InPlace, "new")] {
        let held = Held::new();
        let mut shell = Shell::start(&held.path.join("directory"));
        assert_eq!(shell.ask("cat file"), "old");
        held.commit(strategy, |root| fs::write(root.join("directory/file"), "new").unwrap());
        assert_eq!(shell.ask("cat file"), expected);
        // An absolute path, and going there anew, lead to the new content.
        let absolute = held.path.join("directory");
        assert_eq!(shell.ask(&format!("cat {}/file", absolute.display())), "new");
        assert_eq!(shell.ask(&format!("cd {}; cat file", absolute.display())), "new");
        shell.end();
        held.end();
    }
}

#[test]
fn a_current_directory_that_is_deleted() {
    for strategy in [Strategy::Promote, Strategy::InPlace] {
        let held = Held::new();
        let mut shell = Shell::start(&held.path.join("directory"));
        held.commit(strategy, |root| fs::remove_dir_all(root.join("directory")).unwrap());
        let said = shell.ask("cat file");
        match strategy {
            Strategy::Promote => assert_eq!(said, "old"),
            _ => assert!(said.contains("Input/output error"), "{said}"),
        }
        shell.end();
        held.end();
    }
}

/// A program that runs from the target, and so has a file of it mapped.
struct Program {
    child: Child,
    memory: File,
    /// Where the file's first page is.
    start: u64,
}

impl Program {
    fn start(path: &Path) -> Self {
        let child = run(Command::new(path).arg("1000"));
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        // The kernel closes what tells of the exec before it maps the file.
        let find = || {
            let maps = fs::read_to_string(process.join("maps")).unwrap();
            let first = maps.lines().find(|line| line.ends_with("/program"))?;
            u64::from_str_radix(first.split('-').next()?, 16).ok()
        };
        let start = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            find()
        });
        let start = start.unwrap();
        Self { child, memory: File::open(process.join("mem")).unwrap(), start }
    }

    /// The first page of the file, as the process sees it.
    fn mapped(&self) -> Vec<u8> {
        let mut page = vec![0; 4096];
        self.memory.read_exact_at(&mut page, self.start).unwrap();
        page
    }

    fn end(mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "it has died");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_mapping_of_a_file_that_stays() {
    for strategy in [Strategy::Promote, Strategy::InPlace] {
        let held = Held::new();
        let program = Program::start(&held.path.join("program"));
        let before = program.mapped();
        held.commit(strategy, |root| fs::write(root.join("file"), "new").unwrap());
        assert!(program.mapped() == before);
        program.end();
        held.end();
    }
}

#[test]
fn a_mapping_of_a_file_that_is_replaced() {
    for strategy in [Strategy::Promote, Strategy::InPlace] {
        let held = Held::new();
        let program = Program::start(&held.path.join("program"));
        let before = program.mapped();
        held.commit(strategy, |root| {
            fs::write(root.join("new"), vec![7; 9000]).unwrap();
            fs::rename(root.join("new"), root.join("program")).unwrap();
        });
        assert!(program.mapped() == before);
        assert_eq!(fs::read(held.path.join("program")).unwrap(), vec![7; 9000]);
        program.end();
        held.end();
    }
}

#[test]
fn a_mapping_of_a_file_that_is_written_into() {
    let write = |root: &Path| fs::write(root.join("program"), vec![7; 9000]).unwrap();
    let held = Held::new();
    let program = Program::start(&held.path.join("program"));
    let before = program.mapped();
    let error = held.try_commit(Strategy::InPlace, write).unwrap_err();
    let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
    assert!(matches!(conflict, Conflict::InUse { .. }), "{conflict}");
    drop(transaction);
    held.commit(Strategy::Promote, write);
    assert!(program.mapped() == before);
    assert_eq!(fs::read(held.path.join("program")).unwrap(), vec![7; 9000]);
    program.end();
    held.end();
}

/// A commit whose change is visible waits for readers for a second in all, whatever it has to remove.
#[test]
fn a_file_that_stays_open_makes_a_commit_wait_for_about_a_second() {
    let held = Held::new();
    let commit = || {
        let transaction = held.scene.begin(&held.target);
        fs::write(transaction.path().join("file"), "new").unwrap();
        let begun = Instant::now();
        let receipt = transaction.commit().unwrap();
        (begun.elapsed(), receipt)
    };
    let (mut free, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let (took, receipt) = commit();
        assert!(receipt.leftovers.is_empty(), "{receipt:?}");
        free.push(took);
        let file = File::open(held.path.join("file")).unwrap();
        let (took, receipt) = commit();
        assert!(receipt.leftovers[0].name.contains("-old-"), "{receipt:?}");
        busy.push(took);
        drop(file);
        let swept = held.scene.zfs.sweep(&held.target).unwrap();
        assert!(swept.unfinished.is_empty(), "{swept:?}");
    }
    figures(&format!("commits by promote: {free:?}; with a file held open: {busy:?}"));
    // The budget, and the few txgs that it takes to keep the predecessor. A slow machine has slow moments,
    // but not each time.
    let more = busy.iter().zip(&free).map(|(busy, free)| busy.saturating_sub(*free));
    assert!(more.min().unwrap() < Duration::from_millis(2_200), "{free:?}, {busy:?}");
    held.end();
}

/// Who closes within that second keeps nothing. On a slow machine a second is not long: one of several.
#[test]
fn a_file_that_is_closed_soon_after_the_commit_point_keeps_nothing() {
    let held = Held::new();
    let mut commit = |generation: u32| {
        let new = generation.to_string();
        let transaction = held.scene.begin(&held.target);
        fs::write(transaction.path().join("file"), &new).unwrap();
        let path = held.path.join("file");
        let file = File::open(&path).unwrap();
        let reader = std::thread::spawn(move || {
            // Before Linux 6.5 there is nothing at the path for a moment.
            while fs::read_to_string(&path).ok().as_ref() != Some(&new) {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(100));
            drop(file);
        });
        let receipt = transaction.commit().unwrap();
        reader.join().unwrap();
        held.scene.zfs.sweep(&held.target).unwrap();
        receipt.leftovers.is_empty()
    };
    assert!((1..=5).any(&mut commit));
    held.end();
}
