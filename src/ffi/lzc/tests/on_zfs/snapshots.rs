use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::thread;

use super::*;

#[test]
fn snapshots_are_all_or_none() {
    let (lzc, pool) = start();
    let (a, b) = (filesystem(lzc, &pool, "a"), filesystem(lzc, &pool, "b"));
    let mut props = none();
    props.add_str("test:note", "1").unwrap();
    let taken = format!("{a}@taken");
    lzc.snapshot(&[&taken], &props).unwrap();
    assert_eq!(pool.zfs(&["get", "-Ho", "value", "test:note", &taken]), "1\n");

    let free = format!("{b}@taken");
    let missing = pool.dataset("none@taken");
    let error = lzc.snapshot(&[&free, &taken], &none()).unwrap_err();
    assert_eq!(error.errno, Errno::EXIST);
    assert_eq!(error.per_name, [(taken, Errno::EXIST)]);
    assert!(!lzc.exists(&free).unwrap());
    let error = lzc.snapshot(&[&missing], &none()).unwrap_err();
    assert_eq!(error.per_name, [(missing, Errno::NOENT)]);
    pool.cleanup();
}

#[test]
fn destroy_snaps_is_all_or_none_and_ignores_missing_ones() {
    let (lzc, pool) = start();
    let a = filesystem(lzc, &pool, "a");
    let (free, held) = (snapshot(lzc, &a, "free"), snapshot(lzc, &a, "held"));
    lzc.hold(&[(&held, "tag")], None).unwrap();
    let error = lzc.destroy_snaps(&[&free, &held], false).unwrap_err();
    assert_eq!(error.errno, Errno::BUSY);
    assert_eq!(error.per_name, [(held.clone(), Errno::BUSY)]);
    assert!(lzc.exists(&free).unwrap());

    let clone = pool.dataset("clone");
    lzc.clone(&clone, &free, &quiet()).unwrap();
    let error = lzc.destroy_snaps(&[&free], false).unwrap_err();
    assert_eq!(error.per_name, [(free.clone(), Errno::EXIST)]);

    let missing = format!("{a}@missing");
    lzc.destroy_snaps(&[&free, &held, &missing], true).unwrap();
    assert!(lzc.exists(&free).unwrap() && lzc.exists(&held).unwrap());
    lzc.destroy(&clone).unwrap();
    lzc.release(&[(&held, "tag")]).unwrap();
    assert!(!lzc.exists(&free).unwrap() && !lzc.exists(&held).unwrap());
    lzc.destroy_snaps(&[], false).unwrap();
    pool.cleanup();
}

#[test]
fn holds() {
    let (lzc, pool) = start();
    let a = filesystem(lzc, &pool, "a");
    let s = snapshot(lzc, &a, "s");
    lzc.hold(&[(&s, "one")], None).unwrap();
    lzc.hold(&[(&s, "two")], None).unwrap();
    let holds = lzc.get_holds(&s).unwrap();
    let mut tags: Vec<_> = holds.iter().map(|(tag, _)| tag.to_str().unwrap()).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["one", "two"]);
    // A tag is whatever its maker likes.
    let odd = OsStr::from_bytes(b"Gr\xfcn");
    let hold = |verb| Command::new("zfs").arg(verb).arg(odd).arg(&s).status().unwrap();
    assert!(hold("hold").success());
    assert!(lzc.get_holds(&s).unwrap().iter().any(|(tag, _)| tag == odd));
    assert!(hold("release").success());
    assert!(holds.iter().all(|(_, time)| *time > 1_600_000_000), "{holds:?}");

    let error = lzc.hold(&[(&s, "one")], None).unwrap_err();
    assert_eq!(error.errno, Errno::EXIST);
    assert_eq!(error.per_name, [(s.clone(), Errno::EXIST)]);

    // The kernel returns no error for this, and holds what it can.
    let missing = format!("{a}@missing");
    let error = lzc.hold(&[(&s, "three"), (&missing, "three")], None).unwrap_err();
    assert_eq!(error.errno, Errno::NOENT);
    assert_eq!(error.per_name, [(missing.clone(), Errno::NOENT)]);
    assert_eq!(lzc.get_holds(&s).unwrap().len(), 3);

    lzc.release(&[(&s, "one"), (&s, "two")]).unwrap();
    let error = lzc.release(&[(&s, "one")]).unwrap_err();
    assert_eq!(error.per_name, [(format!("{s}#one"), Errno::NOENT)]);
    let error = lzc.release(&[(&missing, "one"), (&s, "three")]).unwrap_err();
    assert_eq!(error.per_name, [(missing.clone(), Errno::NOENT)]);
    assert_eq!(lzc.get_holds(&s).unwrap(), []);
    assert_eq!(lzc.get_holds(&missing).unwrap_err().errno, Errno::NOENT);
    pool.cleanup();
}

#[test]
fn a_hold_ends_with_its_file() {
    const O_EXCL: i32 = 0o200;
    let (lzc, pool) = start();
    let a = filesystem(lzc, &pool, "a");
    let s = snapshot(lzc, &a, "s");
    let dev =
        OpenOptions::new().read(true).write(true).custom_flags(O_EXCL).open("/dev/zfs").unwrap();
    lzc.hold(&[(&s, "temporary")], Some(dev.as_fd())).unwrap();
    assert_eq!(lzc.get_holds(&s).unwrap().len(), 1);
    drop(dev);
    let gone = (0..100).any(|_| {
        thread::sleep(std::time::Duration::from_millis(50));
        lzc.get_holds(&s).unwrap().is_empty()
    });
    assert!(gone);
    pool.cleanup();
}

#[test]
fn bookmarks() {
    let (lzc, pool) = start();
    let a = filesystem(lzc, &pool, "a");
    let s = snapshot(lzc, &a, "s");
    let mark = format!("{a}#mark");
    lzc.bookmark(&[(&mark, &s)]).unwrap();
    let error = lzc.bookmark(&[(&mark, &s)]).unwrap_err();
    assert_eq!(error.per_name, [(mark.clone(), Errno::EXIST)]);

    let guid = pool.zfs(&["get", "-Hpo", "value", "guid", &s]);
    let found = lzc.get_bookmarks(&a, &["guid", "createtxg"]).unwrap();
    let of_mark = found.list("mark").unwrap();
    assert_eq!(of_mark.list("guid").unwrap().u64("value").unwrap().to_string(), guid.trim());
    assert!(of_mark.contains("createtxg") && !of_mark.contains("creation"));

    // In the name space of a clone, from the snapshot that it comes from.
    let clone = pool.dataset("clone");
    lzc.clone(&clone, &s, &quiet()).unwrap();
    let of_clone = format!("{clone}#s");
    lzc.bookmark(&[(&of_clone, &s)]).unwrap();
    assert!(lzc.get_bookmarks(&clone, &[]).unwrap().contains("s"));

    let b = filesystem(lzc, &pool, "b");
    let stranger = format!("{b}#mark");
    let error = lzc.bookmark(&[(&stranger, &s)]).unwrap_err();
    assert_eq!(error.errno, Errno::ZFS_ERR_BOOKMARK_SOURCE_NOT_ANCESTOR);

    let missing = format!("{a}#missing");
    lzc.destroy_bookmarks(&[&mark, &missing]).unwrap();
    assert!(lzc.get_bookmarks(&a, &[]).unwrap().is_empty());
    let nowhere = pool.dataset("none");
    assert_eq!(lzc.get_bookmarks(&nowhere, &[]).unwrap_err().errno, Errno::NOENT);
    pool.cleanup();
}
