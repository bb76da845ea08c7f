//! Send streams within this process, without a buffer of their own: into a receive, or to be looked at.
//!
//! Sending and receiving are two calls that each last as long as the stream: each has a thread. A
//! third moves the stream from the one's pipe to the other's, counts it, and ends both calls by
//! closing the pipes when it is told to, or when the process dies. All three are joined, whatever
//! fails.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::engine::{Fault, Watch};
use crate::errno::Errno;
use crate::ffi::lzc::{Lzc, SendFlags};
use crate::ffi::threads::{start, start_apart};
use crate::receipt::Guid;
use crate::stream::Rebase;

/// As much of the stream as is moved in one go, in bytes; also the size asked for the pipes.
const PIECE: usize = 1 << 20;

/// How the difference is sent: blocks as large and as compressed as they are on disk.
pub(crate) const FLAGS: SendFlags = SendFlags::LARGE_BLOCK.union(SendFlags::COMPRESS);

/// What to carry from where to where, by full names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route<'a> {
    pub(crate) snapshot: &'a str,
    /// Only what has changed since; `None`: all.
    pub(crate) from: Option<&'a str>,
    pub(crate) to: &'a str,
    /// The guid of the target's latest snapshot, where it is not `from`: one that can stand for it,
    /// or, without `from`, whatever it has.
    pub(crate) onto: Option<Guid>,
}

