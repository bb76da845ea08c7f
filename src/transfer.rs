//! Send streams within this process, without a buffer of their own: into a receive, or to be looked at.
//!
//! Sending and receiving are two calls that each last as long as the stream: each has a thread. A
//! third moves the stream from the one's pipe to the other's, notes what it changes, and ends both calls
//! by closing the pipes when it is told to, or when the process dies. It holds the last record back until
//! the caller has said that the content may be swapped. All of them are joined, whatever fails.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::engine::{AtEnd, Fault, Watch};
use crate::errno::Errno;
use crate::ffi::lzc::{Lzc, SendFlags};
use crate::ffi::threads::{start, start_apart, start_aside};
use crate::receipt::Guid;
use crate::stream::passage::{Changes, FileId, Passage};
use crate::stream::rebase::Rebase;

/// As much of the stream as is moved in one go, in bytes.
const PIECE: usize = 1 << 17;
/// The size asked for the pipes, in bytes.
const PIPE: usize = 1 << 20;

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
    /// Objects without a name that only `onto` has, and that are to be freed.
    pub(crate) nameless: &'a [u64],
    /// Files of the target that were made since the base: none of them may become another one.
    pub(crate) strangers: &'a [FileId],
}

impl Route<'_> {
    fn rebase(&self) -> Option<Rebase> {
        let onto = self.onto?.0;
        Some(match self.from {
            Some(_) => Rebase::new(onto, self.nameless),
            None => Rebase::replacing(onto),
        })
    }
}

/// What the pump says.
enum Said {
    /// How many bytes have passed.
    Passed(u64),
    /// The receive waits for the last record; what the stream changes.
    AtEnd(Changes),
}

