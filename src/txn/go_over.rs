//! A commit by promote that goes over to one in place.
//!
//! A snapshot that the target got since begin, for example by a periodic job, would stay behind: a promote
//! moves those up to the base alone. A commit in place leaves every snapshot where it is, and the same clone
//! of the base will do for both. So such a commit is made in place where it can be, from its first step on.

use crate::engine::Fault;
use crate::error::{Conflict, StepError};
use crate::receipt::Strategy;
use crate::txn::journal::Record;
use crate::txn::plan::{Kind, Plan, Shape, Step};
use crate::txn::stage::Stage;

impl Stage {
    /// Whether this is no conflict for a commit in place.
    pub(super) fn can_go_over(&self, conflict: &Conflict) -> bool {
        let newer = matches!(conflict, Conflict::NewerSnapshot { .. });
        let lacks = || self.engine.lacks(&self.order.layout.target);
        newer && !self.order.is_in_place() && matches!(lacks(), Ok(None))
    }

    /// Has record and plan say "in place". All steps of the commit are undone, and the record says "open":
    /// whoever recovers it has the same to do either way.
    ///
    /// The workspace keeps the properties that were to be the target's. None of them is sent, and it is
    /// kept from claiming a mount point until it is destroyed.
    pub(super) fn go_over(&mut self) -> Result<(), StepError> {
        let record = Record {
            strategy: Strategy::InPlace,
            pin: None,
            gate: Vec::new(),
            settings: None,
            ..self.order.record.clone()
        };
        let shape = Shape {
            kind: Kind::Update,
            strategy: Strategy::InPlace,
            missing_parents: 0,
            permissions: false,
            ownership: record.ownership.is_some(),
            final_snapshot: record.final_leaf.is_some(),
            fence: record.fence.is_some(),
            pinned: false,
        };
        let rewritten = self.rewrite_record(record);
        rewritten.map_err(|fault: Fault| self.error(Step::CheckTarget, fault))?;
        self.order.plan = Plan::new(shape);
        self.fenced = false;
        self.overridden.clear();
        tracing::info!(id = %self.id(), "the target has newer snapshots: committing in place");
        Ok(())
    }
}
