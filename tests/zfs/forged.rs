//! Records that somebody has forged, on real ZFS: root of a container, and a user who may take snapshots of a
//! dataset and set properties on it. Nothing outside of that dataset follows from them.

use std::fs;
use std::path::Path;

use zfs_txn::{Condition, DatasetName, Recovery, TransactionId};

use crate::support::{Identity, Scene, State};

const ID: &str = "0123456789abcdef";

/// A value with the checksum that records have: FNV-1a, which anybody can compute.
fn sealed(body: &str) -> String {
    let sum = body.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{body};sum={sum:016x}")
}

fn update(id: &str, state: &str, target: &str, guids: &str, rest: &str) -> String {
    sealed(&format!(
        "1;id={id};kind=update;strategy=promote;state={state};target={target};{guids};parents=0{rest};begun=1"
    ))
}

fn init(id: &str, state: &str, target: &str) -> String {
    sealed(&format!(
        "1;id={id};kind=init;strategy=promote;state={state};target={target};parents=0;begun=1"
    ))
}

/// Writes a record as whoever may take snapshots and set properties can.
fn forge_on_snapshot(scene: &Scene, dataset: &str, id: &str, record: &str) {
    let property = format!("zfs-txn:{id}={record}");
    scene.pool.zfs(&["snapshot", "-o", &property, &format!("{dataset}@txn-{id}")]);
}

fn guid(scene: &Scene, dataset: &str) -> String {
    scene.pool.zfs(&["get", "-Hpo", "value", "guid", dataset]).trim().to_owned()
}

fn recover(scene: &Scene) -> Recovery {
    scene.zfs.recover(&scene.name("")).unwrap()
}

fn directory(scene: &Scene, name: &str) -> String {
    let path = scene.pool.directory().join(name);
    fs::create_dir(&path).unwrap();
    fs::write(path.join("genuine"), "the host's").unwrap();
    path.display().to_string()
}

/// A container's dataset, with a mount point that is a directory of the host: mounted, it would be root's
/// programs, from inside the container.
#[test]
fn nothing_of_a_container_is_mounted_or_taken_from_it() {
    let scene = Scene::new();
    for (name, below) in [("below", true), ("top", false)] {
        let host = directory(&scene, name);
        let mountpoint = format!("mountpoint={host}");
        let container = scene.pool.dataset(name);
        let dataset = if below { format!("{container}/x") } else { container.clone() };
        scene.pool.zfs(&["create", "-u", "-o", "mountpoint=none", &container]);
        if below {
            scene.pool.zfs(&["create", "-u", &dataset]);
        }
        scene.pool.zfs(&["set", "-u", &mountpoint, &dataset]);
        scene.pool.zfs(&["set", "zoned=on", &container]);
        let guids = format!("guid=1;workspace={}", guid(&scene, &dataset));
        let record = update(ID, "committing", &dataset, &guids, ";gate=zoned");
        forge_on_snapshot(&scene, &dataset, ID, &record);
        let before = State::of(&scene, Identity::Kept);
        let recovery = recover(&scene);
        assert!(recovery.finished.is_empty(), "{recovery:?}");
        match below {
            true => assert_eq!(recovery.untouched[0].condition, Condition::OfContainer),
            false => assert!(recovery.unfinished[0].reason.contains("no clone of the base")),
        }
        before.assert_same(&State::of(&scene, Identity::Kept));
        assert!(Path::new(&host).join("genuine").exists(), "the host's directory is covered");
        scene.pool.zfs(&["destroy", "-r", &container]);
    }
    scene.end();
}

