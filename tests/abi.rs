//! Whether the bindings say what the C headers say: asked of the C compiler, with the headers that
//! the crate was built against.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use quote::ToTokens;
use syn::{Expr, FnArg, ForeignItem, ImplItem, Item, ReturnType, Type};

const OUT_DIR: &str = env!("OUT_DIR");
const HEADERS: &str = "#include \"wrapper.h\"\n";

/// What the bindings claim.
#[derive(Default)]
struct Claims {
    /// Name, and type in C: `%` stands where the declared name goes.
    functions: Vec<(String, String)>,
    /// Name and value.
    constants: Vec<(String, String)>,
    /// Name and underlying type of each C enum.
    enums: Vec<(String, String)>,
    /// Names of structs of which nothing is claimed but that they exist.
    opaque: Vec<String>,
}

fn read(path: &Path) -> syn::File {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    syn::parse_file(&text).unwrap()
}

fn generated() -> syn::File {
    read(&Path::new(OUT_DIR).join("bindings.rs"))
}

/// C's name of a Rust type, as used in the bindings.
fn c_type(rust: &Type) -> String {
    match rust {
        Type::Ptr(pointer) => {
            let constant = if pointer.const_token.is_some() { " const" } else { "" };
            // East const: `char const * const *` reads from the inside out, as Rust's type does.
            format!("{}{constant} *", c_type(&pointer.elem))
        }
        Type::Path(path) => {
            let name = path.path.segments.last().unwrap().ident.to_string();
            match name.as_str() {
                "c_char" => "char".to_owned(),
                "c_uchar" => "unsigned char".to_owned(),
                "c_int" => "int".to_owned(),
                "c_uint" => "unsigned int".to_owned(),
                "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" => {
                    let (sign, bits) = name.split_at(1);
                    format!("{}int{bits}_t", if sign == "u" { "u" } else { "" })
                }
                "usize" => "size_t".to_owned(),
                _ => named_in_c(&name),
            }
        }
        other => panic!(
            "the bindings use a type that this test can't say in C: {}",
            other.to_token_stream()
        ),
    }
}

/// In these headers typedefs end in `_t`; a name that doesn't is an enum's tag.
fn named_in_c(name: &str) -> String {
    if name.ends_with("_t") { name.to_owned() } else { format!("enum {name}") }
}

fn claims(file: &syn::File) -> Claims {
    let mut claims = Claims::default();
    for item in &file.items {
        match item {
            Item::ForeignMod(block) => {
                for item in &block.items {
                    let ForeignItem::Fn(function) = item else { panic!("not a function") };
                    let arguments: Vec<_> = function
                        .sig
                        .inputs
                        .iter()
                        .map(|argument| match argument {
                            FnArg::Typed(argument) => c_type(&argument.ty),
                            FnArg::Receiver(_) => unreachable!(),
                        })
                        .collect();
                    let arguments = match arguments.len() {
                        0 => "void".to_owned(),
                        _ => arguments.join(", "),
                    };
                    let result = match &function.sig.output {
                        ReturnType::Default => "void".to_owned(),
                        ReturnType::Type(_, result) => c_type(result),
                    };
                    let name = function.sig.ident.to_string();
                    claims.functions.push((name, format!("{result} (*)({arguments})")));
                }
            }
            Item::Const(constant) if constant.ident != "_" => {
                let value = constant.expr.to_token_stream().to_string();
                claims.constants.push((constant.ident.to_string(), value));
            }
            Item::Impl(of_enum) => {
                for item in &of_enum.items {
                    let ImplItem::Const(constant) = item else { panic!("not a constant") };
                    let Expr::Call(call) = &constant.expr else { panic!("not a newtype") };
                    let value = call.args[0].to_token_stream().to_string();
                    claims.constants.push((constant.ident.to_string(), value));
                }
            }
            Item::Struct(of_enum) if of_enum.fields.len() == 1 => {
                match of_enum.fields.iter().next() {
                    Some(field) if field.ident.is_none() => {
                        claims.enums.push((of_enum.ident.to_string(), c_type(&field.ty)));
                    }
                    _ => panic!("{} has a layout that nothing checks", of_enum.ident),
                }
            }
            Item::Struct(opaque) => {
                let fields: Vec<_> = opaque.fields.iter().flat_map(|field| &field.ident).collect();
                assert_eq!(fields, ["_unused", "_pinned"], "a layout that nothing checks");
                claims.opaque.push(opaque.ident.to_string());
            }
            // A type alias is another name in C, too; its uses are checked under that name.
            Item::Type(_) | Item::Use(_) => {}
            other => panic!("an item that this test doesn't check: {}", other.to_token_stream()),
        }
    }
    claims
}

