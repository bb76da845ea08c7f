#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use super::*;

#[test]
fn libzfs_numbers_become_the_nearest_of_the_systems() {
    assert_eq!(nearest_errno(c::zfs_error::EZFS_NOENT), Errno::NOENT);
    assert_eq!(nearest_errno(c::zfs_error::EZFS_WRONG_PARENT), Errno::ZFS_ERR_WRONG_PARENT);
    assert_eq!(nearest_errno(c::zfs_error::EZFS_BADPROP), Errno::INVAL);
    // The library's last number, which says that it doesn't know, has another value in each line.
    for unknown in [2_098, c::zfs_error::EZFS_UNKNOWN.0, 99_999] {
        assert_eq!(nearest_errno(c::zfs_error(unknown)), Errno::IO);
    }
}

mod on_zfs {
    use std::fs;
    use std::thread;
    use std::time::Instant;

    use super::*;
    use crate::ffi::lzc::DatasetKind;
    use crate::test_pool::{TestPool, figures};

    fn start() -> (LibZfs, TestPool) {
        (LibZfs::open(Lzc::open().unwrap()).unwrap(), TestPool::new())
    }

    /// Where a dataset is mounted.
    fn mounts(name: &str) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        fields.filter(|fields| fields[0] == name).map(|fields| fields[1].to_owned()).collect()
    }

    #[test]
    fn what_is_below_a_dataset_and_what_was_written_to_it() {
        let (libzfs, pool) = start();
        let (a, snapshot) = (pool.dataset("a"), pool.dataset("a@s"));
        pool.zfs(&["create", &a]);
        pool.zfs(&["create", "-V", "1M", &pool.dataset("a/v")]);
        pool.zfs(&["create", &pool.dataset("a/b")]);
        pool.zfs(&["create", &pool.dataset("a/b/c")]);
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        let children = libzfs.children(&a).unwrap();
        assert!(children.iter().all(|child| child.opens));
        let children = sorted(children.into_iter().map(|child| child.name).collect());
        assert_eq!(children, [pool.dataset("a/b"), pool.dataset("a/v")]);
        assert!(libzfs.children(&pool.dataset("a/v")).unwrap().is_empty());
        pool.zfs(&["snapshot", &snapshot]);
        pool.zfs(&["snapshot", &pool.dataset("a@t")]);
        let snapshots = sorted(libzfs.snapshots(&a).unwrap());
        assert_eq!(snapshots, [snapshot.clone(), pool.dataset("a@t")]);
        assert_eq!(libzfs.written(&a, &snapshot), Ok(0));
        let path = pool.mountpoint().join("a");
        assert_eq!(libzfs.mountpoint(&a).unwrap(), path);
        fs::write(path.join("file"), vec![7; 1 << 20]).unwrap();
        pool.sync();
        assert!(libzfs.written(&a, &snapshot).unwrap() > 0);
        let missing = pool.dataset("missing");
        assert_eq!(libzfs.children(&missing).unwrap_err().errno, Errno::NOENT);
        assert_eq!(libzfs.written(&a, &pool.dataset("a@u")).unwrap_err().errno, Errno::NOENT);
        pool.cleanup();
    }

    #[test]
    fn a_handle_keeps_no_error_of_an_earlier_call() {
        let (libzfs, pool) = start();
        assert_eq!(libzfs.props(&pool.dataset("missing")).unwrap_err().errno, Errno::NOENT);
        // All that are idle, and one more.
        let handles: Vec<Handle> = (0..=KEPT).map(|_| Handle::take().unwrap()).collect();
        assert!(handles.iter().all(|handle| !handle.has_failed()));
        drop(handles);
        pool.cleanup();
    }

    #[test]
    fn properties_of_datasets_and_snapshots_are_cleared_but_for_the_mountpoint() {
        let (libzfs, pool) = start();
        let (a, snapshot) = (pool.dataset("a"), pool.dataset("a@s"));
        pool.zfs(&["create", "-o", "test:note=x", "-o", "readonly=off", &a]);
        pool.zfs(&["snapshot", "-o", "test:mark=y", &snapshot]);
        libzfs.set_without_mounting(&snapshot, "test:mark", "z").unwrap();
        assert_eq!(pool.zfs(&["get", "-Ho", "value", "test:mark", &snapshot]), "z\n");
        for (name, property) in [(&a, "test:note"), (&a, "readonly"), (&snapshot, "test:mark")] {
            libzfs.inherit(name, property).unwrap();
            let source = pool.zfs(&["get", "-Ho", "source", property, name]);
            assert!(["-\n", "default\n"].contains(&source.as_str()), "{property}: {source}");
        }
        assert_eq!(libzfs.inherit(&a, "mountpoint").unwrap_err().errno, Errno::INVAL);
        pool.cleanup();
    }

    #[test]
    fn props_with_their_sources() {
        let (libzfs, pool) = start();
        let (a, b) = (pool.dataset("a"), pool.dataset("a/b"));
        pool.zfs(&["create", "-o", "test:note=ü", "-o", "quota=100M", &a]);
        pool.zfs(&["create", &b]);
        let props = libzfs.props(&a).unwrap();
        assert_eq!(props.list("quota").unwrap().u64("value"), Ok(100 << 20));
        assert_eq!(props.list("quota").unwrap().str("source"), Ok(a.as_str()));
        assert_eq!(props.list("test:note").unwrap().str("value"), Ok("ü"));
        let guid = pool.zfs(&["get", "-Hpo", "value", "guid", &a]);
        let read = props.list("guid").unwrap();
        assert_eq!(read.u64("value").unwrap().to_string(), guid.trim());
        assert!(!read.contains("source"));
        // At its default, a property that can be set isn't there.
        assert!(!props.contains("copies"), "{props:?}");

        let props = libzfs.props(&b).unwrap();
        assert_eq!(props.list("test:note").unwrap().str("source"), Ok(a.as_str()));

        pool.zfs(&["snapshot", &format!("{a}@s")]);
        let props = libzfs.props(&format!("{a}@s")).unwrap();
        assert!(props.contains("createtxg") && props.contains("test:note"), "{props:?}");
        pool.zfs(&["create", "-V", "1M", &pool.dataset("v")]);
        let props = libzfs.props(&pool.dataset("v")).unwrap();
        assert_eq!(props.list("volsize").unwrap().u64("value"), Ok(1 << 20));
        pool.cleanup();
    }

    #[test]
    fn what_is_not_there_or_no_name_is_an_error() {
        let (libzfs, pool) = start();
        for missing in ["none", "none/child", "@none"] {
            let missing = pool.dataset(missing);
            let error = libzfs.props(&missing).unwrap_err();
            assert_eq!((error.call, error.errno), ("zfs_open", Errno::NOENT), "{error}");
            assert_eq!(error.dataset, missing);
        }
        assert_eq!(libzfs.props("zfstxn-test-none").unwrap_err().errno, Errno::NOENT);
        for bad in ["a\0b", "/slash", "with space", ""] {
            assert!(libzfs.props(bad).is_err(), "{bad:?}");
        }
        let snapshot = pool.dataset("@s");
        pool.zfs(&["snapshot", &snapshot]);
        assert_eq!(libzfs.permissions(&snapshot).unwrap_err().errno, Errno::INVAL);
        pool.cleanup();
    }

    #[test]
    fn setting_a_mountpoint_leaves_the_mount_where_it_is() {
        let (libzfs, pool) = start();
        let (a, b) = (pool.dataset("a"), pool.dataset("a/b"));
        pool.zfs(&["create", &a]);
        pool.zfs(&["create", &b]);
        let before = (mounts(&a), mounts(&b));
        assert_eq!((before.0.len(), before.1.len()), (1, 1));
        let elsewhere = pool.directory().join("elsewhere").display().to_string();
        libzfs.set_without_mounting(&a, "mountpoint", &elsewhere).unwrap();
        libzfs.set_without_mounting(&a, "canmount", "noauto").unwrap();
        libzfs.set_without_mounting(&a, "sharenfs", "off").unwrap();
        libzfs.set_without_mounting(&a, "test:note", "x").unwrap();
        libzfs.set_without_mounting(&a, "quota", "100M").unwrap();
        assert_eq!((mounts(&a), mounts(&b)), before);
        assert!(!fs::exists(&elsewhere).unwrap());
        let shown = pool.zfs(&["get", "-Hpo", "value", "mountpoint,canmount,quota", &a]);
        assert_eq!(shown, format!("{elsewhere}\nnoauto\n104857600\n"));

        libzfs.set_without_mounting(&a, "canmount", "off").unwrap();
        libzfs.set_without_mounting(&a, "mountpoint", "legacy").unwrap();
        libzfs.set_without_mounting(&a, "mountpoint", "none").unwrap();
        assert_eq!((mounts(&a), mounts(&b)), before);
        libzfs.set_without_mounting(&a, "canmount", "on").unwrap();
        libzfs.set_without_mounting(&a, "mountpoint", &elsewhere).unwrap();
        assert_eq!((mounts(&a), mounts(&b)), before);

        // Not mounted, it stays so.
        pool.zfs(&["unmount", &b]);
        libzfs.set_without_mounting(&b, "mountpoint", &elsewhere).unwrap();
        assert!(mounts(&b).is_empty());

        for (property, value) in [("mountpoint", "relative"), ("quota", "x"), ("nothing", "1")] {
            let error = libzfs.set_without_mounting(&a, property, value).unwrap_err();
            assert_eq!(error.errno, Errno::INVAL, "{error}");
        }
        pool.cleanup();
    }

    /// Whom, and what, in a fixed order.
    fn sorted(permissions: NvRef<'_>) -> Vec<(String, Vec<String>)> {
        let names = |list: NvRef<'_>| {
            let mut names: Vec<_> =
                list.iter().map(|entry| entry.unwrap().0.to_str().unwrap().to_owned()).collect();
            names.sort();
            names
        };
        let whom = names(permissions);
        whom.into_iter()
            .map(|who| {
                let what = names(permissions.list(&who).unwrap());
                (who, what)
            })
            .collect()
    }

    #[test]
    fn permissions_can_be_carried_over() {
        let (libzfs, pool) = start();
        let (a, b) = (pool.dataset("a"), pool.dataset("b"));
        pool.zfs(&["create", &a]);
        pool.zfs(&["create", &b]);
        assert!(libzfs.permissions(&a).unwrap().is_empty());
        pool.zfs(&["allow", "-e", "create,mount", &a]);
        pool.zfs(&["allow", "-ld", "-u", "0", "snapshot", &a]);
        let all = libzfs.permissions(&a).unwrap();
        assert_eq!(all.len(), 1);
        let of_a = all.list(&a).unwrap();
        libzfs.set_permissions(&b, &of_a.try_clone().unwrap()).unwrap();
        let copied = libzfs.permissions(&b).unwrap();
        assert_eq!(sorted(of_a).len(), 4);
        assert_eq!(sorted(copied.list(&b).unwrap()), sorted(of_a));

        let child = pool.dataset("a/child");
        pool.zfs(&["create", &child]);
        assert!(libzfs.permissions(&child).unwrap().contains(&a));

        let mut nonsense = NvList::new().unwrap();
        nonsense.add_u64("x", 1).unwrap();
        assert!(libzfs.set_permissions(&b, &nonsense).is_err());
        pool.cleanup();
    }

    /// More threads than handles are kept for; as many calls succeed as fail.
    #[test]
    fn threads_call_at_the_same_time_and_few_handles_are_kept() {
        let (libzfs, pool) = start();
        let lzc = Lzc::open().unwrap();
        let pool = &pool;
        thread::scope(|scope| {
            for number in 0..3 * KEPT {
                scope.spawn(move || {
                    let name = pool.dataset(&format!("t{number}"));
                    let none = NvList::new().unwrap();
                    lzc.create(&name, DatasetKind::Filesystem, &none).unwrap();
                    for _ in 0..10 {
                        let props = libzfs.props(&name).unwrap();
                        assert!(props.contains("guid"));
                        let missing = format!("{name}/missing-{number}");
                        let error = libzfs.props(&missing).unwrap_err();
                        assert_eq!((error.errno, error.dataset), (Errno::NOENT, missing));
                    }
                });
            }
        });
        assert!(IDLE.lock().unwrap().len() <= KEPT);
        let begun = Instant::now();
        let handles: Vec<_> = (0..3 * KEPT).map(|_| Handle::make().unwrap()).collect();
        let made = begun.elapsed() / handles.len() as u32;
        drop(handles);
        let begun = Instant::now();
        for _ in 0..100 {
            libzfs.props(&pool.dataset("t0")).unwrap();
        }
        let call = begun.elapsed() / 100;
        figures(&format!("libzfs: a handle is made in {made:.0?}, a call takes {call:.0?}"));
    }
}