/// What an administrator has set on a dataset is not put back by a record on it.
#[test]
fn no_property_is_cleared_by_a_record() {
    let scene = Scene::new();
    let host = directory(&scene, "mnt-h");
    let own = [format!("mountpoint={host}"), "canmount=noauto".into(), "readonly=on".into()];
    let options: Vec<&str> = own.iter().flat_map(|option| ["-o", option.as_str()]).collect();
    let dataset = scene.pool.dataset("h");
    scene.pool.zfs(&[&["create", "-u"], &options[..], &[&dataset]].concat());
    let own = guid(&scene, &dataset);
    let before = State::of(&scene, Identity::Kept);
    for (guids, rest) in [
        (format!("guid={own}"), ";fence=own".to_owned()),
        (format!("guid={own}"), ";fence=inherited".to_owned()),
        (format!("guid={own}"), format!(";pin={host}")),
        (format!("guid=1;workspace={own}"), ";gate=canmount".to_owned()),
        (format!("guid=1;workspace={own}"), ";gate=readonly".to_owned()),
    ] {
        for state in ["open", "committing", "committed", "kept", "rolled-back"] {
            let record = update(ID, state, &dataset, &guids, &rest);
            forge_on_snapshot(&scene, &dataset, ID, &record);
            let recovery = recover(&scene);
            // What asks for nothing is ended by destroying the snapshot that has it.
            let _ = scene.pool.try_zfs(&["destroy", &format!("{dataset}@txn-{ID}")]);
            let now = State::of(&scene, Identity::Kept);
            assert!(now == before, "{state} {guids} {rest}: {recovery:?}");
        }
    }
    scene.end();
}

/// Somebody else's open transaction is named by its id: its workspace and its private mount stay, and it can
/// be committed.
#[test]
fn nobodys_transaction_is_ended_by_its_id() {
    let scene = Scene::new();
    let victim = scene.dataset("victim", &[]);
    let theirs = scene.dataset("theirs", &[]);
    for target in [victim.clone(), scene.name("new")] {
        let transaction = scene.zfs.transaction(&target).begin().unwrap();
        let id: TransactionId = transaction.id();
        fs::write(transaction.path().join("file"), "ours").unwrap();
        let workspace = format!("{target}-txn-{id}");
        let text = id.to_string();
        let guids = format!(
            "guid={};workspace={}",
            guid(&scene, theirs.as_str()),
            guid(&scene, &workspace)
        );
        for state in ["open", "committing", "rolled-back", "kept"] {
            let record = update(&text, state, target.as_str(), &guids, "");
            forge_on_snapshot(&scene, theirs.as_str(), &text, &record);
            let recovery = recover(&scene);
            let _ = scene.pool.try_zfs(&["destroy", &format!("{theirs}@txn-{id}")]);
            assert!(transaction.path().join("file").exists(), "{state}: {recovery:?}");
            assert!(!guid(&scene, &workspace).is_empty());
        }
        // An init's record says the same of a dataset below the one that has it.
        let above: DatasetName = scene.name("");
        let property = format!("zfs-txn:{id}");
        if target == victim {
            let record = init(&text, "rolled-back", target.as_str());
            scene.pool.zfs(&["set", &format!("{property}={record}"), above.as_str()]);
            recover(&scene);
            let _ = scene.pool.try_zfs(&["inherit", &property, above.as_str()]);
        }
        transaction.commit().unwrap();
        assert_eq!(scene.read(&target), "ours");
    }
    scene.pool.cleanup();
}

/// Two records of one id: the genuine one is found and resumed.
#[test]
fn a_genuine_record_is_found_beside_a_forged_one() {
    let scene = Scene::new();
    let victim = scene.dataset("victim", &[]);
    let theirs = scene.dataset("a-theirs", &[]);
    let transaction = scene.zfs.transaction(&victim).begin().unwrap();
    fs::write(transaction.path().join("file"), "ours").unwrap();
    let id = transaction.detach().unwrap();
    let text = id.to_string();
    let guids = format!("guid={}", guid(&scene, theirs.as_str()));
    let record = update(&text, "detached", victim.as_str(), &guids, "");
    forge_on_snapshot(&scene, theirs.as_str(), &text, &record);
    recover(&scene);
    scene.zfs.resume(&victim, id).unwrap().commit().unwrap();
    assert_eq!(scene.read(&victim), "ours");
    scene.pool.cleanup();
}
