#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

/// A list as plain Rust data, to compare with.
#[derive(Clone, Debug, PartialEq)]
enum Model {
    Flag,
    Bool(bool),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Str(OsString),
    Bytes(Vec<u8>),
    U64s(Vec<u64>),
    Strs(Vec<String>),
    List(BTreeMap<String, Model>),
}

fn build(model: &BTreeMap<String, Model>) -> Result<NvList, NvError> {
    let mut list = NvList::new()?;
    for (name, value) in model {
        match value {
            Model::Flag => list.add_flag(name),
            Model::Bool(value) => list.add_bool(name, *value),
            Model::I32(value) => list.add_i32(name, *value),
            Model::U32(value) => list.add_u32(name, *value),
            Model::I64(value) => list.add_i64(name, *value),
            Model::U64(value) => list.add_u64(name, *value),
            Model::Str(value) => list.add_str(name, value),
            Model::Bytes(value) => list.add_bytes(name, value),
            Model::U64s(value) => list.add_u64_array(name, value),
            Model::Strs(value) => {
                list.add_str_array(name, &value.iter().map(String::as_str).collect::<Vec<_>>())
            }
            Model::List(value) => list.add_nvlist(name, &build(value)?),
        }?;
    }
    Ok(list)
}

fn read(list: NvRef<'_>) -> Result<BTreeMap<String, Model>, NvError> {
    list.iter()
        .map(|entry| {
            let (name, value) = entry?;
            let value = match value {
                Value::Flag => Model::Flag,
                Value::Bool(value) => Model::Bool(value),
                Value::I32(value) => Model::I32(value),
                Value::U32(value) => Model::U32(value),
                Value::I64(value) => Model::I64(value),
                Value::U64(value) => Model::U64(value),
                Value::Str(value) => Model::Str(value.to_owned()),
                Value::Bytes(value) => Model::Bytes(value.to_vec()),
                Value::U64s(value) => Model::U64s(value.to_vec()),
                Value::Strs(value) => Model::Strs(value.into_iter().map(utf8).collect()),
                Value::List(value) => Model::List(read(value)?),
                // Neither of these is ever built above; garbage may decode to them.
                Value::Lists(_) | Value::Other(_) => Model::Flag,
            };
            Ok((utf8(name), value))
        })
        .collect()
}

fn utf8(text: &OsStr) -> String {
    text.to_str().unwrap().to_owned()
}

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn model() -> impl Strategy<Value = BTreeMap<String, Model>> {
    let leaf = prop_oneof![
        Just(Model::Flag),
        any::<bool>().prop_map(Model::Bool),
        any::<i32>().prop_map(Model::I32),
        any::<u32>().prop_map(Model::U32),
        any::<i64>().prop_map(Model::I64),
        any::<u64>().prop_map(Model::U64),
        vec(1..=u8::MAX, 0..12).prop_map(|bytes| Model::Str(OsString::from_vec(bytes))),
        vec(any::<u8>(), 0..20).prop_map(Model::Bytes),
        vec(any::<u64>(), 0..6).prop_map(Model::U64s),
        vec(text(), 0..5).prop_map(Model::Strs),
    ];
    let value =
        leaf.prop_recursive(5, 40, 6, |inner| btree_map(text(), inner, 0..6).prop_map(Model::List));
    btree_map(text(), value, 0..8)
}

