use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::thread;

use super::*;

/// Sends through a pipe into a receive on this thread.
fn transfer(
    lzc: Lzc,
    (snapshot, from): (&str, Option<&str>),
    to: &str,
    force: bool,
) -> (Result<(), LzcError>, Result<(), LzcError>) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let result = lzc.send(snapshot, from, writer.as_fd(), SendFlags::LARGE_BLOCK);
            drop(writer);
            result
        });
        let received = lzc.receive(to, None, force, false, reader.as_fd());
        drop(reader);
        (sender.join().unwrap(), received)
    })
}

#[test]
fn send_and_receive() {
    let (lzc, pool) = start();
    let source = pool.dataset("source");
    pool.zfs(&["create", &source]);
    let file = |dataset: &str| pool.mountpoint().join(dataset).join("file");
    fs::write(file("source"), "one").unwrap();
    let one = snapshot(lzc, &source, "one");
    fs::write(file("source"), "two").unwrap();
    let two = snapshot(lzc, &source, "two");

    let target = pool.dataset("target");
    let (sent, received) = transfer(lzc, (&one, None), &format!("{target}@one"), false);
    assert_eq!((sent, received), (Ok(()), Ok(())));
    pool.zfs(&["mount", &target]);
    assert_eq!(fs::read(file("target")).unwrap(), b"one");

    // A change of the target is found, and lost only by force.
    fs::write(file("target"), "changed").unwrap();
    lzc.sync(pool.name(), true).unwrap();
    let (_, received) = transfer(lzc, (&two, Some(&one)), &format!("{target}@two"), false);
    let error = received.unwrap_err();
    assert_eq!((error.call, error.errno), ("lzc_receive", Errno::TXTBSY));
    let (sent, received) = transfer(lzc, (&two, Some(&one)), &format!("{target}@two"), true);
    assert_eq!((sent, received), (Ok(()), Ok(())));
    assert_eq!(fs::read(file("target")).unwrap(), b"two");

    let flags = SendFlags::LARGE_BLOCK;
    assert!(lzc.send_space(&two, Some(&one), flags).unwrap() > 0);
    let error = lzc.send_space(&one, Some(&two), flags).unwrap_err();
    assert_eq!(error.errno, Errno::XDEV);
    let null = File::create("/dev/null").unwrap();
    assert_eq!(lzc.send(&one, Some(&two), null.as_fd(), flags).unwrap_err().errno, Errno::XDEV);
    lzc.send(&one, None, null.as_fd(), flags | SendFlags::COMPRESS).unwrap();
    pool.cleanup();
}

#[test]
fn a_stream_in_a_file_and_one_that_ends_early() {
    let (lzc, pool) = start();
    let source = filesystem(lzc, &pool, "source");
    let s = snapshot(lzc, &source, "s");
    let path = pool.directory().join("stream");
    let file = File::create(&path).unwrap();
    lzc.send(&s, None, file.as_fd(), SendFlags::empty()).unwrap();
    let copy = pool.dataset("copy@s");
    let file = File::open(&path).unwrap();
    lzc.receive(&copy, None, false, false, file.as_fd()).unwrap();
    assert!(lzc.exists(&copy).unwrap());

    let mut stream = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut stream).unwrap();
    let half = pool.directory().join("half");
    File::create(&half).unwrap().write_all(&stream[..stream.len() / 2]).unwrap();
    let half = File::open(&half).unwrap();
    let broken = pool.dataset("broken@s");
    assert!(lzc.receive(&broken, None, false, false, half.as_fd()).is_err());
    assert!(!lzc.exists(&broken).unwrap());
    let empty = File::open("/dev/null").unwrap();
    let error = lzc.receive(&broken, None, false, false, empty.as_fd()).unwrap_err();
    assert_eq!(error.errno, Errno::IO);
    pool.cleanup();
}
