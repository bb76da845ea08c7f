//! What `Zfs::open` refuses, and what `Zfs::capabilities` tells.

use std::fs;
use std::process::Command;

use zfs_txn::{OpenError, Zfs};

use crate::support::{again, assert_passed};

#[test]
fn what_is_there_is_told() {
    let found = Zfs::open().unwrap().capabilities().unwrap();
    let module = fs::read_to_string("/sys/module/zfs/version").unwrap();
    assert_eq!(found.module.as_deref(), Some(module.trim_end()));
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let loaded: Vec<_> = maps.lines().filter(|line| line.contains("/libzfs.so.")).collect();
    assert!(
        !loaded.is_empty() && loaded.iter().all(|line| line.contains(&found.library_file)),
        "{loaded:?}"
    );
    // In the machine both are of one release.
    assert_eq!(found.module.as_deref().map(up_to_dash), Some(up_to_dash(&found.library)));
    let numbers: Vec<u32> =
        found.kernel.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect();
    assert_eq!(found.swaps_without_a_gap, Some(numbers[..2] >= [6, 5][..]), "{}", found.kernel);
    assert!(!found.in_a_container && found.channel_programs);
    assert_eq!(found.in_place, numbers[..2] >= [5, 14][..], "{}", found.kernel);
    println!("figures: {}", found.to_string().replace('\n', "; "));
}

fn up_to_dash(version: &str) -> &str {
    version.split('-').next().unwrap_or_default()
}

/// Opens, unless something is said to be wrong: the test below runs this one where it is.
#[test]
fn opening_says_what_is_wrong() {
    let wrong = std::env::var("ZFS_TXN_WRONG").unwrap_or_default();
    match (Zfs::open(), &*wrong) {
        (Ok(_), "") => {}
        (Err(error @ OpenError::NoLibrary { .. }), "library missing") => {
            let said = error.to_string();
            for name in ["libzfs.so.7", "libzfs.so.6", "libzfs.so.4", "install"] {
                assert!(said.contains(name), "{said}");
            }
        }
        (Err(error @ OpenError::TooOld { .. }), "library old") => {
            assert!(error.to_string().contains("libzfs.so."), "{error}");
        }
        (Err(error @ OpenError::TooOld { .. }), "module old") => {
            assert!(error.to_string().contains("the kernel module is 2.1.11-1"), "{error}");
        }
        (Err(error @ OpenError::Mismatch { .. }), "module apart") => {
            assert!(error.to_string().contains("the kernel module is 2.3.1"), "{error}");
        }
        (result, wrong) => panic!("{result:?}, wrong: {wrong:?}"),
    }
}

#[test]
fn what_is_missing_or_of_the_wrong_release_is_named() {
    let version = |text: &str| {
        format!("printf {text} > /run/version && mount --bind /run/version /sys/module/zfs/version")
    };
    let library = |other: &str| {
        format!(
            "for file in /usr/lib/x86_64-linux-gnu/libzfs.so.[0-9]; do mount --bind {other} $file || exit; done"
        )
    };
    for (wrong, script) in [
        ("library missing", library("/dev/null")),
        // A library that has none of the functions stands for one that lacks some.
        ("library old", library("/usr/lib/x86_64-linux-gnu/libc.so.6")),
        ("module old", version("2.1.11-1")),
        ("module apart", version("2.3.1-1")),
    ] {
        let inner = again("capabilities::opening_says_what_is_wrong", "ZFS_TXN_WRONG", wrong);
        let mut shell = Command::new("unshare");
        // A copy of a pool's mounts in another namespace keeps the pool from being exported.
        let script = format!("umount --all --lazy --types zfs; {script} && exec \"$@\"");
        shell.args(["--mount", "sh", "-c", &script, "sh"]);
        shell.arg(inner.get_program()).args(inner.get_args()).env("ZFS_TXN_WRONG", wrong);
        assert_passed(&shell.output().unwrap());
    }
}
