use std::fs;
use std::sync::mpsc;
use std::thread;

use super::*;

#[test]
fn programs_return_values_and_take_effect() {
    let (lzc, pool) = start();
    let a = filesystem(lzc, &pool, "a");
    let mut args = none();
    args.add_str("snap", &format!("{a}@by-program")).unwrap();
    args.add_i64("n", 41).unwrap();
    let text = "
        args = ...
        local err = zfs.sync.snapshot(args['snap'])
        return { err = err, n = args['n'] + 1, name = args['snap'] }";
    let limits = ProgramLimits::default();
    let out = lzc.program(pool.name(), text, limits, &args, ProgramMode::Sync).unwrap();
    let returned = out.list("return").unwrap();
    assert_eq!((returned.i64("err"), returned.i64("n")), (Ok(0), Ok(42)));
    assert_eq!(returned.str("name").unwrap(), format!("{a}@by-program"));
    assert!(lzc.exists(&format!("{a}@by-program")).unwrap());

    let read = "args = ...; local guid = zfs.get_prop(args['snap'], 'guid'); return guid";
    let out = lzc.program(pool.name(), read, limits, &args, ProgramMode::NoSync).unwrap();
    assert!(out.contains("return"), "{out:?}");
    let nothing = lzc.program(pool.name(), "return", limits, &none(), ProgramMode::NoSync).unwrap();
    assert!(!nothing.contains("error"), "{nothing:?}");
    pool.cleanup();
}

#[test]
fn programs_fail_with_luas_message() {
    let (lzc, pool) = start();
    let run = |text: &str, limits| {
        lzc.program(pool.name(), text, limits, &none(), ProgramMode::NoSync).unwrap_err()
    };
    let limits = ProgramLimits::default();
    let error = run("error('on purpose')", limits);
    assert_eq!(error.errno, Errno::CHRNG);
    assert!(error.detail.as_deref().unwrap().contains("on purpose"), "{error}");
    let error = run("this is no Lua", limits);
    assert_eq!(error.errno, Errno::INVAL);
    assert!(error.detail.is_some(), "{error}");
    let endless = "while true do end";
    let error = run(endless, ProgramLimits { instructions: 10_000, ..limits });
    assert_eq!(error.errno, Errno::TIME);
    let hungry = "local t = {}; local s = 'x'; while true do s = s .. s; t[#t + 1] = s end";
    let error = run(hungry, ProgramLimits { memory: 1 << 20, ..limits });
    assert_eq!(error.errno, Errno::NOSPC);
    let error = run("return 1", ProgramLimits { instructions: u64::MAX, ..limits });
    assert_eq!(error.errno, Errno::INVAL);
    let error = run("return zfs.sync.destroy('x')", limits);
    assert_eq!(error.errno, Errno::CHRNG);
    pool.cleanup();
}

#[test]
fn signals_are_blocked_during_a_program_only() {
    /// What a thread of this process blocks, one bit for a signal.
    fn blocked(thread: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    }
    let (lzc, pool) = start();
    let name = pool.name().to_owned();
    let (send, receive) = mpsc::channel();
    let runner = thread::spawn(move || {
        let own = rustix::thread::gettid().as_raw_nonzero().to_string();
        let before = blocked(&own).unwrap();
        send.send((own.clone(), before)).unwrap();
        let endless = "local n = 0; while true do n = n + 1 end";
        let limits = ProgramLimits { instructions: 20_000_000, ..ProgramLimits::default() };
        let error = lzc.program(&name, endless, limits, &none(), ProgramMode::NoSync).unwrap_err();
        assert_eq!(error.errno, Errno::TIME);
        (before, blocked(&own).unwrap())
    });
    let (thread, before) = receive.recv().unwrap();
    let mut most = 0;
    while !runner.is_finished() {
        most = most.max(blocked(&thread).unwrap_or(0));
    }
    let (was, is) = runner.join().unwrap();
    assert_eq!((was, is), (before, before));
    // All but SIGKILL, SIGSTOP, and the two that the C library keeps for itself.
    let never = (1 << 8) | (1 << 18) | (1 << 31) | (1 << 32);
    assert_eq!(most | never, u64::MAX, "{most:x}");
    pool.cleanup();
}
