//! The verbs of a commit in place.

use rustix::fs::{Mode, OFlags, openat};

use super::{Kernel, add_known, lua_guid, not_the_one};
use crate::engine::{Fault, InPlaceEnd, Staged, Staging};
use crate::errno::Errno;
use crate::ffi::lzc::ProgramMode;
use crate::ffi::nvlist::{NvList, Value};
use crate::mount::{self, Contexts};
use crate::name::DatasetName;
use crate::patience::patiently;

const STAGE: &str = include_str!("../program/stage.lua");
const CONCLUDE_IN_PLACE: &str = include_str!("../program/conclude_in_place.lua");

impl Kernel {
    pub(super) fn stage_change(&self, staging: Staging<'_>) -> Result<Staged, Fault> {
        let Staging { target, target_origin, workspace, base, since, bookmark, snapshot, record } =
            staging;
        let mut args = NvList::new()?;
        add_known(&mut args, "target", target)?;
        add_known(&mut args, "workspace", workspace)?;
        args.add_i64("target_origin", target_origin.map_or(0, lua_guid))?;
        args.add_str("base", base.0)?;
        args.add_i64("base_guid", lua_guid(base.1))?;
        args.add_str("property", record.0)?;
        args.add_str("record", record.1)?;
        args.add_str("since", since)?;
        args.add_str("bookmark", bookmark)?;
        args.add_str("snapshot", snapshot)?;
        // A dataset gets one snapshot a txg, and somebody may have taken this one's: the kernel tries others'
        // calls again, but no program (dsl_dataset_snapshot_check, dsl_sync_task_common).
        let call = || -> Result<Result<Staged, Errno>, Fault> {
            let out = self.program(target.name.as_str(), STAGE, &args, ProgramMode::Sync)?;
            Ok(match out.get("return")? {
                Value::I64(0) => Ok(Staged::Done),
                Value::I64(errno) => Err(Errno::from_raw(errno as i32)),
                Value::Str(verdict) if verdict == "written" => Ok(Staged::Written),
                _ => Ok(Staged::Replaced),
            })
        };
        match patiently(call, |result| matches!(result, Ok(Err(Errno::AGAIN))))? {
            Ok(staged) => Ok(staged),
            Err(Errno::AGAIN) => {
                let detail = Some("others take snapshots of it without a pause".to_owned());
                Err(Fault { errno: Errno::BUSY, detail })
            }
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn end_in_place(&self, end: InPlaceEnd<'_>) -> Result<Option<Errno>, Fault> {
        let mut args = NvList::new()?;
        add_known(&mut args, "target", end.target)?;
        if let Some(workspace) = end.workspace {
            add_known(&mut args, "workspace", workspace)?;
        }
        let mut snapshots = NvList::new()?;
        let look = end.look.map(|(name, id)| (name, id.guid));
        for (name, guid) in end.sent.into_iter().chain(look) {
            snapshots.add_i64(name, lua_guid(guid))?;
        }
        args.add_nvlist("snapshots", &snapshots)?;
        args.add_str("base", end.base.0)?;
        args.add_i64("base_guid", lua_guid(end.base.1.guid))?;
        args.add_bool("keeps", end.keeps)?;
        args.add_str("property", end.property)?;
        args.add_str("committed", end.committed)?;
        let pool = end.target.name.as_str();
        let call = || match self.program(pool, CONCLUDE_IN_PLACE, &args, ProgramMode::Sync) {
            Ok(out) => match out.get("return")? {
                Value::I64(0) => Ok(None),
                Value::I64(errno) => Ok(Some(Errno::from_raw(errno as i32))),
                _ => Err(not_the_one(end.target.name.as_str(), end.target.guid)),
            },
            Err(fault) => Err(fault),
        };
        patiently(call, |result| matches!(result, Ok(Some(Errno::BUSY))))
    }
}

/// Has the list of files that are to be deleted written anew, by making one and deleting it; says whether
/// it is empty, as far as the kernel counts.
pub(super) fn renew_deletions(
    dataset: &DatasetName,
    contexts: &Contexts,
    objset: u64,
) -> Result<bool, Fault> {
    let root = mount::root_of(dataset.as_str(), contexts)?;
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    drop(openat(&root, ".", flags, Mode::RUSR)?);
    let path = format!("/proc/spl/kstat/zfs/{}/objset-{objset:#x}", dataset.pool());
    // The two are not read at the same moment: if they are the same twice, nothing has happened between.
    let counts = [deletions(&path), deletions(&path)];
    Ok(counts[0] == counts[1] && counts[0].is_some_and(|(made, done)| made == done))
}

/// How many files were put on the list since the dataset was mounted, and how many were deleted.
fn deletions(path: &str) -> Option<(u64, u64)> {
    let counts = std::fs::read(path).ok()?;
    let counts = String::from_utf8_lossy(&counts);
    let count = |name: &str| -> Option<u64> {
        let line = counts.lines().find(|line| line.split_whitespace().next() == Some(name))?;
        line.split_whitespace().last()?.parse().ok()
    };
    count("nunlinks").zip(count("nunlinked"))
}
