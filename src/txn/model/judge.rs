//! Holds what was observed of an operation to the reference, and moves the reference on.

use std::collections::BTreeMap;

use super::memory::Content;
use super::operation::Operation;
use super::reference::{Ending, Observed, Place, Reference, Standing, Target, Traces, Txn};
use crate::name::TransactionId;
use crate::receipt::Keeps;

type Judgement = Result<(), String>;

/// What is observed of an operation; `None` while sequences are made up: all is as expected then.
type Seen<'a> = Option<&'a Observed>;

fn expect(seen: Seen<'_>, expected: &Ending) -> Judgement {
    match seen {
        Some(seen) if seen.ending != *expected => {
            Err(format!("{:?}, and the reference expects {expected:?}", seen.ending))
        }
        _ => Ok(()),
    }
}

/// What a crash may leave, to go on with while sequences are made up.
fn imagined(after: usize, of_commit: bool) -> Traces {
    let commit = of_commit && after > 5;
    Traces {
        standing: Some(Standing::Interrupted),
        base: true,
        promoted: commit,
        workspace: true,
        predecessor: commit && after > 6,
        look: false,
    }
}

impl Reference {
    /// What is written next, by whomever: it is never written twice.
    pub(super) fn value(&self) -> u64 {
        self.clock + 1
    }

    /// Moves on by one operation.
    ///
    /// # Errors
    /// How what was seen differs from what may be.
    pub(super) fn step(&mut self, operation: &Operation, seen: Seen<'_>) -> Judgement {
        self.clock += 1;
        match operation {
            Operation::Begin { slot, .. } if self.slots[*slot].is_some() => {
                expect(seen, &Ending::Skipped)
            }
            Operation::Begin { target, .. }
                if matches!(seen, Some(Observed { ending: Ending::Skipped, .. })) =>
            {
                match self.clone().finish_interrupted(*target) {
                    true => Err("it was left out, and should have begun".to_owned()),
                    false => Ok(()),
                }
            }
            Operation::Begin { slot, target, .. } => {
                if !self.finish_interrupted(*target) {
                    return expect(seen, &Ending::Refused);
                }
                let update = self.targets[*target].here.is_some();
                let (id, guid) = match seen.map(|seen| &seen.ending) {
                    Some(Ending::Begun { id, guid, .. }) => (*id, *guid),
                    _ => (TransactionId::from_bits(self.clock), self.clock),
                };
                expect(seen, &Ending::Begun { id, guid, update })?;
                self.slots[*slot] = Some(self.begun(operation, id, guid));
                Ok(())
            }
            Operation::Write { slot } => {
                let clock = self.clock;
                let Some(txn) = self.open(*slot) else { return expect(seen, &Ending::Skipped) };
                txn.content.insert(format!("f{slot}"), clock);
                expect(seen, &Ending::Done)
            }
            Operation::Commit { slot } => self.commit(*slot, seen),
            Operation::Rollback { slot } | Operation::Drop { slot } => {
                if self.open(*slot).is_none() {
                    return expect(seen, &Ending::Skipped);
                }
                self.slots[*slot] = None;
                expect(seen, &Ending::Done)
            }
            Operation::Detach { slot } => match self.open(*slot) {
                Some(txn) => {
                    txn.standing = Standing::Detached;
                    expect(seen, &Ending::Done)
                }
                None => expect(seen, &Ending::Skipped),
            },
            Operation::Resume { slot } => match &self.slots[*slot] {
                Some(txn) if txn.standing == Standing::Detached => {
                    if !self.is_in_sight(txn) {
                        return expect(seen, &Ending::Refused);
                    }
                    self.slots[*slot].iter_mut().for_each(|txn| txn.standing = Standing::Open);
                    expect(seen, &Ending::Done)
                }
                _ => expect(seen, &Ending::Skipped),
            },
            Operation::Recover | Operation::Sweep => {
                let recovered = self.recover(*operation == Operation::Sweep);
                expect(seen, &Ending::Recovered(recovered))
            }
            Operation::Boot => {
                for txn in self.slots.iter_mut().flatten() {
                    if txn.standing == Standing::Open {
                        txn.standing = Standing::Interrupted;
                        txn.traces = imagined(0, false);
                        txn.traces.base = txn.head.is_some();
                    }
                }
                self.settle(seen)
            }
            Operation::Crash { act, after, .. } => self.crash(act, *after, seen),
            foreign => self.foreign(foreign, seen),
        }
    }

    fn open(&mut self, slot: usize) -> Option<&mut Txn> {
        self.slots[slot].as_mut().filter(|txn| txn.standing == Standing::Open)
    }

