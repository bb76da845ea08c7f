//! What is not UTF-8, and need not be: values and sources of properties, what is mounted and where, names of
//! snapshots that a channel program has made. Bytes are kept as they are, and stop nobody.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use zfs_txn::{CommitError, Condition, Conflict, DatasetName, Outcome, Strategy};

use crate::recovery::abandon;
use crate::support::Scene;
use crate::test_write::write;

const STRATEGIES: [Strategy; 2] = [Strategy::Promote, Strategy::InPlace];

/// ISO 8859-1: no UTF-8.
const NOTE: &[u8] = b"Gr\xfcn's \"\xff\\xfc";

fn zfs(args: &[&[u8]]) -> Vec<u8> {
    let args: Vec<&OsStr> = args.iter().map(|arg| OsStr::from_bytes(arg)).collect();
    let output = Command::new("zfs").args(&args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    output.stdout
}

fn set(dataset: &str, property: &str, value: &[u8]) {
    let assignment = [property.as_bytes(), b"=", value].concat();
    zfs(&[b"set", &assignment, dataset.as_bytes()]);
}

/// The value and whether it is the dataset's own.
fn get(dataset: &str, property: &str) -> (Vec<u8>, bool) {
    let found = |column: &[u8]| {
        let mut found = zfs(&[b"get", b"-Hpo", column, property.as_bytes(), dataset.as_bytes()]);
        assert_eq!(found.pop(), Some(b'\n'));
        found
    };
    (found(b"value"), found(b"source") == b"local")
}

/// Runs a channel program: names go to it byte by byte, and it checks none.
fn program(scene: &Scene, text: &[u8]) {
    let file = scene.pool.directory().join("program.lua");
    fs::write(&file, text).unwrap();
    let output = Command::new("zfs").arg("program").arg(scene.pool.name()).arg(file).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Where a dataset is mounted as a whole, byte by byte.
fn mounted(dataset: &DatasetName) -> Vec<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").unwrap();
    let fields = table.split(|b| *b == b'\n').map(|line| line.split(|b| *b == b' ').collect());
    let ours = fields.filter(|fields: &Vec<&[u8]>| {
        fields.len() > 5 && fields[fields.len() - 2] == dataset.as_str().as_bytes()
    });
    ours.map(|fields| PathBuf::from(OsStr::from_bytes(fields[4]))).collect()
}

#[test]
fn a_value_that_is_not_utf8_is_kept_byte_by_byte() {
    let scene = Scene::new();
    // Received values as well, and instructions for tools that have the workspace left alone meanwhile.
    let source = scene.dataset("source", &[]);
    set(source.as_str(), "org.example:received", NOTE);
    set(source.as_str(), "com.sun:auto-snapshot", NOTE);
    scene.pool.zfs(&["snapshot", &format!("{source}@s")]);
    for (number, strategy) in STRATEGIES.into_iter().enumerate() {
        let target = scene.name(&format!("t{number}"));
        let pipe = format!("zfs send -p {source}@s | zfs receive {target}");
        assert!(Command::new("sh").args(["-c", &pipe]).status().unwrap().success());
        set(target.as_str(), "org.example:note", NOTE);
        set(target.as_str(), "autobackup:daily", NOTE);
        let transaction = scene.zfs.transaction(&target).strategy(strategy).begin().unwrap();
        write(transaction.path().join("file"), "new").unwrap();
        transaction.commit().unwrap();
        for property in ["org.example:note", "autobackup:daily"] {
            assert_eq!(get(target.as_str(), property), (NOTE.to_vec(), true), "{property}");
        }
        for property in ["org.example:received", "com.sun:auto-snapshot"] {
            assert_eq!(get(target.as_str(), property).0, NOTE, "{property}");
        }
        assert_eq!(scene.read(&target), "new");
        // Exact: what differs in such a byte alone is not the same.
        let transaction = scene.zfs.transaction(&target).begin().unwrap();
        let other: Vec<u8> = NOTE.iter().map(|&byte| byte.min(0xfe)).collect();
        set(target.as_str(), "org.example:note", &other);
        let error = transaction.commit().unwrap_err();
        let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
        assert!(matches!(conflict, Conflict::SettingsChanged { .. }), "{conflict}");
        transaction.rollback().unwrap();
    }
    scene.end();
}

#[test]
fn one_value_that_is_not_utf8_stops_no_look_at_the_pool() {
    let scene = Scene::new();
    let pool: DatasetName = scene.pool.name().parse().unwrap();
    let [target, other] = ["t", "other"].map(|name| scene.dataset(name, &[]));
    let id = abandon(&scene, &target, "forget");
    set(other.as_str(), "zfs-txn:x", b"\xff");
    set(other.as_str(), "zfs-txn:made-by", b"\xff");
    set(other.as_str(), "org.example:note", NOTE);
    // Where a record could be.
    let bad = "00000000000000aa";
    scene.pool.zfs(&["snapshot", &format!("{other}@txn-{bad}")]);
    for carrier in [other.to_string(), format!("{other}@txn-{bad}")] {
        set(&carrier, &format!("zfs-txn:{bad}"), b"1;id=\xff;sum=0");
    }
    let unreadable = |pending: &[zfs_txn::Pending]| -> Vec<String> {
        let bad = pending.iter().filter(|pending| pending.id.to_string() == bad);
        bad.map(|pending| {
            assert!(matches!(pending.condition, Condition::Unreadable { .. }), "{pending:?}");
            pending.carrier.clone()
        })
        .collect()
    };
    let pending = scene.zfs.pending(&pool).unwrap();
    assert_eq!((pending.len(), unreadable(&pending).len()), (3, 2), "{pending:?}");
    assert_eq!(unreadable(&scene.zfs.sweep(&pool).unwrap().untouched).len(), 2);
    let recovery = scene.zfs.recover(&pool).unwrap();
    let finished: Vec<_> = recovery.finished.iter().map(|f| (f.id, f.outcome)).collect();
    assert_eq!(finished, [(id, Outcome::RolledBack)]);
    let mut carriers = unreadable(&recovery.untouched);
    carriers.sort();
    assert_eq!(carriers, [other.to_string(), format!("{other}@txn-{bad}")]);
    // Nor a transaction on the dataset itself.
    scene.pool.zfs(&["destroy", &format!("{other}@txn-{bad}")]);
    scene.publish(&other, "new");
    scene.pool.cleanup();
}

#[test]
fn a_name_that_is_not_utf8_hides_no_other_dataset() {
    let scene = Scene::new();
    let pool: DatasetName = scene.pool.name().parse().unwrap();
    let [target, other] = ["t", "other"].map(|name| scene.dataset(name, &[]));
    let id = abandon(&scene, &target, "forget");
    let bad = "00000000000000aa";
    let name = |leaf: &[u8]| [b"\"", other.as_str().as_bytes(), b"@", leaf, b"\""].concat();
    let [ordinary, carrier] = [&b"ordinary-\xff"[..], b"txn-\xff"].map(name);
    program(&scene, &[b"assert(zfs.sync.snapshot(", &ordinary[..], b") == 0)"].concat());
    program(&scene, &[b"assert(zfs.sync.snapshot(", &carrier[..], b") == 0)"].concat());
    let record = format!(", \"zfs-txn:{bad}\", \"1;sum=0\") == 0)");
    let text = [b"assert(zfs.sync.set_prop(", &carrier[..], record.as_bytes()];
    program(&scene, &text.concat());
    let recovery = scene.zfs.recover(&pool).unwrap();
    let finished: Vec<_> = recovery.finished.iter().map(|f| (f.id, f.outcome)).collect();
    assert_eq!(finished, [(id, Outcome::RolledBack)]);
    let [pending] = &recovery.untouched[..] else { panic!("{recovery:?}") };
    assert!(pending.carrier.starts_with(&format!("{other}@txn-")), "{pending:?}");
    assert!(matches!(pending.condition, Condition::Unreadable { .. }), "{pending:?}");
    // The dataset with these snapshots has its transactions all the same.
    for strategy in STRATEGIES {
        let transaction = scene.zfs.transaction(&other).strategy(strategy).begin().unwrap();
        write(transaction.path().join("file"), format!("{strategy:?}")).unwrap();
        transaction.commit().unwrap();
        assert_eq!(scene.read(&other), format!("{strategy:?}"));
    }
    let listed = zfs(&[b"list", b"-Ho", b"name", b"-t", b"snapshot", other.as_str().as_bytes()]);
    let lines = listed.split(|b| *b == b'\n').filter(|line| line.ends_with(b"\xff"));
    assert_eq!(lines.count(), 2, "{:?}", OsString::from_vec(listed.clone()));
    // One that the target gets meanwhile is found.
    let transaction = scene.begin(&other);
    program(&scene, &[b"assert(zfs.sync.snapshot(", &name(b"n\xff")[..], b") == 0)"].concat());
    write(transaction.path().join("file"), "after it").unwrap();
    let receipt = transaction.commit().unwrap();
    assert_eq!(receipt.strategy, Strategy::InPlace, "{receipt:?}");
    assert_eq!(scene.read(&other), "after it");
    // Nor does one of the workspace become the target's by being taken for destroyed.
    let transaction = scene.begin(&other);
    let workspace = format!("{other}-txn-{}", transaction.id());
    write(transaction.path().join("file"), "never").unwrap();
    let odd = [b"\"", workspace.as_bytes(), b"@w\xff\""].concat();
    program(&scene, &[b"assert(zfs.sync.snapshot(", &odd[..], b") == 0)"].concat());
    let error = transaction.commit().unwrap_err();
    let CommitError::Unchanged { error, transaction } = error else { panic!("{error}") };
    assert!(error.to_string().contains("@w\u{fffd}"), "{error}");
    assert_eq!(scene.read(&other), "after it");
    program(&scene, &[b"assert(zfs.sync.destroy(", &odd[..], b") == 0)"].concat());
    transaction.rollback().unwrap();
    scene.pool.cleanup();
}

#[test]
fn a_mount_point_that_is_not_utf8_is_kept() {
    let scene = Scene::new();
    let directory = scene.pool.directory().as_os_str().as_bytes().to_vec();
    let place = |below: &[u8]| {
        let path = [&directory[..], below].concat();
        // The `zfs` command mounts there, but can't make such a directory.
        fs::create_dir_all(OsStr::from_bytes(&path)).unwrap();
        path
    };
    let own = place(b"/Gr\xfcn");
    let target = scene.dataset("t", &[]);
    let child = scene.dataset("parent", &[]);
    set(target.as_str(), "mountpoint", &own);
    set(child.as_str(), "mountpoint", &place(b"/\xff\xfe"));
    let inherited = place(b"/\xff\xfe/inherits");
    let child = scene.name("parent/inherits");
    scene.pool.zfs(&["create", child.as_str()]);
    let places = [(&target, own), (&child, inherited)];
    for (target, path) in &places {
        let path = Path::new(OsStr::from_bytes(path));
        for strategy in STRATEGIES {
            let transaction = scene.zfs.transaction(target).strategy(strategy).begin().unwrap();
            write(transaction.path().join("file"), format!("{strategy:?}")).unwrap();
            transaction.commit().unwrap();
            assert_eq!(mounted(target), [path]);
            let said = fs::read_to_string(path.join("file")).unwrap();
            assert_eq!(said, format!("{strategy:?}"));
        }
    }
    // A new one, and below it one that inherits.
    let path = [&directory[..], b"/new-\xe9"].concat();
    let path = Path::new(OsStr::from_bytes(&path));
    let new = scene.name("new");
    let transaction = scene.zfs.transaction(&new).mountpoint(path).begin().unwrap();
    write(transaction.path().join("file"), "new").unwrap();
    let receipt = transaction.commit().unwrap();
    assert_eq!(receipt.mounted, [path]);
    assert_eq!(get(new.as_str(), "mountpoint"), (path.as_os_str().as_bytes().to_vec(), true));
    let below = scene.name("new/below");
    let receipt = scene.begin(&below).commit().unwrap();
    assert_eq!(receipt.mounted, [path.join("below")]);
    scene.pool.reimport();
    for (target, path) in [(&target, &places[0].1), (&child, &places[1].1)] {
        assert_eq!(mounted(target), [Path::new(OsStr::from_bytes(path))]);
    }
    scene.end();
}

#[test]
fn a_mount_that_is_not_utf8_is_seen() {
    let scene = Scene::new();
    let target = scene.dataset("t", &[]);
    let path = scene.mounted_at(&target).unwrap();
    let odd = path.join(OsStr::from_bytes(b"\xff"));
    for directory in [&path.join("plain"), &odd] {
        fs::create_dir(directory).unwrap();
    }
    let source = OsStr::from_bytes(b"Gr\xfcn \xff\\");
    for (source, place) in
        [(source, &path.join("plain")), (OsStr::new("none"), &odd), (source, &odd)]
    {
        let transaction = scene.begin(&target);
        write(transaction.path().join("file"), "new").unwrap();
        mount(source, place, "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>).unwrap();
        fs::write(place.join("theirs"), "theirs").unwrap();
        let error = transaction.commit().unwrap_err();
        let CommitError::Conflict { conflict, transaction } = error else { panic!("{error}") };
        let Conflict::MountBelow { path } = &conflict else { panic!("{conflict}") };
        assert_eq!(*path, place.display().to_string());
        assert_eq!(fs::read_to_string(place.join("theirs")).unwrap(), "theirs");
        unmount(place, UnmountFlags::empty()).unwrap();
        transaction.commit().unwrap();
    }
    scene.end();
}
