//! Records that somebody has forged: on datasets of a container and of a user who may set properties and take
//! snapshots, with any field saying anything. Recovery must come to nothing by them: outside of those datasets
//! nothing is changed, nothing of theirs is mounted or destroyed but the snapshots that bear the records, and
//! none of their properties is cleared but those that root of the container can clear.

use std::ffi::OsString;
use std::fmt::Write;
use std::sync::Arc;

use super::memory::{Dataset, Memory, Own, Snapshot};
use crate::engine::{Engine, LOOK, MARK, PropertyValue};
use crate::name::{DatasetName, TransactionId};
use crate::receipt::{Guid, Strategy};
use crate::recovery::{Pending, Recovery};
use crate::txn::Transaction;
use crate::txn::dice::Dice;
use crate::txn::journal::{Entrance, Fence, Record, State, property};
use crate::txn::plan::Kind;
use crate::zfs::Zfs;

/// The datasets to which the enemy may write: one in a container, the container's own, and one of a user.
const THEIRS: [&str; 4] = ["tank/ct", "tank/ct/x", "tank/top", "tank/h"];
/// Those in a container, where root can set these properties itself.
const IN_CONTAINER: [&str; 2] = ["tank/ct", "tank/ct/x"];
const CONTAINERS_OWN: [&str; 3] = ["canmount", "mountpoint", "readonly"];
/// What the enemy would like to reach.
const OTHERS: [&str; 4] = ["tank/a", "tank/b", "tank/empty", "tank/h/child"];

impl Dice {
    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len())].clone()
    }

    fn some<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        (self.roll(3) > 0).then(|| self.of(all))
    }
}

struct Scene {
    memory: Arc<Memory>,
    zfs: Zfs,
    /// One that is open, and one that is detached.
    ids: Vec<TransactionId>,
    /// Where the records of these are.
    genuine: [String; 2],
    /// The properties of the enemy's datasets.
    own: Vec<(&'static str, Own)>,
    _open: Transaction,
}

fn text(value: &str) -> PropertyValue {
    PropertyValue::Text(value.into())
}

impl Scene {
    fn new() -> Self {
        let memory = Arc::new(Memory::default());
        let closed: &[(&str, PropertyValue)] = &[
            ("canmount", PropertyValue::Number(2)),
            ("org.openzfs.systemd:ignore", text("on")),
            ("readonly", PropertyValue::Number(1)),
        ];
        let zoned = ("zoned", PropertyValue::Number(1));
        let at = |path: &str| ("mountpoint", text(path));
        for (name, own) in [
            ("tank", vec![]),
            ("tank/a", vec![]),
            ("tank/b", [closed, &[at("/srv/b")]].concat()),
            ("tank/empty", vec![]),
            ("tank/ct", vec![zoned.clone()]),
            ("tank/ct/x", [closed, &[at("/srv/host")]].concat()),
            ("tank/top", [closed, &[at("/srv/top"), zoned]].concat()),
            ("tank/h", [closed, &[at("/srv/h")]].concat()),
            ("tank/h/child", [closed, &[at("/srv/child")]].concat()),
        ] {
            let own: Own = own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let content = match name {
                "tank/empty" => Default::default(),
                _ => [("file".to_owned(), 1)].into(),
            };
            let made = Dataset { own, content, ..Dataset::default() };
            memory.pool().new_dataset(name, made).unwrap();
        }
        memory.pool().boot();
        let engine = Arc::clone(&memory) as Arc<dyn Engine>;
        for name in OTHERS.into_iter().chain(THEIRS) {
            engine.snapshot(&format!("{name}@keep").parse().unwrap(), None).unwrap();
        }
        let zfs = Zfs::on(engine, None);
        let begin = |name: &str| zfs.transaction(&name.parse().unwrap()).begin().unwrap();
        let (open, detached) = (begin("tank/a"), begin("tank/new").detach().unwrap());
        // What commits have kept, or left to be swept.
        let known = [open.id(), detached, TransactionId::from_bits(0), TransactionId::from_bits(1)];
        for id in known {
            let mark = text(&id.to_string());
            let mut pool = memory.pool();
            for (leaf, own) in [
                (id.look_leaf(), Own::from([(LOOK.to_owned(), mark)])),
                (id.sent_leaf(), Own::new()),
            ] {
                let txg = pool.tick();
                let snapshot = Snapshot { leaf, guid: txg, txg, own, content: Default::default() };
                pool.datasets.get_mut("tank/b").unwrap().snapshots.push(snapshot);
            }
        }
        let own = |name| (name, memory.pool().datasets[name].own.clone());
        let own = THEIRS.map(own).to_vec();
        let genuine = [format!("tank/a@{}", open.id().base_leaf()), "tank".to_owned()];
        let ids = vec![open.id(), detached];
        Self { memory, ids, genuine, zfs: zfs.clone(), own, _open: open }
    }