    fn begun(&self, begin: &Operation, id: TransactionId, guid: u64) -> Txn {
        let (target, overwrite, last) = match *begin {
            Operation::Begin { target, overwrite, last, .. } => (target, overwrite, last),
            _ => unreachable!("{begin:?} begins nothing"),
        };
        let here = self.targets[target].here;
        Txn {
            id,
            target,
            head: here.map(|head| (head, self.heads[head].note)),
            base_on: here,
            begun: self.clock,
            overwrite,
            last: last.then(|| format!("last-{}", self.clock)),
            content: here.map_or_else(Content::new, |head| self.heads[head].content.clone()),
            guid,
            standing: Standing::Open,
            traces: Traces::default(),
            passed: None,
        }
    }

    fn commit(&mut self, slot: usize, seen: Seen<'_>) -> Judgement {
        let Some(txn) = self.open(slot).cloned() else { return expect(seen, &Ending::Skipped) };
        let reasons = self.reasons(&txn);
        if let Some(&first) = reasons.first() {
            return match seen.map(|seen| &seen.ending) {
                None => Ok(()),
                Some(Ending::Conflict(reason)) if reasons.contains(reason) => Ok(()),
                _ => expect(seen, &Ending::Conflict(first)),
            };
        }
        self.i8_one_winner(&txn)?;
        self.slots[slot] = None;
        let new = self.replace(&txn);
        let kept = self.keeps(&txn);
        self.conclude(&txn, new, kept);
        expect(seen, &Ending::Committed { kept })
    }

    /// I8: of transactions that began from the same head, one commits.
    fn i8_one_winner(&self, txn: &Txn) -> Judgement {
        match txn.head {
            Some((head, _)) if self.heads[head].place != Place::Target => {
                Err(format!("I8: {} commits over a head that another one has replaced", txn.id))
            }
            _ => Ok(()),
        }
    }

    fn crash(&mut self, act: &Operation, after: usize, seen: Seen<'_>) -> Judgement {
        let ending = seen.map(|seen| &seen.ending);
        // A commit that is refused gets nowhere near its commit point.
        let fit = match act {
            Operation::Commit { slot } => {
                let txn = self.slots[*slot].as_ref();
                txn.is_some_and(|txn| self.reasons(txn).is_empty())
            }
            _ => false,
        };
        let crashed = match ending {
            None => {
                Some((Some(TransactionId::from_bits(self.clock)), self.clock, fit && after > 7))
            }
            Some(Ending::Crashed { id, guid, passed }) => Some((*id, *guid, *passed)),
            _ => None,
        };
        let Some((id, guid, passed)) = crashed else {
            // It ended before it could die.
            self.clock -= 1;
            return self.step(act, seen);
        };
        let mut traces = imagined(after, fit);
        let slot = match act {
            Operation::Begin { slot, .. } if self.slots[*slot].is_none() => {
                self.settle(seen)?;
                if let Some(id) = id {
                    self.slots[*slot] = Some(self.begun(act, id, guid));
                }
                slot
            }
            Operation::Commit { slot } => {
                if let (true, Some(mut txn)) = (passed, self.open(*slot).cloned()) {
                    if !fit {
                        return Err(format!("I6, I8: {act:?} passed the commit point"));
                    }
                    self.i8_one_winner(&txn)?;
                    txn.passed = Some(self.replace(&txn));
                    // The base moved to the new head with those of before.
                    txn.base_on = txn.head.and(txn.passed);
                    self.slots[*slot] = Some(txn);
                }
                slot
            }
            Operation::Rollback { slot } | Operation::Detach { slot } => slot,
            Operation::Resume { slot } => slot,
            _ => return self.settle(seen),
        };
        if let Some(txn) = &mut self.slots[*slot] {
            traces.base = txn.head.is_some();
            traces.promoted &= traces.base && txn.passed.is_none();
            traces.predecessor &= traces.base;
            txn.standing = Standing::Interrupted;
            txn.traces = traces;
        }
        self.settle(seen)
    }

