//! What a mount is given beside its own options.

use std::path::PathBuf;

use super::Kernel;
use crate::engine::{Engine, Fault};
use crate::mount::{self, Contexts, Shared};
use crate::name::DatasetName;

impl Kernel {
    /// What `zfs mount` gives the file system of a dataset, which may become another one by a commit.
    pub(super) fn shared(
        &self,
        dataset: &DatasetName,
        becomes: Option<&DatasetName>,
    ) -> Result<Shared, Fault> {
        let seen_at = self.seen_at(dataset, becomes)?;
        Ok(Shared { seen_at, contexts: self.contexts(dataset)? })
    }

    /// The SELinux contexts that a dataset's properties ask for.
    pub(super) fn contexts(&self, dataset: &DatasetName) -> Result<Contexts, Fault> {
        if !mount::has_contexts() {
            return Ok(Contexts::new());
        }
        let props = self.libzfs.props(dataset.as_str())?;
        let value = |name: &str| props.list(name).ok()?.str("value").ok().map(str::to_owned);
        Ok(mount::contexts(value))
    }

    /// Where a dataset is seen: where what it replaces is mounted, or at its mount point.
    fn seen_at(
        &self,
        dataset: &DatasetName,
        becomes: Option<&DatasetName>,
    ) -> Result<Option<PathBuf>, Fault> {
        if let Some(target) = becomes {
            if let Some(place) = self.places(target)?.into_iter().next() {
                return Ok(Some(place.path));
            }
        }
        let facts = self.facts(dataset.as_str())?;
        let path = facts.map(|facts| facts.mountpoint);
        let path = path.filter(|path| path.is_absolute());
        Ok(path.map(|path| match becomes {
            Some(target) => mount::under_name(&path, dataset, target),
            None => path,
        }))
    }
}
