//! What a walk has seen is by then no longer so, or is seen twice, or is not the only one of its kind: nothing is
//! done by it, and no transaction is overlooked.

use std::sync::Arc;

use super::memory::{Dataset, Memory, Own, Snapshot};
use crate::engine::{Engine, Entry, LOOK, MARK, PropertyValue};
use crate::errno::Errno;
use crate::name::{DatasetName, TransactionId};
use crate::recovery::Outcome;
use crate::txn::journal::{Record, State, property};
use crate::txn::recover::cases_below;
use crate::zfs::Zfs;

struct Scene {
    memory: Arc<Memory>,
    engine: Arc<dyn Engine>,
    zfs: Zfs,
}

fn name(text: &str) -> DatasetName {
    text.parse().unwrap()
}

impl Scene {
    fn new() -> Self {
        let memory = Arc::new(Memory::default());
        for name in ["tank", "tank/p", "tank/p/a", "tank/z"] {
            memory.pool().new_dataset(name, Dataset::default()).unwrap();
        }
        memory.pool().boot();
        let engine = Arc::clone(&memory) as Arc<dyn Engine>;
        Self { memory, zfs: Zfs::on(Arc::clone(&engine), None), engine }
    }

    /// A transaction on `tank/p/a` whose process is gone.
    fn interrupted(&self) -> TransactionId {
        let transaction = self.zfs.transaction(&name("tank/p/a")).begin().unwrap();
        let id = transaction.detach().unwrap();
        let mut pool = self.memory.pool();
        let own = pool.own_mut(&format!("tank/p/a@{}", id.base_leaf())).unwrap();
        let PropertyValue::Text(text) = &own[&property(id)] else { panic!("{own:?}") };
        let record = Record::decode(&property(id), text).unwrap();
        let record = Record { owner: None, state: State::Open, ..record };
        own.insert(property(id), PropertyValue::Text(record.encode().into()));
        id
    }

    fn walk(&self) -> Vec<Entry> {
        self.engine.walk(&name("tank")).unwrap().entries
    }

    /// What the next walk has seen.
    fn sees(&self, entries: Vec<Entry>) {
        self.memory.pool().seen = Some(entries);
    }

    /// On a dataset of somebody else's, a snapshot with the same name and guid: a receive gives it the guid that
    /// the stream says.
    fn put_twin(&self, id: TransactionId, own: Own) {
        let mut pool = self.memory.pool();
        let base = pool.snapshot(&format!("tank/p/a@{}", id.base_leaf())).unwrap().clone();
        let twin = Snapshot { own, txg: pool.tick(), ..base };
        pool.datasets.get_mut("tank/z").unwrap().snapshots.push(twin);
    }
}

#[test]
fn what_cannot_be_looked_at_again_is_not_acted_on() {
    let scene = Scene::new();
    let id = scene.interrupted();
    scene.memory.pool().journal_fails = Some(Errno::NOSPC);
    let before = format!("{:?}", scene.memory.pool().datasets);
    let recovery = scene.zfs.recover(&name("tank")).unwrap();
    assert_eq!((recovery.finished.len(), recovery.unfinished.len()), (0, 1), "{recovery:?}");
    let error = recovery.unfinished[0].error.as_ref().unwrap();
    assert_eq!(error.errno, Errno::NOSPC);
    assert_eq!(before, format!("{:?}", scene.memory.pool().datasets));
    scene.memory.pool().journal_fails = None;
    let recovery = scene.zfs.recover(&name("tank")).unwrap();
    assert_eq!((recovery.finished.len(), recovery.finished[0].id), (1, id), "{recovery:?}");
}

#[test]
fn what_has_moved_since_the_walk_is_finished_all_the_same() {
    for (from, to) in [("tank/p", "tank/q"), ("tank/p/a", "tank/p/b")] {
        let scene = Scene::new();
        let id = scene.interrupted();
        scene.sees(scene.walk());
        scene.engine.rename(&name(from), &name(to)).unwrap();
        let recovery = scene.zfs.recover(&name("tank")).unwrap();
        let [finished] = &recovery.finished[..] else { panic!("{to}: {recovery:?}") };
        assert_eq!((finished.id, finished.outcome), (id, Outcome::RolledBack));
        assert!(recovery.untouched.is_empty() && recovery.unfinished.is_empty(), "{recovery:?}");
        assert_eq!(scene.walk(), [], "{to}");
    }
}

