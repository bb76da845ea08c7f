//! Mount points that can't be used any more when the change is visible.

use std::fs;

use super::Scene;
use crate::engine::Engine;
use crate::error::CommitError;
use crate::recovery::Outcome;

/// The target is there, and belongs to nobody's container: only its mount is missing.
#[test]
fn a_target_that_can_t_be_mounted_any_more_is_told_of_by_recovery_which_ends_the_transaction() {
    let scene = Scene::new();
    scene.pool.zfs(&["set", "overlay=off", scene.pool.name()]);
    let (parent, target) = (scene.name("parent"), scene.name("parent/new"));
    let path = scene.pool.mountpoint().join("parent");
    let transaction = scene.begin(&target).unwrap();
    fs::write(transaction.path().join("file"), "new").unwrap();
    let full = path.clone();
    scene.engine.before("rename", move || {
        fs::create_dir(&full).unwrap();
        fs::write(full.join("precious"), "x").unwrap();
    });
    let error = transaction.commit().unwrap_err();
    let CommitError::InDoubt { receipt: Some(receipt), errors, .. } = &error else {
        panic!("{error}")
    };
    assert!(receipt.mounted.is_empty(), "{receipt:?}");
    assert!(errors[0].to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(fs::read_to_string(path.join("precious")).unwrap(), "x");

    let recovery = scene.zfs.recover(&scene.name("")).unwrap();
    let [finished] = &recovery.finished[..] else { panic!("{recovery:?}") };
    assert_eq!(finished.outcome, Outcome::Committed);
    let unmounted = finished.unmounted.as_ref().unwrap().to_string();
    assert!(unmounted.contains(path.to_str().unwrap()), "{unmounted}");
    assert!(scene.zfs.pending(&scene.name("")).unwrap().is_empty());
    assert!(!scene.engine.kernel.settings(&target).unwrap().zoned);
    let state = scene.state();
    assert!(!state.contains("-txn-") && !state.contains("@txn-"), "{state}");

    fs::remove_file(path.join("precious")).unwrap();
    for dataset in [parent, target.clone()] {
        scene.pool.zfs(&["mount", dataset.as_str()]);
    }
    assert_eq!(scene.content(&target).as_deref(), Some("new"));
    scene.pool.cleanup();
}
