//! Records that somebody has forged, on real ZFS: root of a container, and a user who may take snapshots of a
//! dataset and set properties on it. Nothing outside of that dataset follows from them.

use std::fs;
use std::path::Path;

use zfs_txn::{Condition, DatasetName, OnConflict, Outcome, Recovery, Strategy, TransactionId};

use crate::recovery::abandon;
use crate::support::{Identity, Scene, State, amount};
use crate::test_pool::figures;

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

/// A record as if the process that wrote it had been another machine's.
fn move_to_another_machine(scene: &Scene, id: TransactionId, carrier: &str) {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let property = format!("zfs-txn:{id}");
    let record = scene.pool.zfs(&["get", "-Hpo", "value", &property, carrier]);
    let (body, _) = record.trim_end().rsplit_once(";sum=").unwrap();
    assert!(body.contains(boot.trim_end()), "{body}");
    let body = body.replace(boot.trim_end(), "00000000-0000-4000-8000-000000000000");
    scene.pool.zfs(&["set", &format!("{property}={}", sealed(&body)), carrier]);
}

/// What recovery would do is told before, by the same facts, and asking changes nothing.
#[test]
fn what_recovery_would_do_to_a_pool_from_elsewhere_is_asked_first() {
    let scene = Scene::new();
    let (target, new) = (scene.dataset("t", &[]), scene.name("new"));
    let theirs = scene.dataset("theirs", &[]);
    let base = |id: TransactionId| format!("{target}@txn-{id}");
    let ids = [&target, &new].map(|name| abandon(&scene, name, "leave"));
    move_to_another_machine(&scene, ids[0], &base(ids[0]));
    move_to_another_machine(&scene, ids[1], scene.pool.name());
    let guids = format!("guid={}", guid(&scene, theirs.as_str()));
    scene.pool.zfs(&["set", "readonly=on", theirs.as_str()]);
    let record = update(ID, "committing", theirs.as_str(), &guids, ";fence=own");
    forge_on_snapshot(&scene, theirs.as_str(), ID, &record);
    scene.pool.reimport_with(&["-N"]);
    let first = scene.zfs.pending(&scene.name("")).unwrap();
    let root = scene.pool.directory().join("root");
    scene.pool.reimport_with(&["-R", root.to_str().unwrap()]);

    let before = State::of(&scene, Identity::Kept);
    let pending = scene.zfs.pending(&scene.name("")).unwrap();
    before.assert_same(&State::of(&scene, Identity::Kept));
    assert_eq!(pending.len(), 3, "{pending:?}");
    assert_eq!(first, pending);
    let recovery = recover(&scene);
    assert_eq!((recovery.finished.len(), recovery.unfinished.len()), (2, 1), "{recovery:?}");
    let told = |id: TransactionId| pending.iter().find(|pending| pending.id == id).unwrap();
    for finished in &recovery.finished {
        assert!(ids.contains(&finished.id) && finished.outcome == Outcome::RolledBack);
        assert_eq!(told(finished.id).outlook, Some(Ok(finished.outcome)));
        assert_eq!(told(finished.id).target.as_ref(), Some(&finished.target));
    }
    let unfinished = &recovery.unfinished[0];
    assert!(unfinished.reason.contains("no clone of the base"), "{unfinished:?}");
    assert_eq!(told(unfinished.pending.id), &unfinished.pending);
    assert_eq!(scene.property(&theirs, "readonly").0, "on");
    assert_eq!(scene.read(&target), "generation 0");
    scene.pool.zfs(&["destroy", &format!("{theirs}@txn-{ID}")]);
    scene.end();
}