#[test]
fn what_is_seen_under_two_names_is_one() {
    for stale_first in [true, false] {
        let scene = Scene::new();
        let id = scene.interrupted();
        let seen = scene.walk();
        let elsewhere = |entry: &Entry| Entry {
            carrier: entry.carrier.replace("tank/p/", "tank/o/"),
            ..entry.clone()
        };
        let stale = seen.iter().map(elsewhere);
        let both: Vec<Entry> = match stale_first {
            true => stale.chain(seen.clone()).collect(),
            false => seen.iter().cloned().chain(stale).collect(),
        };
        scene.sees(both.clone());
        let pending = scene.zfs.pending(&name("tank")).unwrap();
        assert!(
            pending.iter().any(|pending| pending.carrier.starts_with("tank/p/a@")),
            "{pending:?}"
        );
        assert_eq!(pending.len(), if stale_first { 1 } else { 2 }, "{pending:?}");
        scene.sees(both);
        let recovery = scene.zfs.recover(&name("tank")).unwrap();
        assert_eq!(recovery.finished.len(), 1, "{recovery:?}");
        assert_eq!(recovery.finished[0].id, id);
        assert!(recovery.untouched.is_empty() && recovery.unfinished.is_empty(), "{recovery:?}");
    }
}

#[test]
fn what_was_gone_and_is_back_is_told() {
    let scene = Scene::new();
    let detached = scene.zfs.transaction(&name("tank/p/a")).begin().unwrap().detach().unwrap();
    let seen = scene.walk();
    let back = seen[0].carrier.replace("tank/p/", "tank/o/");
    let elsewhere = Entry { carrier: back.clone(), ..seen[0].clone() };
    // Under this name nothing is there when it is looked for, and all by the next walk.
    scene.sees([vec![elsewhere], seen].concat());
    scene.memory.pool().renamed_then = Some(["tank/p", "tank/o"].map(name));
    let recovery = scene.zfs.recover(&name("tank")).unwrap();
    let [untouched] = &recovery.untouched[..] else { panic!("{recovery:?}") };
    assert_eq!((untouched.id, &untouched.carrier), (detached, &back));
}

#[test]
fn a_snapshot_of_the_same_guid_hides_no_record() {
    let record = |scene: &Scene, id: TransactionId| {
        scene.memory.pool().own_mut(&format!("tank/p/a@{}", id.base_leaf())).unwrap().clone()
    };
    let of_anything = |_: &Scene, id| Own::from([(property(id), PropertyValue::Text("x".into()))]);
    for forged in [&record as &dyn Fn(&Scene, TransactionId) -> Own, &of_anything] {
        let scene = Scene::new();
        let id = scene.interrupted();
        scene.put_twin(id, forged(&scene, id));
        assert_eq!(scene.zfs.pending(&name("tank")).unwrap().len(), 2);
        let recovery = scene.zfs.recover(&name("tank")).unwrap();
        let ours = recovery.finished.iter().filter(|it| it.target == name("tank/p/a"));
        assert_eq!(ours.count(), 1, "{recovery:?}");
        assert!(scene.engine.facts(&format!("tank/p/a-txn-{id}")).unwrap().is_none());
        assert!(scene.engine.facts("tank/z").unwrap().is_some());
    }
}

/// As many records as marks: each record with all of the marks would be more than there is memory for.
#[test]
fn all_that_bear_an_id_share_its_marks() {
    let scene = Scene::new();
    let id = scene.interrupted();
    let mark = PropertyValue::Text(id.to_string().into());
    for number in 0..1_000 {
        let mut pool = scene.memory.pool();
        let txg = pool.tick();
        let own = [(MARK, &mark), (LOOK, &mark), (property(id).as_str(), &mark)]
            .map(|(name, value)| (name.to_owned(), value.clone()));
        let (leaf, own) = (format!("txn-{number}"), Own::from(own));
        let snapshot = Snapshot { leaf, guid: txg, txg, own, content: Default::default() };
        pool.datasets.get_mut("tank/z").unwrap().snapshots.push(snapshot);
    }
    let cases = cases_below(scene.engine.as_ref(), &name("tank")).unwrap().cases;
    assert_eq!((cases.len(), cases[0].marks.len()), (1_001, 2_000));
    assert!(cases.iter().all(|case| Arc::ptr_eq(&case.marks, &cases[0].marks)));
}
