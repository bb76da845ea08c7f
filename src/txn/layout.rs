//! The names that one transaction uses. Pure.

use crate::error::BeginError;
use crate::name::{DatasetName, MAX_NAME_LEN, SnapshotName, TransactionId};

/// Every name that a transaction may touch, derived from the target's and the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) target: DatasetName,
    pub(crate) workspace: DatasetName,
    pub(crate) predecessor: DatasetName,
    /// The base as long as the target holds it. A promote moves it, under the same last part.
    pub(crate) base: SnapshotName,
    /// The last part of the final snapshot's name.
    pub(crate) final_leaf: Option<String>,
    /// Parents of the target that don't exist and are to be created, topmost first.
    pub(crate) missing_parents: Vec<DatasetName>,
}

impl Layout {
    /// `longest_snapshot` is the length of the longest snapshot or bookmark name of the target
    /// (what follows the separator): promote and rename refuse those that would no longer fit.
    ///
    /// # Errors
    /// Where a name would be too long.
    pub(crate) fn new(
        target: &DatasetName,
        id: TransactionId,
        final_leaf: Option<&str>,
        missing_parents: Vec<DatasetName>,
        longest_snapshot: usize,
    ) -> Result<Self, BeginError> {
        let workspace = format!("{target}{}", id.workspace_suffix());
        let base_leaf = id.base_leaf();
        let leaf = [id.look_leaf().len(), final_leaf.map_or(0, str::len), longest_snapshot];
        let longest = workspace.len() + 1 + leaf.into_iter().max().unwrap_or_default();
        if longest > MAX_NAME_LEN {
            return Err(BeginError::NameTooLong { target: target.clone(), len: longest });
        }
        if let Some(leaf) = final_leaf {
            target.snapshot(leaf)?;
        }
        Ok(Self {
            workspace: workspace.parse()?,
            predecessor: target.with_suffix(&id.predecessor_suffix())?,
            base: target.snapshot(&base_leaf)?,
            target: target.clone(),
            final_leaf: final_leaf.map(str::to_owned),
            missing_parents,
        })
    }

    /// Every dataset that the transaction creates or renames.
    pub(crate) fn datasets(&self) -> impl Iterator<Item = &DatasetName> {
        [&self.target, &self.workspace, &self.predecessor].into_iter().chain(&self.missing_parents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransactionId = TransactionId::from_bits(0x0123_4567_89ab_cdef);

    fn target(len: usize) -> DatasetName {
        format!("tank/{}", "a".repeat(len - 5)).parse().unwrap()
    }

    /// The bytes that the suffix of the predecessor and the name of the look take.
    const OVERHEAD: usize = "-txn-0123456789abcdef@txn-0123456789abcdef-look".len();

    #[test]
    fn the_longest_target_that_fits_is_accepted_and_one_byte_more_is_not() {
        let fits = Layout::new(&target(255 - OVERHEAD), ID, None, vec![], 0).unwrap();
        assert_eq!(fits.predecessor.snapshot(&ID.look_leaf()).unwrap().as_str().len(), 255);
        let error = Layout::new(&target(256 - OVERHEAD), ID, None, vec![], 0).unwrap_err();
        assert!(matches!(error, BeginError::NameTooLong { len: 256, .. }), "{error}");
        assert!(error.to_string().ends_with("by 1"), "{error}");
    }

    #[test]
    fn a_long_snapshot_of_the_target_counts() {
        assert!(Layout::new(&target(100), ID, None, vec![], 133).is_ok());
        assert!(Layout::new(&target(100), ID, None, vec![], 134).is_err());
        assert!(Layout::new(&target(100), ID, Some(&"s".repeat(134)), vec![], 0).is_err());
    }

    #[test]
    fn a_final_snapshot_must_have_a_valid_name() {
        assert!(Layout::new(&target(20), ID, Some("a/b"), vec![], 0).is_err());
    }
}