    /// Takes over what is on disk of those that are interrupted.
    fn settle(&mut self, seen: Seen<'_>) -> Judgement {
        let imagined: BTreeMap<_, _> = match seen {
            Some(_) => BTreeMap::new(),
            None => self.txns().map(|txn| (txn.id, txn.traces)).collect(),
        };
        let traces = seen.map_or(&imagined, |seen| &seen.traces);
        for slot in self.dead() {
            let Some(mut txn) = self.slots[slot].clone() else { continue };
            let now = traces.get(&txn.id).copied().unwrap_or_default();
            self.slots[slot] = None;
            match (now.standing, txn.passed) {
                (None, None) => self.put_back(&txn),
                (None | Some(Standing::Leftover), Some(new)) => {
                    let kept = self.keeps(&txn);
                    let gone = now.standing.is_none();
                    if gone && kept == Some(Keeps::Changes) {
                        return Err(format!("I6: the predecessor of {} had changes", txn.id));
                    }
                    let kept = kept.or(Some(Keeps::Unknown)).filter(|_| !gone);
                    self.conclude(&txn, new, kept);
                }
                (Some(Standing::Interrupted), passed) => {
                    if passed.is_none() && now.predecessor {
                        let (old, _) = txn.head.ok_or("an init with a predecessor")?;
                        self.heads[old].place = Place::Predecessor(txn.id);
                        self.targets[txn.target].here = None;
                    } else if passed.is_none() {
                        self.put_back(&txn);
                    }
                    txn.traces = now;
                    self.slots[slot] = Some(txn);
                }
                (Some(Standing::Detached), None) => {
                    txn.standing = Standing::Detached;
                    self.slots[slot] = Some(txn);
                }
                (standing, passed) => {
                    let id = txn.id;
                    return Err(format!("I4: {id} is {standing:?}, commit point {passed:?}"));
                }
            }
        }
        if seen.is_none() {
            return Ok(());
        }
        for left in std::mem::take(&mut self.left) {
            let now = traces.get(&left.id).copied().unwrap_or_default();
            if !now.predecessor {
                if left.changes {
                    return Err(format!("I6: the predecessor of {} had changes", left.id));
                }
                self.heads[left.old].place = Place::Destroyed;
            }
            if now.standing.is_some() {
                self.left.push(left);
            }
        }
        Ok(())
    }

    /// The head that somebody else may rename now, and whether away from the target's name.
    pub(super) fn renaming(&self, target: usize) -> Option<(usize, bool)> {
        // A name that is free because names are being swapped is not taken.
        let aside = |txn: &Txn| txn.passed.is_none() && txn.traces.predecessor;
        // Not modelled: new content that was renamed before the commit was finished. Recovery leaves
        // an update alone then, but a begin doesn't see its record, and an init has none by then.
        if self.doubt(target).is_some_and(|doubt| doubt.passed.is_some()) {
            return None;
        }
        match self.targets[target] {
            Target { here: Some(here), away: None } => Some((here, true)),
            Target { here: None, away: Some(_) } if self.doubt(target).is_some_and(aside) => None,
            Target { here: None, away: Some(away) } => Some((away, false)),
            _ => None,
        }
    }

    /// What others do.
    fn foreign(&mut self, operation: &Operation, seen: Seen<'_>) -> Judgement {
        let (clock, value) = (self.clock, self.clock);
        match *operation {
            Operation::ForeignWrite { target } => {
                let here = self.targets[target].here;
                let written = seen.map_or(here.map(|head| self.heads[head].guid), |s| s.written);
                let Some(guid) = written else {
                    let unmounted = here.is_none() || self.doubt(target).is_some();
                    let why = format!("I1: target {target} is not mounted");
                    return if unmounted { Ok(()) } else { Err(why) };
                };
                let doubt = self.doubt(target);
                let old = doubt.and_then(|doubt| doubt.head).map(|(old, _)| old);
                let mut heads = here.into_iter().chain(old);
                let Some(head) = heads.find(|head| self.heads[*head].guid == guid) else {
                    return Err(format!("I1: another dataset is mounted for target {target}"));
                };
                self.heads[head].content.insert("foreign".to_owned(), value);
                self.heads[head].wrote = clock;
                Ok(())
            }
            Operation::ForeignRead { .. } => Ok(()),
            Operation::ForeignSet { target } => {
                let Some(here) = self.targets[target].here else {
                    return expect(seen, &Ending::Skipped);
                };
                self.heads[here].note = value;
                expect(seen, &Ending::Done)
            }
            Operation::ForeignSnapshot { target } => {
                let Some(here) = self.targets[target].here else {
                    return expect(seen, &Ending::Skipped);
                };
                let head = &mut self.heads[here];
                head.snapshots.insert(format!("keep-{value}"), (clock, head.content.clone()));
                expect(seen, &Ending::Done)
            }
            Operation::ForeignRename { target } => {
                let Some((head, away)) = self.renaming(target) else {
                    return expect(seen, &Ending::Skipped);
                };
                self.heads[head].place = if away { Place::Away } else { Place::Target };
                let (here, gone) = if away { (None, Some(head)) } else { (Some(head), None) };
                self.targets[target] = Target { here, away: gone };
                expect(seen, &Ending::Done)
            }
            Operation::ForeignDestroyBase { slot } => {
                let Some(txn) = &mut self.slots[slot] else {
                    return expect(seen, &Ending::Skipped);
                };
                let dead = txn.standing == Standing::Interrupted;
                let Traces { base, workspace, promoted, .. } = txn.traces;
                if txn.head.is_none() || dead && !base {
                    return expect(seen, &Ending::Skipped);
                }
                // Whatever is a clone of it keeps it: the workspace, or the old head.
                if !dead || workspace || promoted || txn.passed.is_some() {
                    return expect(seen, &Ending::Refused);
                }
                self.slots[slot] = None;
                expect(seen, &Ending::Done)
            }
            _ => unreachable!("{operation:?} is no foreign act"),
        }
    }
}
