//! What the pool should look like to its users, and how each operation should end. Pure.
//!
//! A *head* is one incarnation of a target: an update makes a new one. The reference doesn't know
//! of steps: after a crash it is told what is there, and holds recovery to it.

use std::collections::{BTreeMap, BTreeSet};

use super::memory::Content;
use super::operation::{SLOTS, TARGETS};
use crate::name::TransactionId;
use crate::receipt::Keeps;
use crate::recovery::Outcome;

#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) guid: u64,
    pub(super) target: usize,
    /// Whether it has the mount point that it inherits.
    pub(super) inherits: bool,
    pub(super) content: Content,
    /// Those of users, each with when it was taken.
    pub(super) snapshots: BTreeMap<String, (u64, Content)>,
    /// A property of its own.
    pub(super) note: u64,
    /// When somebody else than a transaction last wrote to it.
    pub(super) wrote: u64,
    pub(super) place: Place,
}

/// Where a head is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Target,
    /// Renamed by somebody else.
    Away,
    Predecessor(TransactionId),
    Destroyed,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Target {
    pub(super) here: Option<usize>,
    pub(super) away: Option<usize>,
}

/// How a transaction stands, as [`Condition`](crate::Condition) says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    Detached,
    Interrupted,
    Leftover,
}

/// What is on disk of a transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traces {
    pub(super) standing: Option<Standing>,
    pub(super) base: bool,
    /// Whether the workspace, under its own name, has the base.
    pub(super) promoted: bool,
    pub(super) workspace: bool,
    pub(super) predecessor: bool,
    pub(super) look: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Txn {
    pub(super) id: TransactionId,
    pub(super) target: usize,
    /// An update's head at begin, with its note then.
    pub(super) head: Option<(usize, u64)>,
    /// The head that has the base by now.
    pub(super) base_on: Option<usize>,
    pub(super) begun: u64,
    pub(super) overwrite: bool,
    /// The final snapshot.
    pub(super) last: Option<String>,
    pub(super) content: Content,
    /// The workspace's guid.
    pub(super) guid: u64,
    pub(super) standing: Standing,
    /// Of one that is interrupted.
    pub(super) traces: Traces,
    /// The new head, where the commit point was passed.
    pub(super) passed: Option<usize>,
}

impl Txn {
    fn is_dead(&self) -> bool {
        self.standing == Standing::Interrupted
    }

    /// Whether names are as they are only in the midst of a commit.
    pub(super) fn in_doubt(&self) -> bool {
        self.is_dead() && (self.passed.is_some() || self.traces.promoted || self.traces.predecessor)
    }
}

/// A commit whose predecessor had to stay.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) id: TransactionId,
    pub(super) old: usize,
    pub(super) base_on: usize,
    begun: u64,
    /// Whether it has what is found nowhere else.
    pub(super) changes: bool,
}

