//! `cargo xtask vm`: one command, or a shell, in the virtual machine.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::lines::Line;
use crate::payload::{Payload, quote};
use crate::terminal;
use crate::vm::{Job, Machine, Stream};

/// The longest that a run may say nothing.
pub(crate) const SILENCE: Duration = Duration::from_secs(600);

/// Runs `words` in the guest, or a shell when there are none.
pub(crate) fn run(
    cache: &Cache,
    line: &Line,
    timeout: u64,
    disks: &[PathBuf],
    words: &[String],
) -> Result<ExitCode> {
    let machine = Machine::prepare(cache, line)?;
    let disks = disks.iter().map(|disk| absolute(disk)).collect::<Result<Vec<_>>>()?;
    let interactive = words.is_empty();
    let script = if interactive {
        eprintln!(
            "==> a root shell in the virtual machine; its exit ends the run, and so does Ctrl-]"
        );
        format!("{}cd\nexec bash -i\n", terminal::setup())
    } else {
        format!("cd\nexec {}\n", quote(words.iter().map(String::as_str)))
    };
    let payload = Payload::new(cache, &script)?;
    if interactive {
        payload.interactive()?;
    }
    let job = Job {
        disks: &disks,
        limit: (!interactive).then(|| Duration::from_secs(timeout)),
        silence: (!interactive).then_some(SILENCE),
        interactive,
    };
    let status = machine.run(&payload, &job, &mut pass_on)?;
    Ok(ExitCode::from(status))
}

/// What a run has said, and whether all was as it should be.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) said: String,
    pub(crate) fine: bool,
}

impl Outcome {
    pub(crate) fn code(&self) -> ExitCode {
        if self.fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Writes the guest's output to this process's own.
pub(crate) fn pass_on(stream: Stream, bytes: &[u8]) -> Result<()> {
    match stream {
        Stream::Out => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Stream::Err => std::io::stderr().write_all(bytes),
    }
    .context("passing on the guest's output")
}

fn absolute(disk: &Path) -> Result<PathBuf> {
    disk.canonicalize().with_context(|| format!("no disk image {}", disk.display()))
}
