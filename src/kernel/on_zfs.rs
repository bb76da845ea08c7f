//! Verbs on real ZFS, with channel programs and without.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::engine::{Engine, PropertyValue};
use crate::errno::Errno;
use crate::ffi::lzc::ProgramMode;
use crate::ffi::nvlist::NvList;
use crate::kernel::Kernel;
use crate::name::DatasetName;
use crate::receipt::Strategy;
use crate::recovery::Condition;
use crate::test_pool::TestPool;
use crate::zfs::Zfs;

/// No UTF-8.
const BYTES: &[u8] = b"Gr\xfcn's \"\xff\\xfc";
const NOTE: &str = "org.example:note";
/// A tool's instruction, which a commit turns off on the workspace, and then gives back.
const TOOL: &str = "com.sun:auto-snapshot";

fn run(kernel: &Kernel, pool: &str, text: &str) {
    kernel.program(pool, text, &NvList::new().unwrap(), ProgramMode::Sync).unwrap();
}

#[test]
fn what_is_not_utf8_is_carried_with_programs_and_without() {
    let pool = TestPool::new();
    let programs = Kernel::open().unwrap();
    let bytes = OsStr::from_bytes(BYTES);
    for (name, kernel) in [("a", Kernel::open()), ("b", Kernel::open_plain())] {
        let kernel = Arc::new(kernel.unwrap());
        let zfs = Zfs::on(Arc::clone(&kernel) as Arc<dyn Engine>, None);
        let target: DatasetName = pool.dataset(name).parse().unwrap();
        let mut path: OsString = pool.directory().join(name).into();
        path.push(bytes);
        fs::create_dir(&path).unwrap();
        pool.zfs(&["create", target.as_str()]);
        for (property, value) in [(NOTE, bytes), (TOOL, bytes), ("mountpoint", &path)] {
            programs.libzfs.set_without_mounting(target.as_str(), property, value).unwrap();
        }
        pool.zfs(&["unmount", target.as_str()]);
        pool.zfs(&["mount", target.as_str()]);
        for strategy in [Strategy::Promote, Strategy::InPlace] {
            let transaction = zfs.transaction(&target).strategy(strategy).begin().unwrap();
            fs::write(transaction.path().join("file"), format!("{strategy:?}")).unwrap();
            transaction.commit().unwrap();
            let settings = kernel.settings(&target).unwrap();
            for (property, value) in [(NOTE, bytes), (TOOL, bytes), ("mountpoint", &path)] {
                let expected = PropertyValue::Text(value.into());
                assert_eq!(settings.own(property), Some(&expected), "{name} {strategy:?}");
            }
            assert_eq!(settings.claim.as_deref(), Some(Path::new(&path)));
            let facts = kernel.facts(target.as_str()).unwrap().unwrap();
            assert_eq!(facts.mountpoint, Path::new(&path));
            let said = fs::read_to_string(Path::new(&path).join("file")).unwrap();
            assert_eq!(said, format!("{strategy:?}"));
        }
        // One bad record among others.
        let record = "zfs-txn:00000000000000aa";
        for (property, value) in [(record, bytes), ("zfs-txn:x", bytes)] {
            programs.libzfs.set_without_mounting(target.as_str(), property, value).unwrap();
        }
        let found = kernel.walk(&target).unwrap().entries;
        assert!(found.iter().all(|entry| entry.value == bytes && entry.local), "{found:?}");
        assert_eq!(found.len(), 2);
        let recovery = zfs.recover(&target).unwrap();
        let [bad] = &recovery.untouched[..] else { panic!("{recovery:?}") };
        assert!(matches!(bad.condition, Condition::Unreadable { .. }), "{bad:?}");
        pool.zfs(&["inherit", record, target.as_str()]);
        pool.zfs(&["inherit", "zfs-txn:x", target.as_str()]);
    }
    pool.cleanup();
}

#[test]
fn a_name_that_is_not_utf8_is_an_error_of_its_own() {
    let pool = TestPool::new();
    let target: DatasetName = pool.dataset("t").parse().unwrap();
    pool.zfs(&["create", target.as_str()]);
    let programs = Kernel::open().unwrap();
    let base = format!("{target}@base");
    pool.zfs(&["snapshot", &base]);
    for leaf in ["n\\255", "txn-\\255"] {
        let text = format!("assert(zfs.sync.snapshot(\"{target}@{leaf}\") == 0)");
        run(&programs, pool.name(), &text);
    }
    let text = format!("zfs.sync.set_prop(\"{target}@txn-\\255\", \"zfs-txn:x\", \"1\")");
    run(&programs, pool.name(), &text);
    let found = programs.walk(&target).unwrap().entries;
    let [entry] = &found[..] else { panic!("{found:?}") };
    assert_eq!(entry.carrier, format!("{target}@txn-\u{fffd}"));
    assert_eq!(programs.snapshots_since(&target, &base).unwrap().len(), 2);
    // libzfs takes no such names.
    let plain = Kernel::open_plain().unwrap();
    assert_eq!(plain.walk(&target).unwrap().entries, []);
    let fault = plain.snapshots_since(&target, &base).unwrap_err();
    assert_eq!(fault.errno, Errno::ILSEQ);
    assert!(
        fault.detail.as_ref().is_some_and(|text| text.contains("\u{fffd} is not a name")),
        "{fault:?}"
    );
    assert!(plain.longest_snapshot(&target).unwrap() >= "txn-x".len());
    pool.cleanup();
}