/// Why a commit is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    Appeared,
    Replaced,
    Modified,
    NewerSnapshot,
    SettingsChanged,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// There was nothing to do it to.
    Skipped,
    Done,
    Refused,
    Begun {
        id: TransactionId,
        guid: u64,
        update: bool,
    },
    Committed {
        kept: Option<Keeps>,
    },
    Conflict(Reason),
    Recovered(Recovered),
    Crashed {
        id: Option<TransactionId>,
        guid: u64,
        passed: bool,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Recovered {
    pub(super) finished: BTreeMap<TransactionId, Outcome>,
    pub(super) unfinished: BTreeSet<TransactionId>,
    pub(super) untouched: BTreeSet<TransactionId>,
}

/// An operation's end, and what is to be seen then.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub(super) ending: Ending,
    /// The dataset that a foreign write got to.
    pub(super) written: Option<u64>,
    pub(super) traces: BTreeMap<TransactionId, Traces>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Reference {
    pub(super) clock: u64,
    pub(super) heads: Vec<Head>,
    pub(super) targets: [Target; TARGETS],
    pub(super) slots: [Option<Txn>; SLOTS],
    pub(super) left: Vec<Left>,
}

impl Reference {
    /// With targets that are there from the beginning, by guid.
    pub(super) fn new(guids: &[u64]) -> Self {
        let mut new = Self::default();
        for (target, &guid) in guids.iter().enumerate() {
            new.heads.push(Head {
                guid,
                target,
                inherits: target != 1,
                content: Content::from([("origin".to_owned(), target as u64)]),
                snapshots: BTreeMap::new(),
                note: 0,
                wrote: 0,
                place: Place::Target,
            });
            new.targets[target].here = Some(target);
        }
        new
    }

    pub(super) fn standing(&self, slot: usize) -> Option<Standing> {
        self.slots[slot].as_ref().map(|txn| txn.standing)
    }

    pub(super) fn leftovers(&self) -> usize {
        self.left.len()
    }

    pub(super) fn txns(&self) -> impl Iterator<Item = &Txn> {
        self.slots.iter().flatten()
    }

    /// The interrupted commit that has the target's names in its hands.
    pub(super) fn doubt(&self, target: usize) -> Option<&Txn> {
        self.txns().find(|txn| txn.target == target && txn.in_doubt())
    }

    /// Whether other transactions' bases, or users' snapshots, keep a predecessor.
    fn is_pinned(&self, old: usize) -> bool {
        let pins = |txn: &Txn| {
            let there = !txn.is_dead() || txn.traces.base;
            txn.base_on == Some(old) && there
                || txn.traces.look && txn.head.is_some_and(|(head, _)| head == old)
        };
        !self.heads[old].snapshots.is_empty() || self.txns().any(pins)
    }

    /// All true reasons to refuse a commit.
    pub(super) fn reasons(&self, txn: &Txn) -> BTreeSet<Reason> {
        let here = self.targets[txn.target].here;
        let mut reasons = BTreeSet::new();
        let Some((head, note)) = txn.head else {
            let taken = here.is_some() || self.doubt(txn.target).is_some();
            reasons.extend(taken.then_some(Reason::Appeared));
            return reasons;
        };
        let promoted = self.doubt(txn.target).is_some_and(|doubt| doubt.traces.promoted);
        if here != Some(head) || promoted {
            reasons.insert(Reason::Replaced);
        }
        if here == Some(head) {
            let head = &self.heads[head];
            let newer = head.snapshots.values().any(|(taken, _)| *taken > txn.begun);
            for (reason, applies) in [
                (Reason::Modified, head.wrote > txn.begun),
                (Reason::NewerSnapshot, newer),
                (Reason::SettingsChanged, head.note != note),
            ] {
                if applies && !txn.overwrite {
                    reasons.insert(reason);
                }
            }
        }
        reasons
    }

    /// The commit point: the workspace becomes the target.
    pub(super) fn replace(&mut self, txn: &Txn) -> usize {
        let new = self.heads.len();
        let mut snapshots = BTreeMap::new();
        let (mut note, mut inherits) = (0, true);
        if let Some((old, at_begin)) = txn.head {
            (note, inherits) = (at_begin, self.heads[old].inherits);
            let all = std::mem::take(&mut self.heads[old].snapshots);
            let (moved, stay) = all.into_iter().partition(|(_, (taken, _))| *taken < txn.begun);
            (snapshots, self.heads[old].snapshots) = (moved, stay);
            self.heads[old].place = Place::Predecessor(txn.id);
            let bases = self.slots.iter_mut().flatten();
            let bases = bases.map(|other| (other.begun, other.base_on.as_mut()));
            let left = self.left.iter_mut().map(|left| (left.begun, Some(&mut left.base_on)));
            for (begun, base_on) in bases.chain(left) {
                if let Some(base_on) = base_on.filter(|on| **on == old && begun <= txn.begun) {
                    *base_on = new;
                }
            }
        }
        snapshots.extend(txn.last.clone().map(|last| (last, (self.clock, txn.content.clone()))));
        let (guid, target, content) = (txn.guid, txn.target, txn.content.clone());
        let (wrote, place) = (0, Place::Target);
        self.heads.push(Head { guid, target, inherits, content, snapshots, note, wrote, place });
        self.targets[target].here = Some(new);
        new
    }

    /// What a commit that has passed the commit point keeps of the predecessor.
    pub(super) fn keeps(&self, txn: &Txn) -> Option<Keeps> {
        let (old, note) = txn.head?;
        let head = &self.heads[old];
        let newer = head.snapshots.values().any(|(taken, _)| *taken > txn.begun);
        // Snapshots keep it by themselves where the commit's own process has not come so far.
        let overridden = txn.overwrite && (newer && !txn.is_dead() || head.note != note);
        match head.wrote > txn.begun || overridden {
            true => Some(Keeps::Changes),
            false => self.is_pinned(old).then_some(Keeps::Unknown),
        }
    }

    pub(super) fn conclude(&mut self, txn: &Txn, new: usize, kept: Option<Keeps>) {
        let Some((old, _)) = txn.head else { return };
        match kept {
            None => self.heads[old].place = Place::Destroyed,
            Some(keeps) => self.left.push(Left {
                id: txn.id,
                old,
                base_on: new,
                begun: txn.begun,
                changes: keeps == Keeps::Changes,
            }),
        }
    }

    /// Whether recovery can't finish an interrupted transaction, because somebody has interfered.
    pub(super) fn is_stuck(&self, txn: &Txn) -> bool {
        let here = self.targets[txn.target].here;
        match (txn.passed, txn.head) {
            (Some(new), _) => here != Some(new),
            (None, Some((old, _))) if txn.traces.promoted => {
                let taken = txn.traces.predecessor && here.is_some();
                taken || self.heads[old].place == Place::Away
            }
            _ => false,
        }
    }

    /// Finishes an interrupted transaction.
    fn finish(&mut self, slot: usize) -> Option<Outcome> {
        let txn = self.slots[slot].take()?;
        if let Some(new) = txn.passed {
            let kept = self.keeps(&txn);
            self.conclude(&txn, new, kept);
            return Some(Outcome::Committed);
        }
        self.put_back(&txn);
        Some(Outcome::RolledBack)
    }

    /// The target gets its name back, if it was taken aside.
    pub(super) fn put_back(&mut self, txn: &Txn) {
        let Some((old, _)) = txn.head else { return };
        if self.heads[old].place == Place::Predecessor(txn.id) {
            self.heads[old].place = Place::Target;
            self.targets[txn.target].here = Some(old);
        }
    }

    /// Tries the leftovers of `old`: a sweep removes some, and can't remove others.
    fn sweep(&mut self, old: Vec<Left>, recovered: &mut Recovered) {
        for left in old {
            let there = self.heads[left.old].place != Place::Destroyed;
            if there && (left.changes || self.is_pinned(left.old)) {
                recovered.unfinished.insert(left.id);
                self.left.push(left);
            } else {
                recovered.finished.insert(left.id, Outcome::Swept);
                self.heads[left.old].place = Place::Destroyed;
            }
        }
    }

    /// Interrupted transactions in the order in which recovery takes them: last those whose commit
    /// has begun to swap names, for others' ends set their predecessors free.
    pub(super) fn dead(&self) -> Vec<usize> {
        let dead = |slot: &usize| self.standing(*slot) == Some(Standing::Interrupted);
        let mut slots: Vec<usize> = (0..SLOTS).filter(dead).collect();
        let swaps = |txn: &Txn| txn.head.is_some() && (txn.passed.is_some() || txn.traces.promoted);
        slots.sort_by_key(|&slot| self.slots[slot].as_ref().is_some_and(swaps));
        slots
    }

    pub(super) fn recover(&mut self, sweep_only: bool) -> Recovered {
        let mut recovered = Recovered::default();
        let old = std::mem::take(&mut self.left);
        let dead = if sweep_only { Vec::new() } else { self.dead() };
        for txn in self.txns().filter(|txn| sweep_only || !txn.is_dead()) {
            recovered.untouched.insert(txn.id);
        }
        for slot in dead {
            let Some(txn) = &self.slots[slot] else { continue };
            let id = txn.id;
            if self.is_stuck(txn) {
                recovered.unfinished.insert(id);
            } else if let Some(outcome) = self.finish(slot) {
                recovered.finished.insert(id, outcome);
            }
        }
        self.sweep(old, &mut recovered);
        recovered
    }

    /// Whether the record is where a begin or resume on the target looks for it.
    pub(super) fn is_in_sight(&self, txn: &Txn) -> bool {
        let Some(base_on) = txn.base_on else { return true };
        let moved = self.doubt(txn.target).is_some_and(|doubt| {
            let from = doubt.head.map(|(head, _)| head);
            doubt.traces.promoted && from == Some(base_on) && txn.begun <= doubt.begun
        });
        moved || self.heads[base_on].place != Place::Away
    }

    /// What a begin does first; says whether it may go on.
    pub(super) fn finish_interrupted(&mut self, target: usize) -> bool {
        for slot in self.dead() {
            let Some(txn) = &self.slots[slot] else { continue };
            if txn.target != target || !self.is_in_sight(txn) {
                continue;
            }
            if self.is_stuck(txn) {
                return false;
            }
            self.finish(slot);
        }
        true
    }
}
