//! Channel programs: Lua that the kernel runs in one transaction group.

use std::ptr;

use super::super::library::openzfs;
use super::super::nvlist::NvList;
use super::super::signals::uninterrupted;
use super::{Lzc, LzcError, c_name, c_text, finish};
use crate::errno::Errno;

/// What a channel program may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProgramLimits {
    /// Lua instructions.
    pub(crate) instructions: u64,
    /// Bytes of memory; the result has to fit, too.
    pub(crate) memory: u64,
}

impl Default for ProgramLimits {
    /// The kernel's own defaults: ten million instructions, 10 MiB.
    fn default() -> Self {
        Self { instructions: 10_000_000, memory: 10 << 20 }
    }
}

/// Whether a channel program may change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgramMode {
    /// `zfs.sync.*` work; what the program does takes effect in one transaction group.
    Sync,
    /// Read-only; waits for no transaction group.
    NoSync,
}

impl Lzc {
    /// Runs a channel program and returns its result list, in which `return` holds what the program
    /// returned.
    ///
    /// `args` is what the program sees as `...`: a table of booleans, strings, `i64`, lists of these, and
    /// arrays. A `u64` is refused (`EINVAL`): Lua's numbers are signed, in results as well.
    ///
    /// Signals are blocked on the calling thread meanwhile: one that arrived before the program's txg would stop
    /// the program between two instructions, with its earlier effects in place (`zcp_eval_sig`,
    /// `zcp_lua_counthook`), and the call would end with `EINTR`. The C library's own ones can't be blocked:
    /// glibc sends one to each thread when another calls `setuid` or the like.
    ///
    /// # Errors
    ///
    /// `EINVAL` (syntax, or a limit), `ECHRNG` (a Lua error), `ETIME` (too many instructions), `ENOSPC`
    /// (too much memory), `EPERM` (needs CAP_SYS_ADMIN); Lua's message is the detail. An error does
    /// **not** mean that nothing happened.
    #[doc(alias = "lzc_channel_program")]
    #[doc(alias = "lzc_channel_program_nosync")]
    pub(crate) fn program(
        &self,
        pool: &str,
        text: &str,
        limits: ProgramLimits,
        args: &NvList,
        mode: ProgramMode,
    ) -> Result<NvList, LzcError> {
        let (call, run): (_, unsafe extern "C" fn(_, _, _, _, _, _) -> _) = match mode {
            ProgramMode::Sync => ("lzc_channel_program", openzfs().lzc_channel_program),
            ProgramMode::NoSync => {
                ("lzc_channel_program_nosync", openzfs().lzc_channel_program_nosync)
            }
        };
        let c_pool = c_name(call, pool)?;
        let c_text = c_text(call, pool, text)?;
        let ProgramLimits { instructions, memory } = limits;
        if memory == 0 || memory > MAX_MEMORY {
            return Err(LzcError::new(call, pool, Errno::INVAL).with_detail("the memory limit"));
        }
        let mut out = ptr::null_mut();
        // SAFETY: reads two C strings and a list, and stores null or a new list in `out`.
        let error = uninterrupted(|| unsafe {
            let (pool, text) = (c_pool.as_ptr(), c_text.as_ptr());
            run(pool, text, instructions, memory, args.as_ptr(), &mut out)
        });
        // SAFETY: the call stored null or a list that is the caller's to free.
        let out = unsafe { NvList::take(out) };
        if let Err(error) = finish(call, pool, error, None) {
            return Err(match out.as_ref().map(lua_message) {
                Some(Some(message)) => error.with_detail(message),
                _ => error,
            });
        }
        match out {
            Some(list) => Ok(list),
            None => NvList::new().map_err(|e| LzcError::unbuilt(call, pool, &e)),
        }
    }
}

/// The kernel's upper limit; libzfs_core allocates as much for the result before it asks the kernel.
const MAX_MEMORY: u64 = 100 << 20;

/// `error("text")` leaves a string; `error({...})` leaves a list.
fn lua_message(out: &NvList) -> Option<String> {
    match out.get("error").ok()? {
        super::Value::Str(text) => Some(text.to_string_lossy().into_owned()),
        other => Some(format!("{other:?}")),
    }
}