/// Sends and receives. `watch` is told how many bytes have passed, and `at_end` which files are about to
/// be changed, both on the calling thread; each ends the transfer, and nothing is changed, by saying
/// `Break`.
///
/// # Errors
/// `ECANCELED` after a `Break`; else what the receive said, or, where it saw no more than the end of
/// the stream, what the send said.
pub(crate) fn carry(
    lzc: Lzc,
    route: Route<'_>,
    watch: Watch<'_>,
    at_end: AtEnd<'_>,
) -> Result<(), Fault> {
    let cancelled = AtomicBool::new(false);
    let (say, said) = channel();
    let (decide, decided) = channel();
    let rebase = route.rebase();
    let joined = thread::scope(|scope| {
        let is_cancelled = &cancelled;
        let aside = start_aside(scope, move || {
            // Whoever returns early closes its pipes, and the others end.
            let (from_send, into_send) = pipe()?;
            let (from_pump, into_pump) = pipe()?;
            let pump = start_apart(scope, [from_send, into_pump], move |[from, into]| {
                let pump = Pump { cancelled: is_cancelled, say, decided };
                pump.run(from, into, Passage::new(rebase).watching(route.strangers))
            })?;
            let send = start(scope, move || {
                lzc.send(route.snapshot, route.from, into_send.as_fd(), FLAGS)
            })?;
            let received = lzc.receive(route.to, None, false, false, from_pump.as_fd());
            drop(from_pump);
            Ok((send.join(), pump.join(), received))
        })?;
        tell(&said, decide, watch, at_end, &cancelled);
        Ok::<_, Fault>(aside.join())
    });
    // A thread of this file that panicked has closed its pipe, and the others have ended.
    let Ok(joined) = joined? else { return Err(Errno::IO.into()) };
    let (Ok(sent), Ok(pumped), received) = joined? else { return Err(Errno::IO.into()) };
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

/// Reads the stream of a snapshot, whole or since another one, as far as `look` does, in a thread that has
/// no descriptors but the stream's and those that it opens.
pub(crate) fn look<T: Send>(
    lzc: Lzc,
    snapshot: &str,
    from: Option<&str>,
    look: impl FnOnce(File) -> std::io::Result<T> + Send,
) -> Result<T, Fault> {
    let joined = thread::scope(|scope| {
        let aside = start_aside(scope, move || {
            let (reader, writer) = pipe()?;
            let found = start_apart(scope, [reader], move |[reader]| {
                // Closes the pipe, and with it ends the sending of the rest.
                look(File::from(reader)).map_err(fault)
            })?;
            let sent = lzc.send(snapshot, from, writer.as_fd(), FLAGS);
            drop(writer);
            Ok((found.join(), sent))
        })?;
        Ok::<_, Fault>(aside.join())
    });
    let Ok(joined) = joined? else { return Err(Errno::IO.into()) };
    match joined? {
        (Ok(Ok(found)), _) => Ok(found),
        // It saw the stream's end too early.
        (Ok(Err(Fault { errno: Errno::IO, .. })), Err(error)) => Err(error.into()),
        (Ok(Err(fault)), _) => Err(fault),
        (Err(_), _) => Err(Errno::IO.into()),
    }
}

/// What a reader or writer has come to; one that saw the end too early, or a stream of another form, is
/// an error of input and output.
fn fault(error: std::io::Error) -> Fault {
    match rustix::io::Errno::from_io_error(&error) {
        Some(errno) => errno.into(),
        None => Fault { errno: Errno::IO, detail: Some(error.to_string()) },
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Fault> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // A wish: users have a limit, and a smaller pipe will do.
    let _ = fcntl_setpipe_size(&writer, PIPE);
    // In a table that has nothing else, the numbers would be those of the standard streams, to which a thread
    // that panics writes its last words.
    Ok((fcntl_dupfd_cloexec(reader, 3)?, fcntl_dupfd_cloexec(writer, 3)?))
}

/// Passes on what the pump says until it ends, and answers it.
fn tell(
    said: &Receiver<Said>,
    decide: Sender<()>,
    watch: Watch<'_>,
    at_end: AtEnd<'_>,
    cancelled: &AtomicBool,
) {
    // One that panics ends the transfer as well: the threads are joined before the panic goes on.
    let panics = CancelOnDrop(cancelled);
    let mut decide = Some(decide);
    let mut waiting = said.recv().ok();
    while let Some(now) = waiting.take() {
        let goes_on = match now {
            Said::Passed(count) => {
                // Those that came meanwhile are old.
                let mut count = count;
                for newer in said.try_iter() {
                    match newer {
                        Said::Passed(newer) => count = newer,
                        at_end => {
                            waiting = Some(at_end);
                            break;
                        }
                    }
                }
                watch(count)
            }
            Said::AtEnd(files) => match &decide {
                Some(decide) => {
                    let goes_on = at_end(files);
                    if goes_on.is_continue() {
                        // A pump that has failed meanwhile says so by itself.
                        let _ = decide.send(());
                    }
                    goes_on
                }
                None => ControlFlow::Break(()),
            },
        };
        if goes_on == ControlFlow::Break(()) {
            cancelled.store(true, Ordering::Relaxed);
            // The pump waits for no answer any more.
            decide = None;
        }
        waiting = waiting.or_else(|| said.recv().ok());
    }
    std::mem::forget(panics);
}

struct CancelOnDrop<'a>(&'a AtomicBool);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What moves the stream.
struct Pump<'a> {
    cancelled: &'a AtomicBool,
    say: Sender<Said>,
    /// Comes when the last record may go on; without a sender, it may not.
    decided: Receiver<()>,
}

