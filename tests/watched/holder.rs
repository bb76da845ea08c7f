//! A process that keeps files of the target open and a program of it mapped, for some time each.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::content::{self, TOOL};
use crate::tally::Tally;

/// How long the same files are held.
const HELD: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(10);
/// A file that commits write into: in place, its descriptor comes to have the new content.
const FILE: usize = 2;

/// A program that runs from the target, and repeats what it is told.
struct Tool {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Tool {
    fn start(path: &Path) -> std::io::Result<Self> {
        let mut child =
            Command::new(path.join(TOOL)).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let said = child.stdout.take().ok_or_else(|| std::io::Error::other("no output"))?;
        Ok(Self { child, said: BufReader::new(said) })
    }

    fn answers(&mut self) -> std::io::Result<bool> {
        let stdin = self.child.stdin.as_mut().ok_or_else(|| std::io::Error::other("no input"))?;
        stdin.write_all(b"still here\n")?;
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line == "still here\n")
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Holds a file, a directory and a program, and asks all the while whether they are whole.
pub(crate) fn hold(path: &Path, tally: &mut Tally) {
    let held = File::open(path.join(content::file_name(FILE)))
        .and_then(|file| Ok((file, File::open(path.join("data"))?, Tool::start(path)?)));
    let (file, _directory, mut tool) = match held {
        Ok(held) => held,
        Err(error) => return tally.fail(format!("holding: {error}")),
    };
    let (end, mut newest) = (Instant::now() + HELD, 0);
    let mut buffer = vec![0; 1 << 18];
    while Instant::now() < end {
        let start = Instant::now();
        tally.reads += 1;
        match file.read_at(&mut buffer, 0) {
            Err(error) => tally.fail(format!("a held file: {error}")),
            Ok(count) => match content::generation_of(&buffer[..count], FILE) {
                Some(generation) if generation >= newest => newest = generation,
                found => tally.mix(format!("a held file is of {found:?}")),
            },
        }
        tally.longest = tally.longest.max(start.elapsed());
        match tool.answers() {
            Ok(true) => {}
            other => tally.fail(format!("a program that runs from the target: {other:?}")),
        }
        std::thread::sleep(PAUSE);
    }
}