/// Sends and receives. `watch` is told how many bytes have passed, on the calling thread; it ends
/// the transfer by saying `Break`.
///
/// # Errors
/// `ECANCELED` after a `Break`; else what the receive said, or, where it saw no more than the end of
/// the stream, what the send said.
pub(crate) fn carry(lzc: Lzc, route: Route<'_>, watch: Watch<'_>) -> Result<(), Fault> {
    let cancelled = AtomicBool::new(false);
    let (passed, counts) = channel();
    let joined = thread::scope(|scope| {
        // Whoever returns early closes its pipes, and the others end.
        let (from_send, into_send) = pipe()?;
        let (from_pump, into_pump) = pipe()?;
        let cancelled = &cancelled;
        let pump = start_apart(scope, [from_send, into_pump], move |pipes| {
            let rebase = match (route.onto, route.from) {
                (None, _) => return move_pages(&pipes, cancelled, &passed),
                (Some(guid), Some(_)) => Rebase::new(guid.0),
                (Some(guid), None) => Rebase::replacing(guid.0),
            };
            rewrite(pipes, rebase, cancelled, &passed)
        })?;
        let send =
            start(scope, move || lzc.send(route.snapshot, route.from, into_send.as_fd(), FLAGS))?;
        let receive =
            start(scope, move || lzc.receive(route.to, None, false, false, from_pump.as_fd()))?;
        tell(&counts, watch, cancelled);
        Ok::<_, Fault>((send.join(), pump.join(), receive.join()))
    });
    let (sent, pumped, received) = joined?;
    // A thread of this file that panicked has closed its pipe, and the others have ended.
    let (Ok(sent), Ok(pumped), Ok(received)) = (sent, pumped, received) else {
        return Err(Errno::IO.into());
    };
    match received {
        Ok(()) => Ok(()),
        Err(_) if cancelled.into_inner() => Err(Errno::CANCELED.into()),
        // It saw the stream's end too early: the reason is on the other side.
        Err(error) if [Errno::IO, Errno::ZFS_ERR_STREAM_TRUNCATED].contains(&error.errno) => {
            pumped.or_else(|fault| if fault.errno == Errno::PIPE { Ok(()) } else { Err(fault) })?;
            sent?;
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Looks at what was written between two snapshots of a dataset.
pub(crate) fn look(
    lzc: Lzc,
    snapshot: &str,
    from: &str,
    look: fn(File) -> std::io::Result<bool>,
) -> Result<bool, Fault> {
    thread::scope(|scope| {
        let (reader, writer) = pipe()?;
        let found = start_apart(scope, [reader], move |[reader]| {
            // Closes the pipe, and with it ends the sending of the rest.
            look(File::from(reader)).map_err(|_| Errno::IO.into())
        })?;
        let send = start(scope, move || lzc.send(snapshot, Some(from), writer.as_fd(), FLAGS))?;
        match (found.join(), send.join()) {
            (Ok(Ok(found)), _) => Ok(found),
            (Ok(Err(_)), Ok(Err(error))) => Err(error.into()),
            (Ok(Err(fault)), _) => Err(fault),
            (Err(_), _) => Err(Errno::IO.into()),
        }
    })
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Fault> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // A wish: users have a limit, and a smaller pipe will do.
    let _ = fcntl_setpipe_size(&writer, PIECE);
    Ok((reader, writer))
}

/// Passes the counts on until the pump ends.
fn tell(counts: &Receiver<u64>, watch: Watch<'_>, cancelled: &AtomicBool) {
    // One that panics ends the transfer as well: the threads are joined before the panic goes on.
    let panics = CancelOnDrop(cancelled);
    for count in counts {
        // Those that came meanwhile are old.
        let count = counts.try_iter().last().unwrap_or(count);
        if watch(count).is_break() {
            cancelled.store(true, Ordering::Relaxed);
        }
    }
    std::mem::forget(panics);
}

struct CancelOnDrop<'a>(&'a AtomicBool);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Moves the stream as it is.
fn move_pages(
    [reader, writer]: &[OwnedFd; 2],
    cancelled: &AtomicBool,
    passed: &Sender<u64>,
) -> Result<(), Fault> {
    let mut total = 0;
    while !cancelled.load(Ordering::Relaxed) {
        match splice(reader, None, writer, None, PIECE, SpliceFlags::MOVE) {
            Ok(0) => return Ok(()),
            Ok(count) => total += count as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        // Nobody listens any more: that is no reason to stop.
        let _ = passed.send(total);
    }
    Ok(())
}

/// Moves the stream and makes it start from another snapshot.
fn rewrite(
    [reader, writer]: [OwnedFd; 2],
    mut rebase: Rebase,
    cancelled: &AtomicBool,
    passed: &Sender<u64>,
) -> Result<(), Fault> {
    let io = |error: std::io::Error| match rustix::io::Errno::from_io_error(&error) {
        Some(errno) => Fault::from(errno),
        None => Errno::IO.into(),
    };
    let (mut reader, mut writer) = (File::from(reader), File::from(writer));
    let (mut piece, mut out) = (vec![0; PIECE], Vec::new());
    let mut total = 0;
    while !cancelled.load(Ordering::Relaxed) {
        let count = match reader.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(io(error)),
        };
        out.clear();
        rebase.feed(&piece[..count], &mut out).map_err(|error| {
            let detail = Some(error.to_string());
            Fault { errno: Errno::NOTSUP, detail }
        })?;
        writer.write_all(&out).map_err(io)?;
        total += count as u64;
        let _ = passed.send(total);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    fn filled(bytes: &[u8]) -> OwnedFd {
        let (reader, writer) = pipe().unwrap();
        File::from(writer).write_all(bytes).unwrap();
        reader
    }

    #[test]
    fn all_is_moved_and_counted() {
        let (reader, writer) = pipe().unwrap();
        let (passed, counts) = channel();
        move_pages(&[filled(&[7; 10_000]), writer], &AtomicBool::new(false), &passed).unwrap();
        let mut out = Vec::new();
        File::from(reader).read_to_end(&mut out).unwrap_or_default();
        assert_eq!((out, counts.try_iter().last()), (vec![7; 10_000], Some(10_000)));
    }

    #[test]
    fn a_break_ends_it_and_closes_the_pipes() {
        let (reader, writer) = pipe().unwrap();
        let (passed, counts) = channel();
        passed.send(1).unwrap();
        passed.send(2).unwrap();
        drop(passed);
        let (cancelled, mut seen) = (AtomicBool::new(false), Vec::new());
        let mut watch = |count| {
            seen.push(count);
            ControlFlow::Break(())
        };
        tell(&counts, &mut watch, &cancelled);
        assert_eq!(seen, [2]);
        let (passed, _counts) = channel();
        let pipes = [filled(&[7; 10]), writer];
        move_pages(&pipes, &cancelled, &passed).unwrap();
        drop(pipes);
        let mut out = Vec::new();
        assert_eq!(File::from(reader).read_to_end(&mut out).unwrap(), 0);
    }

    #[test]
    fn who_panics_cancels() {
        let (passed, counts) = channel();
        passed.send(1).unwrap();
        let cancelled = AtomicBool::new(false);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tell(&counts, &mut |_| panic!("on purpose"), &cancelled);
        }));
        assert!(told.is_err() && cancelled.into_inner());
    }

    #[test]
    fn a_receiver_that_went_away_is_an_error() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let (passed, _counts) = channel();
        let moved = move_pages(&[filled(&[7; 10]), writer], &AtomicBool::new(false), &passed);
        assert_eq!(moved.unwrap_err().errno, Errno::PIPE);
    }
}
