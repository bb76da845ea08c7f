use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, RenameFlags, mkdirat, open, openat, renameat_with};

use super::*;
use crate::ownership::Ownership;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn change_time(path: &Path) -> (i64, i64) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.ctime(), meta.ctime_nsec())
}

fn try_apply(ownership: &Ownership, root: &Path) -> Result<(), Fault> {
    let root = open(root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    ownership.resolve().unwrap().apply(root.as_fd())
}

fn apply(ownership: &Ownership, root: &Path) {
    try_apply(ownership, root).unwrap();
}

fn own_ids() -> Ownership {
    let meta = fs::metadata("/proc/self").unwrap();
    Ownership::new().user(meta.uid()).group(meta.gid())
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn the_root_alone_unless_the_whole_tree_is_asked_for() {
    let dir = temporary();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    set(&file, 0o600);
    apply(&own_ids().mode(0o2775), dir.path());
    assert_eq!((mode(dir.path()), mode(&file)), (0o2775, 0o600));
}

#[test]
fn a_tree_is_changed_without_following_links_and_files_get_no_new_execute_bit() {
    let outside = temporary();
    let secret = outside.path().join("secret");
    fs::write(&secret, "x").unwrap();
    set(&secret, 0o600);
    let dir = temporary();
    let sub = dir.path().join("a/b");
    fs::create_dir_all(&sub).unwrap();
    let (data, program) = (sub.join("data"), sub.join("program"));
    for (path, bits) in [(&data, 0o600), (&program, 0o4700)] {
        fs::write(path, "x").unwrap();
        set(path, bits);
    }
    symlink(&secret, dir.path().join("link")).unwrap();
    symlink(outside.path(), dir.path().join("dirlink")).unwrap();
    apply(&own_ids().mode(0o2775).whole_tree(), dir.path());
    assert_eq!(mode(&sub), 0o2775);
    assert_eq!(mode(&data), 0o664);
    assert_eq!(mode(&program), 0o775);
    assert_eq!(mode(&secret), 0o600);
    assert_ne!(mode(outside.path()), 0o2775);
}

#[test]
fn what_is_right_is_not_touched() {
    let dir = temporary();
    let paths =
        ["", "dir", "dir/program", "data", "link", "pipe"].map(|name| dir.path().join(name));
    let [root, sub, program, data, link, pipe] = &paths;
    fs::create_dir(sub).unwrap();
    fs::write(program, "x").unwrap();
    fs::write(data, "x").unwrap();
    symlink("nowhere", link).unwrap();
    rustix::fs::mknodat(CWD, pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
    for (path, bits) in
        [(root, 0o2775), (sub, 0o2775), (program, 0o775), (data, 0o664), (pipe, 0o664)]
    {
        set(path, bits);
    }
    let before = paths.each_ref().map(|path| change_time(path));
    thread::sleep(std::time::Duration::from_millis(20));
    apply(&own_ids().mode(0o2775).whole_tree(), dir.path());
    assert_eq!(paths.each_ref().map(|path| change_time(path)), before);
    set(program, 0o4755);
    apply(&own_ids().whole_tree(), dir.path());
    assert_eq!(mode(program), 0o4755, "nothing was asked for that takes it away");
}

/// Something else is put in an entry's place, over and over: a link out of the tree.
#[test]
fn no_link_is_followed_that_is_swapped_in_between_two_calls() {
    let outside = temporary();
    let secret = outside.path().join("secret");
    fs::write(&secret, "x").unwrap();
    set(&secret, 0o600);
    let dir = temporary();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "x").unwrap();
    symlink(&secret, &link).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                renameat_with(CWD, &file, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for round in 0..20_000_u32 {
            let asked = Ownership::new().mode([0o777, 0o770][round as usize % 2]).whole_tree();
            if try_apply(&asked, dir.path()).is_err() || mode(&secret) != 0o600 {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(mode(&secret), 0o600);
    apply(&Ownership::new().mode(0o750).whole_tree(), dir.path());
}

#[test]
fn a_tree_that_is_deeper_than_a_path_may_be_long() {
    let dir = temporary();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = open(dir.path(), flags, Mode::empty()).unwrap();
    for level in 0..40 {
        let name = format!("{level:0200}");
        mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = openat(&at, &name, flags, Mode::empty()).unwrap();
    }
    let file = openat(&at, "file", OFlags::CREATE | OFlags::RDWR, Mode::RWXU).unwrap();
    apply(&Ownership::new().mode(0o750).whole_tree(), dir.path());
    assert_eq!(fstat(&file).unwrap().st_mode & 0o7777, 0o750);
}

#[test]
fn an_error_names_the_file_to_the_byte() {
    let dir = temporary();
    let name = OsStr::from_bytes(b"Gr\xfcn\n");
    fs::create_dir(dir.path().join("a")).unwrap();
    let path = PathBuf::from("a").join(name);
    let errno = Errno::PERM;
    let below = Below::root().join(b"a").join(name.as_bytes());
    let fault = Failure { flag: Some("immutable"), ..Act::Give.failed(errno) }.of(&below);
    let told = format!("{path:?}: its owner or group can't be changed, it is immutable");
    assert_eq!(fault.detail.as_deref(), Some(told.as_str()));
    assert!(told.contains(r"Gr\xFCn\n"), "{told}");
    let fault = Act::Look.failed(errno).of(&Below::root());
    assert_eq!(fault.detail.as_deref(), Some("\".\": its status can't be read"));
}

#[test]
fn a_mode_is_set_by_a_path_to_the_descriptor_where_there_is_no_call() {
    let dir = temporary();
    let (path, moved) = (dir.path().join("file"), dir.path().join("moved"));
    fs::write(&path, "x").unwrap();
    let file = open(&path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap();
    fs::rename(&path, &moved).unwrap();
    symlink("/nowhere", &path).unwrap();
    chmod(path_to(file.as_fd()).unwrap(), Mode::from_raw_mode(0o640)).unwrap();
    assert_eq!(mode(&moved), 0o640);
    set_mode(file.as_fd(), Mode::from_raw_mode(0o604)).unwrap();
    assert_eq!(mode(&moved), 0o604);
}
