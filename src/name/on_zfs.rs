//! The kernel is asked about each of 10,000 names, valid and broken, and agrees with the parser.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::errno::Errno;
use crate::ffi::lzc::{DatasetKind, Lzc};
use crate::ffi::nvlist::NvList;
use crate::test_pool::TestPool;

/// How the kernel says that a name is not one; all else is about what the name stands for.
fn is_a_name(result: Result<(), Errno>) -> bool {
    !matches!(result, Err(Errno::INVAL | Errno::NAMETOOLONG))
}

/// Creating below a parent that doesn't exist: the name is checked, and nothing is made.
fn kernel_would_create(lzc: Lzc, name: &str) -> bool {
    let none = NvList::new().unwrap();
    is_a_name(lzc.create(name, DatasetKind::Filesystem, &none).map_err(|error| error.errno))
}

/// Creating a snapshot is laxer than every later use of its name: `@..` could be made, but never be
/// destroyed. So the kernel is asked whether it would look the snapshot up, and create its dataset.
fn kernel_would_snapshot(lzc: Lzc, name: &str) -> bool {
    let looked_up = lzc.get_holds(name).map(drop).map_err(|error| error.errno);
    let Some((dataset, leaf)) = name.split_once('@') else {
        return false;
    };
    is_a_name(looked_up) && !leaf.contains('%') && kernel_would_create(lzc, dataset)
}

/// What follows the pool and a parent that doesn't exist.
fn endings() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        40 => proptest::char::range('a', 'z'),
        10 => prop::sample::select("AZ09-_.: ".chars().collect::<Vec<_>>()),
        1 => prop::sample::select("%@#/\\\"'*?!+=,;~^$&|<>()[]{}\t\n\u{7f}é漢".chars().collect::<Vec<_>>()),
    ];
    let component = prop_oneof![
        20 => prop::collection::vec(character, 1..8).prop_map(|chars| chars.into_iter().collect()),
        1 => prop::sample::select(vec![String::new(), ".".into(), "..".into(), "...".into()]),
    ];
    let path = |range| prop::collection::vec(component.clone(), range).prop_map(|c| c.join("/"));
    let leaf = prop_oneof![
        3 => Just(String::new()),
        2 => component.clone().prop_map(|leaf| format!("@{leaf}")),
        1 => component.clone().prop_map(|leaf| format!("#{leaf}")),
    ];
    let long = (200..260usize).prop_map(|len| "l".repeat(len));
    let deep = (40..49usize).prop_map(|depth| vec!["d"; depth].join("/"));
    // Deeper names need parents that exist, to be judged: see the test below.
    prop_oneof![
        8 => (path(1..6), leaf.clone()).prop_map(|(path, leaf)| path + &leaf),
        1 => (long, leaf.clone()).prop_map(|(long, leaf)| long + &leaf),
        1 => (deep, leaf).prop_map(|(deep, leaf)| deep + &leaf),
    ]
}

#[test]
fn the_kernel_agrees_on_ten_thousand_names() {
    let (pool, lzc) = (TestPool::new(), Lzc::open().unwrap());
    let mut runner = TestRunner::default();
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..10_000 {
        let ending = endings().new_tree(&mut runner).unwrap().current();
        let name = format!("{}/missing/{ending}", pool.name());
        let parsed = if name.contains('@') {
            let ours = name.parse::<SnapshotName>();
            assert_eq!(ours.is_ok(), kernel_would_snapshot(lzc, &name), "{name:?}: {ours:?}");
            ours.is_ok()
        } else {
            let ours = name.parse::<DatasetName>();
            assert_eq!(ours.is_ok(), kernel_would_create(lzc, &name), "{name:?}: {ours:?}");
            ours.is_ok()
        };
        *if parsed { &mut accepted } else { &mut refused } += 1;
    }
    println!("names: {accepted} accepted and {refused} refused, by both");
    assert!(accepted > 2_000 && refused > 2_000, "the sample is lopsided: {accepted}, {refused}");
    pool.cleanup();
}

/// The kernel looks at the depth of a name after it has looked for the parent, so parents there are.
#[test]
fn the_kernel_agrees_on_the_depth() {
    let (pool, lzc) = (TestPool::new(), Lzc::open().unwrap());
    let none = NvList::new().unwrap();
    let mut name = pool.name().to_owned();
    let refused = loop {
        name.push_str("/d");
        match lzc.create(&name, DatasetKind::Filesystem, &none) {
            Ok(()) => assert!(name.parse::<DatasetName>().is_ok(), "{name}"),
            Err(error) => break error.errno,
        }
    };
    assert_eq!(refused, Errno::NAMETOOLONG);
    let reason = name.parse::<DatasetName>().unwrap_err().reason;
    assert_eq!(reason, NameReason::TooDeep { depth: MAX_DEPTH + 1 });
    pool.cleanup();
}
