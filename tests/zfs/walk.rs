//! Records are looked for beside whatever else there is in a pool.

use crate::support::Scene;

/// The kernel panics when a program asks for the children or snapshots of a dataset whose name is as long as
/// one can be (`zcp_children_iter`).
#[test]
fn a_name_that_leaves_no_room_for_another_is_looked_at_with_care() {
    let scene = Scene::new();
    let parent = scene.pool.dataset(&format!("{0}/{0}", "p".repeat(90)));
    scene.pool.zfs(&["create", "-p", "-o", "canmount=off", &parent]);
    let long = format!("{parent}/{}", "x".repeat(254 - parent.len()));
    assert_eq!(long.len(), 255);
    scene.pool.zfs(&["create", "-o", "canmount=off", &long]);
    assert_eq!(scene.zfs.pending(&scene.name("")).unwrap(), []);
    let target = long.parse().unwrap();
    assert!(scene.zfs.transaction(&target).begin().is_err());
    scene.end();
}