/// A commit that overrides keeps what it has overridden in a snapshot of the target: that isn't for those to
/// remove who may write a record on another dataset.
#[test]
fn what_a_commit_has_kept_is_not_removed_by_others() {
    let scene = Scene::new();
    let (site, theirs) = (scene.dataset("site", &[]), scene.dataset("theirs", &[]));
    let builder = scene.zfs.transaction(&site).strategy(Strategy::InPlace);
    let transaction = builder.on_conflict(OnConflict::Overwrite).begin().unwrap();
    let id = transaction.id().to_string();
    fs::write(transaction.path().join("file"), "ours").unwrap();
    fs::write(scene.mounted_at(&site).unwrap().join("file"), "the only copy").unwrap();
    transaction.commit().unwrap();
    let look = format!("{site}@txn-{id}-look");
    let kept = guid(&scene, &look);
    for (strategy, state, whose) in [
        ("promote", "rolled-back", "1".to_owned()),
        ("promote", "open", "1".to_owned()),
        ("in-place", "committing", guid(&scene, site.as_str())),
        ("in-place", "committed", guid(&scene, site.as_str())),
        ("in-place", "rolled-back", guid(&scene, theirs.as_str())),
    ] {
        let record = sealed(&format!(
            "1;id={id};kind=update;strategy={strategy};state={state};target={site};guid={whose};parents=0;\
             begun=1"
        ));
        forge_on_snapshot(&scene, theirs.as_str(), &id, &record);
        recover(&scene);
        scene.zfs.sweep(&scene.name("")).unwrap();
        let _ = scene.pool.try_zfs(&["destroy", &format!("{theirs}@txn-{id}")]);
        assert_eq!(
            scene.pool.try_zfs(&["get", "-Hpo", "value", "guid", &look]).unwrap().trim(),
            kept
        );
    }
    scene.pool.cleanup();
}

/// The record of a dataset that was created doesn't have what is closed mounted.
#[test]
fn what_nobody_has_mounted_stays_unmounted() {
    let scene = Scene::new();
    let host = directory(&scene, "host");
    let above = scene.pool.dataset("h");
    let child = format!("{above}/x");
    scene.pool.zfs(&["create", "-u", &above]);
    let mountpoint = format!("mountpoint={host}");
    let options = ["create", "-u", "-o", "canmount=noauto", "-o", &mountpoint];
    scene.pool.zfs(&[&options[..], &["-o", "syncoid:sync=false", &child]].concat());
    let before = State::of(&scene, Identity::Kept);
    for state in ["committed", "committing", "open", "rolled-back"] {
        let property = format!("zfs-txn:{ID}");
        scene.pool.zfs(&["set", &format!("{property}={}", init(ID, state, &child)), &above]);
        let recovery = recover(&scene);
        let _ = scene.pool.try_zfs(&["inherit", &property, &above]);
        assert!(State::of(&scene, Identity::Kept) == before, "{state}: {recovery:?}");
        assert!(Path::new(&host).join("genuine").exists(), "the host's directory is covered");
    }
    scene.end();
}

/// xorshift64*.
fn roll(state: &mut u64, below: usize) -> usize {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
}