    /// Everything but what the enemy has put there.
    fn state(&self) -> String {
        let pool = self.memory.pool();
        let mut state = format!("{:?}\n", pool.mounts);
        for (name, dataset) in &pool.datasets {
            let mut dataset = dataset.clone();
            if THEIRS.contains(&name.as_str()) {
                dataset.own.retain(|property, _| !property.starts_with("zfs-txn:"));
                dataset.snapshots.retain(|snapshot| snapshot.leaf == "keep");
            }
            if IN_CONTAINER.contains(&name.as_str()) {
                dataset.own.retain(|property, _| !CONTAINERS_OWN.contains(&property.as_str()));
            }
            writeln!(state, "{name}: {dataset:?}").unwrap();
        }
        state
    }

    fn clean(&self) {
        let mut pool = self.memory.pool();
        for (name, own) in &self.own {
            let dataset = pool.datasets.get_mut(*name).unwrap();
            dataset.own = own.clone();
            dataset.snapshots.retain(|snapshot| snapshot.leaf == "keep");
        }
    }

    /// All guids of the pool, and one that nothing has.
    fn guids(&self) -> Vec<Guid> {
        let pool = self.memory.pool();
        let snapshots = pool.datasets.values().flat_map(|dataset| &dataset.snapshots);
        let snapshots: Vec<u64> = snapshots.map(|snapshot| snapshot.guid).collect();
        let heads = pool.datasets.values().map(|dataset| dataset.guid);
        heads.chain(snapshots).chain([u64::MAX]).map(Guid).collect()
    }