impl Pump<'_> {
    fn run(self, from: OwnedFd, into: OwnedFd, mut passage: Passage) -> Result<(), Fault> {
        let (mut from, mut into) = (File::from(from), File::from(into));
        let (mut piece, mut out) = (vec![0; PIECE], Vec::with_capacity(PIECE));
        let mut total = 0;
        while !self.cancelled.load(Ordering::Relaxed) {
            let count = match from.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(fault(error)),
            };
            out.clear();
            passage.feed(&piece[..count], &mut out).map_err(|error| {
                let detail = Some(error.to_string());
                Fault { errno: Errno::NOTSUP, detail }
            })?;
            into.write_all(&out).map_err(fault)?;
            total += count as u64;
            // Nobody listens any more: that is no reason to stop.
            let _ = self.say.send(Said::Passed(total));
            if let Some((end, files)) = passage.at_end() {
                let _ = self.say.send(Said::AtEnd(files));
                if self.decided.recv().is_err() {
                    return Ok(());
                }
                into.write_all(&end).map_err(fault)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::RECORD;
    use crate::stream::passage::{ChangedFile, Data};
    use crate::stream::sample::{begin, end, file, sealed, write};

    fn filled(bytes: &[u8]) -> OwnedFd {
        let (reader, writer) = pipe().unwrap();
        File::from(writer).write_all(bytes).unwrap();
        reader
    }

    fn stream() -> Vec<u8> {
        sealed(&[begin(1), file(7, 70), write(7, 0, &[1; 4096]), end()])
    }

    /// Runs a pump and answers it; what came out at the other end, and what was said.
    fn pumped(
        stream: &[u8],
        mut watch: impl FnMut(u64) -> ControlFlow<()>,
        mut at_end: impl FnMut(Changes) -> ControlFlow<()>,
    ) -> Vec<u8> {
        let ((say, said), (decide, decided)) = (channel(), channel());
        let cancelled = AtomicBool::new(false);
        let (reader, writer) = pipe().unwrap();
        let from = filled(stream);
        thread::scope(|scope| {
            let pump = Pump { cancelled: &cancelled, say, decided };
            let pump = scope.spawn(move || pump.run(from, writer, Passage::new(None)));
            tell(&said, decide, &mut watch, &mut at_end, &cancelled);
            pump.join().unwrap().unwrap();
        });
        let mut out = Vec::new();
        File::from(reader).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn all_is_moved_and_counted_and_the_last_record_waits() {
        let id = FileId { object: 7, generation: 70 };
        let changed = ChangedFile { id, size: 0, data: Data::Written };
        let (mut counted, mut told) = (0, Changes::default());
        let watch = |count| {
            counted = count;
            ControlFlow::Continue(())
        };
        let at_end = |files: Changes| {
            told = files;
            ControlFlow::Continue(())
        };
        assert!(pumped(&stream(), watch, at_end) == stream());
        assert_eq!((counted, told.files), (stream().len() as u64, vec![changed]));
    }

    #[test]
    fn without_consent_the_last_record_stays_and_the_pipe_is_closed() {
        let out = pumped(&stream(), |_| ControlFlow::Continue(()), |_| ControlFlow::Break(()));
        assert!(out == stream()[..stream().len() - RECORD]);
        let out = pumped(&stream(), |_| ControlFlow::Break(()), |_| ControlFlow::Continue(()));
        assert!(out == stream()[..stream().len() - RECORD]);
    }

    #[test]
    fn who_panics_cancels() {
        for at_end in [false, true] {
            let (say, said) = channel();
            say.send(if at_end { Said::AtEnd(Changes::default()) } else { Said::Passed(1) })
                .unwrap();
            let ((decide, decided), cancelled) = (channel(), AtomicBool::new(false));
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mut panics = |_: u64| panic!("on purpose");
                tell(&said, decide, &mut panics, &mut |_| panic!("on purpose"), &cancelled);
            }));
            assert!(told.is_err() && cancelled.into_inner() && decided.recv().is_err());
        }
    }

    #[test]
    fn a_receiver_that_went_away_is_an_error() {
        let ((say, _said), (_decide, decided)) = (channel(), channel());
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let cancelled = AtomicBool::new(false);
        let pump = Pump { cancelled: &cancelled, say, decided };
        let moved = pump.run(filled(&stream()), writer, Passage::new(None));
        assert_eq!(moved.unwrap_err().errno, Errno::PIPE);
    }
}
