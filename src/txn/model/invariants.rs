//! The invariants by their numbers (`docs/design.md`), each a statement about what is seen.
//! I4 is what [`judge`](super::judge) holds recoveries to, I7 what the mortal engine refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::machine::Machine;
use super::operation::TARGETS;
use super::reference::{Head, Place};
use super::world::{Backend, Seen, View};

/// What was seen, and the machine with what it expects.
pub(super) struct Check<'a, B> {
    pub(super) machine: &'a Machine<B>,
    pub(super) view: &'a View,
}

impl<B: Backend> Check<'_, B> {
    pub(super) fn all(&self) {
        self.i1_whole_contents();
        self.i2_nothing_unknown();
        self.i3_nothing_else_changed();
        self.i5_others_untouched();
        self.i6_no_update_lost();
        self.one_claims_the_mount_point();
    }

    fn seen(&self, name: &str) -> Option<&Seen> {
        self.view.datasets.get(name)
    }

    /// The head is there under this name, with its content.
    fn is_whole(&self, number: &str, head: &Head, name: &str) {
        let seen = self.seen(name).unwrap_or_else(|| panic!("{number}: {name} is gone"));
        assert_eq!(seen.guid, head.guid, "{number}: another dataset is named {name}");
        if let Some(content) = &seen.content {
            assert_eq!(*content, head.content, "{number}: content of {name}");
        }
    }

    /// I1: the target's name and its mount point stand for a whole content, the old or the new.
    fn i1_whole_contents(&self) {
        let reference = &self.machine.reference;
        for (index, target) in reference.targets.iter().enumerate() {
            let name = self.machine.target(index);
            let Some(here) = target.here else {
                assert!(self.seen(name.as_str()).is_none(), "I1: {name} is there");
                continue;
            };
            let head = &reference.heads[here];
            self.is_whole("I1", head, name.as_str());
            let path = self.machine.path(head, name.leaf());
            let content = self.machine.world.read(Path::new(&path));
            let doubt = reference.doubt(index);
            let mut whole = vec![Some(&head.content)];
            if let Some(doubt) = doubt {
                whole.push(doubt.head.map(|(old, _)| &reference.heads[old].content));
            }
            assert!(whole.contains(&content.as_ref()), "I1: {path}: {content:?}, not {whole:?}");
        }
    }

    /// I2: whatever is there belongs to a target, to others, or to a transaction that is known.
    fn i2_nothing_unknown(&self) {
        let reference = &self.machine.reference;
        let txns = reference.txns().map(|txn| txn.id);
        let known: BTreeSet<_> = txns.chain(reference.left.iter().map(|left| left.id)).collect();
        let bystanders = self.machine.bystanders.keys().map(String::as_str);
        let heads = reference.heads.iter().filter_map(|head| self.machine.name(head));
        let mut names: BTreeSet<String> = heads.chain(bystanders.map(str::to_owned)).collect();
        names.insert(self.machine.world.scope().to_string());
        for (name, seen) in &self.view.datasets {
            let of = |suffix: fn(crate::name::TransactionId) -> String| {
                known.iter().any(|id| name.ends_with(&suffix(*id)))
            };
            assert!(
                names.contains(name) || of(|id| id.workspace_suffix()),
                "I2: {name} is of no transaction"
            );
            for leaf in seen.snapshots.keys().filter(|leaf| leaf.starts_with("txn-")) {
                let is = |id: &crate::name::TransactionId| {
                    *leaf == id.base_leaf() || *leaf == id.look_leaf()
                };
                let bystander = self.machine.bystanders.contains_key(name);
                assert!(
                    bystander || known.iter().any(is),
                    "I2: {name}@{leaf} is of no transaction"
                );
            }
        }
        let of_nobody = |name: &&String| !known.iter().any(|id| id.to_string() == **name);
        let stray = self.view.private_mounts.iter().find(of_nobody);
        assert_eq!(stray, None, "I2: a private mount is of no transaction");
    }

    /// I3: the target has the properties and snapshots that it had.
    fn i3_nothing_else_changed(&self) {
        let reference = &self.machine.reference;
        for (index, target) in reference.targets.iter().enumerate() {
            let Some(here) = target.here else { continue };
            let (name, head) = (self.machine.target(index), &reference.heads[here]);
            let Some(seen) = self.seen(name.as_str()) else { continue };
            assert_eq!(seen.note, head.note, "I3: a property of {name}");
            if reference.doubt(index).is_some() {
                continue;
            }
            assert!(!seen.gated, "I3: {name} has properties that nobody set: {seen:?}");
            let own = (!head.inherits).then(|| self.machine.world.paths().1);
            assert_eq!(seen.mountpoint, own, "I3: the mount point of {name}");
            let of_users = seen.snapshots.iter().filter(|(leaf, _)| !leaf.starts_with("txn-"));
            let found: BTreeMap<_, _> = of_users.collect();
            assert!(found.keys().copied().eq(head.snapshots.keys()), "I3: {name}: {found:?}");
            for (leaf, content) in found {
                if let Some(content) = content {
                    assert_eq!(*content, head.snapshots[leaf].1, "I3: {name}@{leaf}");
                }
            }
        }
    }

    /// I5: nobody else's dataset is destroyed or changed, whatever it is named.
    fn i5_others_untouched(&self) {
        for (name, guid) in &self.machine.bystanders {
            let found = self.seen(name).map(|seen| seen.guid);
            assert_eq!(found, Some(*guid), "I5: {name}");
        }
        for head in self.machine.reference.heads.iter().filter(|head| head.place == Place::Away) {
            let name = self.machine.name(head).unwrap_or_default();
            self.is_whole("I5", head, &name);
        }
    }

    /// I6: a predecessor that has what is found nowhere else is kept.
    fn i6_no_update_lost(&self) {
        for head in &self.machine.reference.heads {
            if let (Place::Predecessor(_), Some(name)) = (head.place, self.machine.name(head)) {
                self.is_whole("I6", head, &name);
                // Until the commit point is passed or given up, the workspace has some of them.
                for leaf in head.snapshots.keys() {
                    let there = |seen: &Seen| seen.snapshots.contains_key(leaf);
                    assert!(self.view.datasets.values().any(there), "I6: {name}@{leaf} is gone");
                }
            }
        }
    }

    /// At any moment a boot mounts one dataset at the target's mount point, and no two datasets
    /// anywhere at one.
    fn one_claims_the_mount_point(&self) {
        let mut claims: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, seen) in &self.view.datasets {
            let Some(path) = &seen.claim else { continue };
            let other = claims.insert(path, name);
            assert_eq!(other, None, "claims: {path} is claimed by {name}, too");
        }
        let reference = &self.machine.reference;
        for index in 0..TARGETS {
            let doubt = reference.doubt(index);
            // What an interrupted init has made has no mount point before it is finished.
            let of_init = doubt.is_some_and(|doubt| doubt.head.is_none());
            let old = doubt.and_then(|doubt| doubt.head).map(|(old, _)| old);
            let Some(head) = reference.targets[index].here.or(old).filter(|_| !of_init) else {
                continue;
            };
            let head = &reference.heads[head];
            if head.place == Place::Away {
                continue;
            }
            let path = self.machine.path(head, self.machine.target(index).leaf());
            assert!(claims.contains_key(path.as_str()), "claims: nobody claims {path}");
        }
    }
}
