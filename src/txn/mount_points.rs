//! Where an init's datasets are to be mounted once the change is visible: looked at before, because
//! nothing can be taken back then.

use std::path::{Path, PathBuf};

use crate::engine::{Fault, Unfit};
use crate::errno::Errno;
use crate::error::Conflict;
use crate::mount::under_name;
use crate::name::DatasetName;
use crate::txn::plan::{Kind, Step};
use crate::txn::stage::{Stage, Stop};

impl Stage {
    /// Refuses where one of them could not be mounted as `zfs mount` would, at a boot for example.
    pub(super) fn check_mount_points(&self, step: Step) -> Result<(), Stop> {
        let fail = |fault| Stop::Failed(self.error(step, fault));
        let mut above: Vec<PathBuf> = Vec::new();
        for dataset in &self.order.new_mounts {
            let Some(path) = self.mount_point(dataset).map_err(fail)? else { continue };
            // What is there now is hidden by then, and the directory made in the new dataset above.
            let hidden = above.iter().any(|above| path.starts_with(above) && path != *above);
            let unfit = match hidden {
                true => None,
                false => self.engine.unmountable(self.name_now(dataset), &path).map_err(fail)?,
            };
            if let Some(unfit) = unfit {
                let (dataset, path, reason) = (dataset.clone(), unfit.path, unfit.reason);
                return Err(Stop::Conflict(Conflict::Unmountable { dataset, path, reason }));
            }
            above.push(path);
        }
        Ok(())
    }

    /// The same after the commit point.
    pub(super) fn refuse_unmountable(
        &self,
        dataset: &DatasetName,
        path: &Path,
    ) -> Result<(), Fault> {
        match self.engine.unmountable(dataset, path)? {
            None => Ok(()),
            Some(Unfit { path, reason }) => {
                let detail = Some(format!("{} {reason}", path.display()));
                Err(Fault { detail, ..Errno::NOTSUP.into() })
            }
        }
    }

    /// A mount that a change in place would take away, or leave without an object.
    pub(super) fn displaced(&self) -> Result<Option<PathBuf>, Fault> {
        let target = &self.order.layout.target;
        Ok(self.engine.displaced(target, self.root()?)?.into_iter().next())
    }

    /// Whether what an init has mounted is seen in this mount namespace alone.
    pub(super) fn is_mounted_here_alone(&self) -> bool {
        let is_new = self.order.record.kind == Kind::Init && !self.mounted.is_empty();
        is_new && matches!(self.engine.is_seen_by_first(&self.order.layout.target), Ok(false))
    }

    /// The name of a dataset before the commit point, given the one that it has after it.
    pub(super) fn name_now<'a>(&'a self, dataset: &'a DatasetName) -> &'a DatasetName {
        let layout = &self.order.layout;
        if *dataset == layout.target { &layout.workspace } else { dataset }
    }

    fn mount_point(&self, dataset: &DatasetName) -> Result<Option<PathBuf>, Fault> {
        let now = self.name_now(dataset);
        let facts = self.engine.facts(now.as_str())?;
        let path = facts.map(|facts| facts.mountpoint);
        let path = path.filter(|path| path.is_absolute());
        Ok(path.map(|path| under_name(&path, now, dataset)))
    }
}