/// Reads all there is to read, as far as it can be read.
fn touch(list: NvRef<'_>) -> usize {
    let mut seen = 0;
    for entry in list.iter() {
        seen += match entry {
            Ok((_, Value::List(inner))) => touch(inner),
            Ok((_, Value::Lists(inner))) => inner.into_iter().map(touch).sum(),
            Ok((name, value)) => name.len() + format!("{value:?}").len(),
            Err(error) => error.to_string().len(),
        };
    }
    seen + list.len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_was_packed_is_unpacked(model in model()) {
        let list = build(&model).unwrap();
        prop_assert_eq!(&read(list.view()).unwrap(), &model);
        let again = NvList::unpack(&list.pack().unwrap()).unwrap();
        prop_assert_eq!(&read(again.view()).unwrap(), &model);
        let copy = again.try_clone().unwrap();
        drop((list, again));
        prop_assert_eq!(read(copy.view()).unwrap(), model);
    }

    #[test]
    fn garbage_is_an_error_or_a_list(mut bytes in vec(any::<u8>(), 0..200)) {
        let _ = NvList::unpack(&bytes).map(|list| touch(list.view()));
        if let Some(first) = bytes.first_mut() {
            *first = c::NV_ENCODE_XDR as u8;
        }
        let _ = NvList::unpack(&bytes).map(|list| touch(list.view()));
    }

    #[test]
    fn damaged_lists_are_an_error_or_a_list(
        model in model(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = build(&model).unwrap().pack().unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = NvList::unpack(&bytes).map(|list| touch(list.view()));
        bytes.truncate(end.index(bytes.len()));
        let _ = NvList::unpack(&bytes).map(|list| touch(list.view()));
    }
}

fn name(text: &str) -> String {
    text.to_owned()
}

#[test]
fn values_are_read_as_what_they_are() {
    let mut inner = NvList::new().unwrap();
    inner.add_str("text", "ü").unwrap();
    let mut list = NvList::new().unwrap();
    assert!(list.is_empty());
    list.add_u64("number", u64::MAX).unwrap();
    list.add_i64("signed", i64::MIN).unwrap();
    list.add_i32("errno", -1).unwrap();
    list.add_bool("yes", true).unwrap();
    list.add_flag("flag").unwrap();
    list.add_str_array("texts", &["a", ""]).unwrap();
    list.add_nvlist("inner", &inner).unwrap();
    drop(inner);

    assert_eq!(list.len(), 7);
    assert_eq!(list.u64("number"), Ok(u64::MAX));
    assert_eq!(list.i64("signed"), Ok(i64::MIN));
    assert_eq!(list.i32("errno"), Ok(-1));
    assert_eq!(list.bool("yes"), Ok(true));
    assert_eq!(list.flag("flag"), Ok(true));
    assert_eq!(list.flag("no flag"), Ok(false));
    assert_eq!(list.strs("texts"), Ok(vec![OsStr::new("a"), OsStr::new("")]));
    assert_eq!(list.list("inner").unwrap().str("text"), Ok("ü"));
    assert!(list.contains("flag") && !list.contains("text"));
}

#[test]
fn a_wrong_type_and_a_missing_name_are_errors_that_name_it() {
    let mut list = NvList::new().unwrap();
    list.add_u64("a", 1).unwrap();
    assert_eq!(list.u64("b"), Err(NvError::Missing { name: name("b") }));
    assert_eq!(
        list.str("a"),
        Err(NvError::WrongType { name: name("a"), expected: DataType::STR, actual: DataType::U64 })
    );
    assert_eq!(
        list.str("a").unwrap_err().to_string(),
        "`a` holds a uint64 where a string is expected"
    );
    assert!(list.flag("a").is_err());
}

#[test]
fn a_duplicate_is_an_error_and_replaces_nothing() {
    let mut list = NvList::new().unwrap();
    list.add_u64("a", 1).unwrap();
    assert_eq!(list.add_str("a", "x"), Err(NvError::Duplicate { name: name("a") }));
    assert_eq!(list.add_u64("a", 2), Err(NvError::Duplicate { name: name("a") }));
    assert_eq!(list.u64("a"), Ok(1));
}

#[test]
fn nul_bytes_are_errors() {
    let mut list = NvList::new().unwrap();
    assert_eq!(list.add_flag("a\0b"), Err(NvError::Nul { text: name("a\0b") }));
    assert_eq!(list.add_str("a", "b\0"), Err(NvError::Nul { text: name("b\0") }));
    assert_eq!(list.add_str_array("a", &["", "\0"]), Err(NvError::Nul { text: name("\0") }));
    assert!(list.is_empty());
}

#[test]
fn names_are_compared_byte_by_byte() {
    let mut list = NvList::new().unwrap();
    list.add_u64_array("a", &[1, 2]).unwrap();
    // C's lookup reads these as the first element of `a`, and as `a`.
    assert!(!list.contains("a[0]") && !list.contains(" a "));
    list.add_u64("a[0]", 7).unwrap();
    assert_eq!(list.u64("a[0]"), Ok(7));
}

#[test]
fn what_is_not_utf8_is_read_byte_by_byte_and_an_error_only_where_utf8_is_asked_for() {
    let mut list = NvList::new().unwrap();
    list.add_str("bad", "xx").unwrap();
    list.add_u64("good", 1).unwrap();
    let mut bytes = list.pack().unwrap();
    let at = bytes.windows(2).position(|window| window == b"xx").unwrap();
    bytes[at] = 0xff;
    let list = NvList::unpack(&bytes).unwrap();
    let text = OsStr::from_bytes(b"\xffx");
    assert_eq!(list.os_str("bad"), Ok(text));
    let error = list.str("bad").unwrap_err();
    assert_eq!(error, NvError::NotUtf8 { name: name("bad"), text: text.to_owned() });
    assert_eq!(error.to_string(), "`bad` holds \"\\xFFx\", which is not UTF-8");
    assert_eq!(list.u64("good"), Ok(1));

    let at = bytes.windows(3).position(|window| window == b"bad").unwrap();
    bytes[at] = 0xff;
    let list = NvList::unpack(&bytes).unwrap();
    assert_eq!(list.u64("good"), Ok(1));
    let names: Vec<&OsStr> = list.iter().map(|pair| pair.unwrap().0).collect();
    assert_eq!(names, [OsStr::from_bytes(b"\xffad"), OsStr::new("good")]);
}

#[test]
fn nesting_ends_before_the_kernel_would_refuse() {
    let mut list = NvList::new().unwrap();
    for _ in 1..MAX_DEPTH {
        let mut outer = NvList::new().unwrap();
        outer.add_nvlist("in", &list).unwrap();
        list = outer;
    }
    assert!(list.pack().is_ok());
    let mut outer = NvList::new().unwrap();
    assert_eq!(outer.add_nvlist("in", &list), Err(NvError::TooDeep { name: name("in") }));
}

#[test]
fn too_long_a_name_is_refused() {
    let mut list = NvList::new().unwrap();
    assert!(list.add_flag(&"x".repeat(32_766)).is_ok());
    let long = "x".repeat(32_767);
    let error = list.add_flag(&long).unwrap_err();
    assert_eq!(error, NvError::Refused { name: long, errno: Errno::INVAL });
}

#[test]
fn only_the_portable_encoding_is_unpacked() {
    let bytes = NvList::new().unwrap().pack().unwrap();
    assert_eq!(u32::from(bytes[0]), c::NV_ENCODE_XDR);
    let mut native = bytes.clone();
    native[0] = c::NV_ENCODE_NATIVE as u8;
    assert_eq!(NvList::unpack(&native).unwrap_err(), NvError::Damaged { errno: Errno::NOTSUP });
    assert!(NvList::unpack(&[]).is_err());
}

#[test]
fn reading_one_list_twice_at_a_time() {
    let mut list = NvList::new().unwrap();
    for n in 0..10_u64 {
        list.add_u64(&n.to_string(), n).unwrap();
    }
    let pairs = list.iter().flat_map(|_| list.iter()).count();
    assert_eq!(pairs, 100);
}

#[test]
fn an_owned_list_moves_to_another_thread() {
    let mut list = NvList::new().unwrap();
    list.add_u64("a", 1).unwrap();
    let list = std::thread::spawn(move || {
        list.add_u64("b", 2).unwrap();
        list
    })
    .join()
    .unwrap();
    assert_eq!(list.len(), 2);
}
