#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod on_zfs;

use super::*;

/// A token that no kernel stands behind: for calls that must end before they reach one.
const UNOPENED: Lzc = Lzc(());

#[test]
fn without_the_module_opening_fails_and_may_be_tried_again() {
    if std::path::Path::new("/dev/zfs").exists() {
        return;
    }
    for _ in 0..2 {
        let error = Lzc::open().unwrap_err();
        assert_eq!((error.call, error.errno), ("libzfs_core_init", Errno::NOENT));
    }
}

#[test]
fn nul_bytes_end_the_call_before_it_is_made() {
    let props = NvList::new().unwrap();
    let nul = "tank/a\0b";
    let all = [
        UNOPENED.create(nul, DatasetKind::Filesystem, &props),
        UNOPENED.clone("tank/x", nul, &props),
        UNOPENED.snapshot(&["tank/a@s", nul], &props),
        UNOPENED.promote(nul),
        UNOPENED.rename("tank/x", nul),
        UNOPENED.destroy(nul),
        UNOPENED.destroy_snaps(&[nul], false),
        UNOPENED.hold(&[("tank/a@s", nul)], None),
        UNOPENED.release(&[("tank/a@s", nul)]),
        UNOPENED.bookmark(&[("tank/a#b", nul)]),
        UNOPENED.destroy_bookmarks(&[nul]),
        UNOPENED.sync(nul, true),
        UNOPENED.rollback_to("tank/a", nul),
        UNOPENED.exists(nul).map(drop),
        UNOPENED.get_holds(nul).map(drop),
        UNOPENED.get_bookmarks("tank/a", &[nul]).map(drop),
        UNOPENED.send_space("tank/a@s", Some(nul), SendFlags::empty()).map(drop),
        UNOPENED
            .program("tank", "return\0", ProgramLimits::default(), &props, ProgramMode::NoSync)
            .map(drop),
    ];
    for result in all {
        assert_eq!(result.unwrap_err().errno, Errno::INVAL);
    }
}

#[test]
fn names_that_would_be_cut_off_end_the_call_before_it_is_made() {
    let props = NvList::new().unwrap();
    let long = format!("tank/{}", "a".repeat(251));
    let all = [
        UNOPENED.create(&long, DatasetKind::Volume, &props),
        UNOPENED.rename("tank/x", &long),
        UNOPENED.snapshot(&[&long], &props),
        UNOPENED.hold(&[(&long, "tag")], None),
        UNOPENED.release(&[(&long, "tag")]),
        UNOPENED.bookmark(&[("tank/a#b", &long)]),
    ];
    for result in all {
        assert_eq!(result.unwrap_err().errno, Errno::NAMETOOLONG);
    }
}

#[test]
fn a_program_may_not_ask_for_more_memory_than_the_kernel_gives() {
    let args = NvList::new().unwrap();
    for memory in [0, u64::MAX] {
        let limits = ProgramLimits { memory, ..ProgramLimits::default() };
        let error =
            UNOPENED.program("tank", "return 1", limits, &args, ProgramMode::Sync).unwrap_err();
        assert_eq!(error.errno, Errno::INVAL);
    }
}

#[test]
fn a_duplicate_ends_the_call_before_it_is_made() {
    let props = NvList::new().unwrap();
    let error = UNOPENED.snapshot(&["tank/a@s", "tank/a@s"], &props).unwrap_err();
    assert_eq!(error.errno, Errno::INVAL);
    assert_eq!(
        error.to_string(),
        "lzc_snapshot of `tank/a@s` failed: Invalid argument (`tank/a@s` is in the list already)"
    );
}

#[test]
fn listed_names_are_kept_and_make_a_call_fail() {
    let mut failed = NvList::new().unwrap();
    failed.add_i32("tank/a@s", Errno::EXIST.raw()).unwrap();
    failed.add_i32("N_MORE_ERRORS", 3).unwrap();
    let error = finish("lzc_snapshot", "tank/a@s", Errno::EXIST.raw(), failed.try_clone().ok())
        .unwrap_err();
    assert_eq!(error.per_name, [("tank/a@s".to_owned(), Errno::EXIST)]);
    assert_eq!(
        error.to_string(),
        "lzc_snapshot of `tank/a@s` failed: File exists (`tank/a@s`: File exists, and 3 more names)"
    );
    assert_eq!(finish("lzc_hold", "tank", 0, Some(failed)).unwrap_err().errno, Errno::EXIST);
    assert_eq!(finish("lzc_hold", "tank", 0, None), Ok(()));
    let plain = finish("lzc_destroy", "tank/a", Errno::BUSY.raw(), None).unwrap_err();
    assert_eq!(plain.to_string(), "lzc_destroy of `tank/a` failed: Device or resource busy");
}
