//! What others, or the caller, have made of a workspace: snapshots and bookmarks, for example by
//! `zfs snapshot -r` of the dataset above. They have content that was never committed, so they go before
//! the workspace becomes the target, and with it where it is destroyed.

use crate::engine::Fault;
use crate::errno::Errno;
use crate::txn::stage::Stage;

/// What becomes of the snapshot that the commit itself takes in the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Final {
    /// It becomes the target's, or says to recovery that the change was received.
    Stays,
    Goes,
}

impl Stage {
    /// Destroys the workspace's snapshots, all or none, and its bookmarks.
    ///
    /// Bookmarks go by themselves because a destroyed dataset doesn't give back what they count for in
    /// the feature `bookmark_v2` (`dsl_destroy_head_sync_impl`), and no channel program can destroy them.
    /// What is gone already counts as done.
    pub(super) fn clear_workspace(&mut self, last: Final) -> Result<(), Fault> {
        let workspace = self.order.layout.workspace.clone();
        let mut made = self.engine.snapshots_and_bookmarks(&workspace)?;
        made.sort();
        // After a promote it holds the target's.
        if made.is_empty() || !self.is_workspace()? {
            return Ok(());
        }
        let own = self.order.final_leaf().map(|leaf| format!("{workspace}@{leaf}"));
        let bookmark = self.bookmark();
        let (snapshots, bookmarks): (Vec<String>, Vec<String>) = made
            .into_iter()
            .filter(|name| last == Final::Goes || Some(name) != own.as_ref())
            .partition(|name| name.contains('@'));
        self.all_gone(&snapshots, |names| self.engine.destroy_snapshots(names))?;
        self.all_gone(&bookmarks, |names| self.engine.destroy_bookmarks(names))?;
        let ours = |name: &String| Some(name) == own.as_ref() || *name == bookmark;
        let others = snapshots.into_iter().chain(bookmarks).filter(|name| !ours(name));
        for name in others {
            tracing::warn!(%name, "made of the workspace by others or the caller, and destroyed");
            self.workspace_snapshots.push(name);
        }
        Ok(())
    }

    /// Destroys, and judges by the state when the call reports a failure.
    fn all_gone(
        &self,
        names: &[String],
        destroy: impl Fn(&[String]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if names.is_empty() {
            return Ok(());
        }
        let Err(fault) = destroy(names) else { return Ok(()) };
        let left = self.engine.snapshots_and_bookmarks(&self.order.layout.workspace);
        let gone = left.is_ok_and(|left| !left.iter().any(|name| names.contains(name)));
        if gone { Ok(()) } else { Err(fault) }
    }

    /// Whether what has the workspace's name is the clone of the base, or the new dataset, that it was
    /// made as.
    fn is_workspace(&self) -> Result<bool, Fault> {
        let facts = self.engine.facts(self.order.layout.workspace.as_str())?;
        Ok(facts.is_some_and(|facts| {
            Some(facts.guid) == self.guids.workspace && facts.origin == self.guids.base
        }))
    }
}

/// Whether somebody keeps what was to be destroyed, so that it has to be left.
pub(super) fn is_kept(fault: &Fault) -> bool {
    matches!(fault.errno, Errno::BUSY | Errno::EXIST)
}