/// The claims as C that compiles if they are true.
fn assertions(claims: &Claims) -> String {
    let mut c = HEADERS.to_owned();
    for (name, claimed) in &claims.functions {
        writeln!(
            c,
            "_Static_assert(__builtin_types_compatible_p(__typeof__(&{name}), {claimed}), \
             \"{name}\");"
        )
        .unwrap();
    }
    for (name, value) in &claims.constants {
        writeln!(c, "_Static_assert(({name}) == ({value}), \"{name}\");").unwrap();
    }
    for (name, claimed) in &claims.enums {
        let name = named_in_c(name);
        writeln!(c, "_Static_assert(__builtin_types_compatible_p({name}, {claimed}), \"{name}\");")
            .unwrap();
    }
    for name in &claims.opaque {
        writeln!(c, "struct {name} *pointer_to_{name};").unwrap();
    }
    c
}

/// Compiles C with the command that compiled the shim; the error is what the compiler said.
fn compile(c: &str) -> Result<(), String> {
    let command = fs::read_to_string(Path::new(OUT_DIR).join("cc-command")).unwrap();
    let mut words = command.lines();
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("abi.c");
    fs::write(&source, c).unwrap();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .args(["-I", env!("CARGO_MANIFEST_DIR"), "-std=gnu11", "-fsyntax-only"])
        .arg(&source)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn the_bindings_say_what_the_headers_say() {
    let claims = claims(&generated());
    let of = |prefix: &str| claims.functions.iter().filter(|f| f.0.starts_with(prefix)).count();
    assert!(of("nvlist_") > 10 && of("nvpair_") > 10 && of("lzc_") > 15 && of("zfs_txn_") > 4);
    assert!(claims.constants.len() > 100 && claims.enums.len() > 5 && claims.opaque.len() == 5);
    if let Err(said) = compile(&assertions(&claims)) {
        panic!("{said}");
    }
}

#[test]
fn a_wrong_claim_is_refused() {
    let right = claims(&generated());
    for wrong in [
        ("lzc_rename", "int (*)(char const *, char *)"),
        ("lzc_rename", "int (*)(char const *)"),
        ("lzc_rename", "long (*)(char const *, char const *)"),
        ("lzc_send_space", "int (*)(char const *, char const *, enum lzc_send_flags, uint32_t *)"),
    ] {
        let functions = vec![(wrong.0.to_owned(), wrong.1.to_owned())];
        let said = compile(&assertions(&Claims { functions, ..Claims::default() })).unwrap_err();
        assert!(said.contains("static assertion") && said.contains(wrong.0), "{said}");
    }
    let constants = vec![("EZFS_NOENT".to_owned(), "1".to_owned())];
    assert!(compile(&assertions(&Claims { constants, ..Claims::default() })).is_err());
    let enums = vec![("boolean_t".to_owned(), "uint8_t".to_owned())];
    assert!(compile(&assertions(&Claims { enums, ..Claims::default() })).is_err());
    // And one wrong claim among the right ones.
    let mut functions = right.functions;
    functions[0].1 = "void (*)(void)".to_owned();
    assert!(compile(&assertions(&Claims { functions, ..Claims::default() })).is_err());
}

#[test]
fn every_error_number_of_zfs_has_its_name() {
    let ours: BTreeMap<_, _> = fs::read_to_string("src/errno.rs")
        .unwrap()
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ZFS_ERR_")?.split_once(" = "))
        .map(|(name, rest)| (name.to_owned(), rest.split(',').next().unwrap().to_owned()))
        .collect();
    assert!(ours.len() >= 29);
    let claims = claims(&generated());
    let theirs: Vec<_> = claims
        .constants
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("ZFS_ERR_")?, value)))
        .collect();
    assert!(theirs.len() >= 21);
    for (name, value) in theirs {
        assert_eq!(ours.get(name), Some(value), "ZFS_ERR_{name}");
    }
}

/// What documentation is built with where OpenZFS isn't installed.
#[test]
fn the_bindings_for_the_documentation_are_those_of_openzfs_2_3() {
    let version = fs::read_to_string(Path::new(OUT_DIR).join("openzfs-version")).unwrap();
    if !version.starts_with("2.3.") {
        eprintln!("not compared: built against OpenZFS {version}");
        return;
    }
    let committed = Path::new("src/ffi/bindings_for_docs.rs");
    let tokens = |file: syn::File| file.to_token_stream().to_string();
    if tokens(read(committed)) != tokens(generated()) {
        let from = Path::new(OUT_DIR).join("bindings.rs");
        panic!("out of date: copy {} to {}", from.display(), committed.display());
    }
}