    fn forge(&self, dice: &mut Dice) -> String {
        let guids = self.guids();
        let id = match dice.roll(3) {
            0 => dice.of(&self.ids),
            _ => TransactionId::from_bits(dice.roll(2) as u64),
        };
        let holder = dice.of(&THEIRS);
        let own_guid = self.memory.pool().guid(holder).map(Guid);
        let guid = |dice: &mut Dice| match dice.roll(2) {
            0 => own_guid,
            _ => dice.some(&guids),
        };
        let mut names: Vec<String> = OTHERS.into_iter().chain(THEIRS).map(str::to_owned).collect();
        names.extend(["tank/new", "tank/ct/new", "tank/h/new", "tank/a/b/c"].map(str::to_owned));
        for name in names.clone() {
            names.push(format!("{name}{}", id.workspace_suffix()));
        }
        let kind = if dice.roll(3) == 0 { Kind::Init } else { Kind::Update };
        let in_place = kind == Kind::Update && dice.roll(3) == 0;
        let states = [
            State::Open,
            State::Committing,
            State::Committing,
            State::Committed,
            State::Kept,
            State::RolledBack,
        ];
        let gates: [&[&str]; 5] = [
            &[],
            &["zoned"],
            &["zoned", "org.openzfs.systemd:ignore"],
            &["canmount"],
            &["readonly"],
        ];
        let target: DatasetName = dice.of(&names).parse().unwrap();
        let depth = target.as_str().matches('/').count();
        let gate = if in_place { &[] } else { dice.of(&gates) };
        let pins = ["/srv/b", "/srv/h", "/srv/top", "/srv/host"].map(OsString::from);
        let record = Record {
            id,
            kind,
            strategy: if in_place { Strategy::InPlace } else { Strategy::Promote },
            state: dice.of(&states),
            target_guid: (kind == Kind::Update).then(|| guid(dice).unwrap_or(Guid(1))),
            target_origin: dice.some(&guids).filter(|_| kind == Kind::Update),
            workspace: guid(dice),
            missing_parents: if kind == Kind::Init { dice.roll(depth) } else { 0 },
            pin: dice.some(&pins).filter(|_| !in_place),
            gate: gate.iter().map(|&name| name.to_owned()).collect(),
            settings: dice.some(&[0, 1]),
            ownership: None,
            final_leaf: dice.some(&["keep".to_owned()]),
            overwrite: dice.roll(2) == 0,
            fence: dice.some(&[Fence::Own, Fence::Inherited]).filter(|_| kind == Kind::Update),
            entrance: dice.some(&[Entrance { user: 0, place: "/run/zfs-txn".into() }]),
            owner: None,
            begun: 1,
            target,
        };
        let (name, value) = (property(id), text(&record.encode()));
        let mark = text(&id.to_string());
        let mut pool = self.memory.pool();
        let txg = pool.tick();
        let snapshot = |leaf: String, guid: u64, own: Own| {
            let content = Default::default();
            Snapshot { leaf, guid, txg, own, content }
        };
        // Where it would be, and now and then where it would not.
        let on_snapshot = (kind == Kind::Update) != (dice.roll(10) == 0);
        if on_snapshot {
            let own = [(name.clone(), value)].into();
            // A receive gives a snapshot the guid that the stream says.
            let guid = if dice.roll(4) == 0 { dice.of(&guids).0 } else { txg };
            let made = Snapshot { txg, ..snapshot(id.base_leaf(), guid, own) };
            pool.datasets.get_mut(holder).unwrap().snapshots.push(made);
        } else {
            pool.datasets.get_mut(holder).unwrap().own.insert(name.clone(), value);
        }
        for theirs in THEIRS {
            // A copy of a snapshot, marked like that.
            let guid = if dice.roll(2) == 0 { dice.of(&guids).0 } else { pool.tick() };
            let dataset = pool.datasets.get_mut(theirs).unwrap();
            if dice.roll(3) == 0 {
                dataset.own.insert(MARK.to_owned(), mark.clone());
            }
            if dice.roll(3) == 0 {
                let own = [(LOOK.to_owned(), mark.clone())].into();
                dataset.snapshots.push(snapshot(id.look_leaf(), guid, own));
            }
        }
        format!("on {holder}, {name}: {record:?}")
    }
}

/// Who asks first is told what recovery does then.
fn assert_told(pending: &[Pending], recovery: &Recovery) {
    let told: Vec<_> = pending.iter().filter_map(|told| told.outlook.as_ref()).collect();
    let finished = recovery.finished.iter().map(|finished| Ok(finished.outcome));
    let unfinished = recovery.unfinished.iter().map(|unfinished| Err(unfinished.reason.clone()));
    let done: Vec<_> = finished.chain(unfinished).collect();
    assert_eq!(told, done.iter().collect::<Vec<_>>(), "{pending:?}");
}

#[test]
fn a_hundred_thousand_forged_records_change_nothing() {
    let scene = Scene::new();
    let scope: DatasetName = "tank".parse().unwrap();
    let before = scene.state();
    let mut dice = Dice(super::seed());
    // What has become of them: a campaign in which each is refused at first sight would prove nothing.
    let (mut finished, mut unfinished, mut untouched) = (0, 0, 0);
    for number in 0..100_000 {
        let seed = dice.0;
        let forged = scene.forge(&mut dice);
        let asked = scene.state();
        let pending = scene.zfs.pending(&scope).unwrap();
        assert!(asked == scene.state(), "{number}, seed {seed}: {forged}");
        let recovery = scene.zfs.recover(&scope).unwrap();
        assert_told(&pending, &recovery);
        let after = scene.state();
        assert!(
            before == after,
            "{number}, seed {seed}: {forged}\n{recovery:?}\nbefore:\n{before}\nafter:\n{after}"
        );
        // None of the genuine ones is hidden.
        for carrier in &scene.genuine {
            let named = recovery.untouched.iter().filter(|it| it.carrier == *carrier);
            assert!(named.count() >= 1, "{number}, seed {seed}: {forged}\n{recovery:?}");
        }
        finished += recovery.finished.len();
        unfinished += recovery.unfinished.len();
        untouched += recovery.untouched.len() - scene.ids.len();
        scene.clean();
    }
    assert!(finished > 1_000 && unfinished > 1_000 && untouched > 1_000);
}
