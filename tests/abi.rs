//! Whether the bindings say what the C headers of a release line say: asked of a C compiler. `cargo xtask test`
//! names the tree with the headers; without one they are those of this machine.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use quote::ToTokens;
use syn::{Expr, GenericArgument, ImplItem, Item, PathArguments, ReturnType, Type, TypeBareFn};

const BINDINGS: &str = "src/ffi/bindings.rs";
const HEADERS: &str = "#include <libnvpair.h>\n#include <libzfs_core.h>\n#include <libzfs.h>\n";

/// The struct that bindgen makes of a library that is loaded at run time.
const LIBRARY: &str = "OpenZfs";

/// Moves whenever an error is added before it, and is used by nobody.
const LAST_ERROR: &str = "EZFS_UNKNOWN";

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
    read(Path::new(BINDINGS))
}

/// The tree with the headers.
fn tree() -> PathBuf {
    env::var_os("ZFS_TXN_HEADERS").map_or_else(|| "/".into(), PathBuf::from)
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
                "c_void" => "void".to_owned(),
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

/// In these headers typedefs end in `_t`, of functions in `_f`; a name that doesn't is an enum's tag.
fn named_in_c(name: &str) -> String {
    let is_typedef = name.ends_with("_t") || name.ends_with("_f");
    if is_typedef { name.to_owned() } else { format!("enum {name}") }
}

/// The type in C of a pointer to a function.
fn c_function(function: &TypeBareFn) -> String {
    let arguments: Vec<_> = function.inputs.iter().map(|argument| c_type(&argument.ty)).collect();
    let arguments = match arguments.len() {
        0 => "void".to_owned(),
        _ => arguments.join(", "),
    };
    let result = match &function.output {
        ReturnType::Default => "void".to_owned(),
        ReturnType::Type(_, result) => c_type(result),
    };
    format!("{result} (*)({arguments})")
}

/// The function in a type such as `Option<unsafe extern "C" fn(…)>`.
fn optional_function(alias: &Type) -> Option<&TypeBareFn> {
    let Type::Path(path) = alias else { return None };
    let PathArguments::AngleBracketed(arguments) = &path.path.segments.last()?.arguments else {
        return None;
    };
    match arguments.args.first()? {
        GenericArgument::Type(Type::BareFn(function)) => Some(function),
        _ => None,
    }
}

fn claims(file: &syn::File) -> Claims {
    let mut claims = Claims::default();
    for item in &file.items {
        match item {
            Item::Struct(library) if library.ident == LIBRARY => {
                for field in library.fields.iter() {
                    let name = field.ident.as_ref().unwrap().to_string();
                    match &field.ty {
                        Type::BareFn(function) => {
                            claims.functions.push((name, c_function(function)));
                        }
                        _ => assert_eq!(name, "__library", "not a function"),
                    }
                }
            }
            // How the functions are found and called: nothing about C.
            Item::Impl(library) if library.self_ty.to_token_stream().to_string() == LIBRARY => {}
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
            Item::Type(alias) => {
                if let Some(function) = optional_function(&alias.ty) {
                    claims.enums.push((alias.ident.to_string(), c_function(function)));
                }
            }
            Item::Use(_) => {}
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
    for (name, value) in claims.constants.iter().filter(|(name, _)| name != LAST_ERROR) {
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

/// Compiles C with the headers; the error is what the compiler said.
fn compile(c: &str) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("abi.c");
    fs::write(&source, c).unwrap();
    let tree = tree();
    let mut command = Command::new("cc");
    command.arg(format!("--sysroot={}", tree.display()));
    for place in ["libspl", "libzfs"] {
        command.arg("-I").arg(tree.join("usr/include").join(place));
    }
    command.args(["-D_GNU_SOURCE", "-std=gnu11", "-fsyntax-only"]).arg(&source);
    let output = command.output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn the_bindings_say_what_the_headers_say() {
    let claims = claims(&generated());
    let of = |prefix: &str| claims.functions.iter().filter(|f| f.0.starts_with(prefix)).count();
    assert!(of("nvlist_") > 10 && of("nvpair_") > 10 && of("lzc_") > 15 && of("zfs_") > 10);
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
    let header = tree().join("usr/include/libzfs/sys/fs/zfs.h");
    let header =
        fs::read_to_string(&header).unwrap_or_else(|e| panic!("{}: {e}", header.display()));
    let theirs: BTreeSet<_> = header
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter_map(|word| word.strip_prefix("ZFS_ERR_"))
        .collect();
    assert!(theirs.len() >= 25, "{theirs:?}");
    let constants = theirs.iter().map(|name| {
        let value = ours.get(*name).unwrap_or_else(|| panic!("ZFS_ERR_{name} has no name here"));
        (format!("ZFS_ERR_{name}"), value.clone())
    });
    let claims = Claims { constants: constants.collect(), ..Claims::default() };
    if let Err(said) = compile(&assertions(&claims)) {
        panic!("{said}");
    }
}