/// Records that say anything, on datasets of a container and of a user who may take snapshots of them, set
/// properties, and make datasets below: nothing outside of these is changed, nothing of them is mounted or
/// destroyed, and none of their properties is cleared but those that root of the container can clear.
#[test]
fn no_record_that_says_anything_reaches_further_than_its_dataset() {
    let records = amount("ZFS_TXN_FORGED", 24);
    let scene = Scene::new();
    let host = directory(&scene, "host");
    let mountpoint = format!("mountpoint={host}");
    let closed = ["canmount=noauto", "readonly=on", "org.openzfs.systemd:ignore=on"];
    let theirs = ["ct", "ct/x", "top", "h"].map(|name| scene.pool.dataset(name));
    let child = scene.pool.dataset("h/child");
    for name in theirs.iter().chain([&child]) {
        let closed = closed.iter().flat_map(|option| ["-o", option]);
        let options: Vec<&str> = closed.chain(["-o", &mountpoint]).collect();
        scene.pool.zfs(&[&["create", "-u"], &options[..], &[name]].concat());
        scene.pool.zfs(&["snapshot", &format!("{name}@keep")]);
    }
    for container in [&theirs[0], &theirs[2]] {
        scene.pool.zfs(&["set", "zoned=on", container]);
    }
    let (victim, other) = (scene.dataset("victim", &[]), scene.dataset("other", &[]));
    let open = scene.begin(&victim);
    let detached = scene.begin(&scene.name("new"));
    fs::write(open.path().join("file"), "ours").unwrap();
    fs::write(detached.path().join("file"), "ours").unwrap();
    let detached = detached.detach().unwrap();
    let ids = [open.id().to_string(), detached.to_string(), ID.to_owned()];
    let mut names = theirs.to_vec();
    names.push(child);
    names.extend([victim.to_string(), other.to_string(), scene.pool.dataset("new")]);
    names.extend(
        names.clone().iter().flat_map(|name| ids.each_ref().map(|id| format!("{name}-txn-{id}"))),
    );
    names.push(scene.pool.dataset("h/child/new"));
    let guids: Vec<String> = scene
        .pool
        .zfs(&["list", "-Hpo", "guid", "-t", "all", "-r", scene.pool.name()])
        .lines()
        .map(str::to_owned)
        .collect();
    let before = State::of(&scene, Identity::Kept);
    let seed = amount("ZFS_TXN_SEED", 7) as u64;
    let (mut finished, mut unfinished, mut untouched) = (0, 0, 0);
    for number in 0..records {
        let mut state = (seed << 32) + number as u64 + 1;
        (0..20).for_each(|_| {
            roll(&mut state, 2);
        });
        let mut roll = |below| roll(&mut state, below);
        let (id, holder) = (&ids[roll(3)], &theirs[roll(4)]);
        let own = guid(&scene, holder);
        let target = if roll(2) == 0 { holder } else { &names[roll(names.len())] };
        let record_state =
            ["open", "committing", "committing", "committed", "kept", "rolled-back"][roll(6)];
        let on_snapshot = roll(3) > 0;
        let record = if on_snapshot {
            let mut known = |key| match roll(4) {
                0 => String::new(),
                1 | 2 => format!(";{key}={own}"),
                _ => format!(";{key}={}", guids[roll(guids.len())]),
            };
            let (origin, workspace, whose) = (known("origin"), known("workspace"), known("guid"));
            let whose = if whose.is_empty() { ";guid=1".to_owned() } else { whose };
            let in_place = roll(3) == 0;
            let pins = [String::new(), format!(";pin={host}")];
            let gates = ["", ";gate=zoned,org.openzfs.systemd:ignore", ";gate=canmount"];
            let (pin, gate) = match in_place {
                true => ("", ""),
                false => (pins[roll(2)].as_str(), gates[roll(3)]),
            };
            let fence = ["", ";fence=own", ";fence=inherited"][roll(3)];
            let strategy = if in_place { "in-place" } else { "promote" };
            sealed(&format!(
                "1;id={id};kind=update;strategy={strategy};state={record_state};target={target}{whose}\
                 {origin}{workspace};parents=0{pin}{gate}{fence};begun=1"
            ))
        } else {
            let parents = roll(target.matches('/').count().min(2));
            let gate = ["", ";gate=zoned,org.openzfs.systemd:ignore", ";gate=canmount"][roll(3)];
            let entrance = ["", ";entrance=0,/run/zfs-txn"][roll(2)];
            sealed(&format!(
                "1;id={id};kind=init;strategy=promote;state={record_state};target={target};\
                 parents={parents}{gate}{entrance};begun=1"
            ))
        };
        let property = format!("zfs-txn:{id}={record}");
        let base = format!("{holder}@txn-{id}");
        match on_snapshot {
            true => drop(scene.pool.zfs(&["snapshot", "-o", &property, &base])),
            false => drop(scene.pool.zfs(&["set", &property, holder])),
        }
        let marked = (roll(2) == 0).then(|| &theirs[roll(4)]);
        if let Some(marked) = marked {
            scene.pool.zfs(&["set", &format!("zfs-txn:made-by={id}"), marked]);
        }
        let recovery = recover(&scene);
        match on_snapshot {
            true => drop(scene.pool.try_zfs(&["destroy", &base])),
            false => drop(scene.pool.zfs(&["inherit", &format!("zfs-txn:{id}"), holder])),
        }
        if let Some(marked) = marked {
            scene.pool.zfs(&["inherit", "zfs-txn:made-by", marked]);
        }
        // What root of the container can set as well.
        for name in theirs[..2].iter().filter(|name| *name == holder || Some(*name) == marked) {
            scene.pool.zfs(&["set", "-u", "canmount=noauto", "readonly=on", name]);
        }
        let now = State::of(&scene, Identity::Kept);
        assert!(now == before, "{number}, seed {seed}: {holder}: {record}: {recovery:?}");
        assert!(Path::new(&host).join("genuine").exists(), "the host's directory is covered");
        finished += recovery.finished.len();
        unfinished += recovery.unfinished.len();
        untouched += recovery.untouched.len() - 2;
    }
    figures(&format!(
        "{records} forged records: {finished} came to nothing, {unfinished} were refused, {untouched} left alone"
    ));
    assert!(finished > 0 && unfinished > 0 && untouched > 0);
    open.commit().unwrap();
    scene.zfs.resume(&scene.name("new"), detached).unwrap().commit().unwrap();
    assert_eq!(
        (scene.read(&victim), scene.read(&scene.name("new"))),
        ("ours".into(), "ours".into())
    );
    scene.pool.cleanup();
}
