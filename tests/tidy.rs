//! The numbers of the project's style, enforced: layers, lengths, where clocks, `unsafe` and async
//! may stand, how many traits there are, why each dependency is there.
//!
//! Reads the sources as text: comments and literals are blanked first, so a brace in a string
//! counts for nothing. Every rule has cases below that it must refuse, so that it cannot pass by
//! seeing nothing.

use std::fs;
use std::path::Path;

use rules::{Finding, UNFINISHED, dependency_reasons, findings};
use text::Source;

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/text.rs"]
mod text;

/// Findings that are let pass, as (rule, path). May only shrink, and the number below with it.
const EXCEPTIONS: &[(&str, &str)] = &[];
const EXCEPTIONS_LEN: usize = 0;

fn read_folder(root: &Path, folder: &str, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(root.join(folder)) else {
        return;
    };
    for entry in entries.map(Result::unwrap) {
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        // Programs against other languages' clients have build trees of their own.
        if entry.file_type().unwrap().is_dir() && path != "tests/clients" {
            read_folder(root, &path, sources);
        } else if path.ends_with(".rs") {
            sources.push(Source::new(
                &path,
                &fs::read_to_string(entry.path()).unwrap(),
            ));
        }
    }
}

fn tree() -> (Vec<Source>, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in ["src", "tests", "bench"] {
        read_folder(root, folder, &mut sources);
    }
    sources.sort_by(|left, right| left.path.cmp(&right.path));
    (
        sources,
        fs::read_to_string(root.join("Cargo.toml")).unwrap(),
    )
}

fn is_excepted(finding: &Finding) -> bool {
    EXCEPTIONS.contains(&(finding.rule, finding.path.as_str()))
}

#[test]
fn the_tree_is_tidy() {
    let (sources, manifest) = tree();
    assert!(sources.len() > 5, "the sources were not found");
    let found = findings(&sources, &manifest);
    let shown: Vec<String> = found
        .iter()
        .filter(|finding| !is_excepted(finding))
        .map(
            |Finding {
                 rule,
                 path,
                 line,
                 what,
             }| format!("{path}:{line}: {rule}: {what}"),
        )
        .collect();
    assert!(
        shown.is_empty(),
        "{} findings\n{}",
        shown.len(),
        shown.join("\n")
    );
}

#[test]
fn exceptions_only_shrink() {
    let (sources, manifest) = tree();
    let found = findings(&sources, &manifest);
    for exception in EXCEPTIONS {
        let used = found
            .iter()
            .any(|finding| *exception == (finding.rule, finding.path.as_str()));
        assert!(used, "{exception:?} is not needed any more: remove it");
    }
    assert!(
        EXCEPTIONS.len() == EXCEPTIONS_LEN,
        "the list may only shrink"
    );
}

// ---- the rules can fail ---------------------------------------------------------------------

/// What `rule` finds in one file.
fn check(rule: &str, path: &str, text: &str, expected: &[&str]) {
    let found = findings(&[Source::new(path, text)], "");
    let found: Vec<&str> = found
        .iter()
        .filter(|found| found.rule == rule)
        .map(|found| found.what.as_str())
        .collect();
    assert_eq!(found, expected, "{rule} in {path}:\n{text}");
}

#[test]
fn imports_upwards_and_sideways_are_found() {
    let check = |path, text, expected: &[&str]| check("layers", path, text, expected);
    check("src/store/log.rs", "use crate::base::crc;", &[]);
    check(
        "src/store/log.rs",
        "use crate::broker::X;",
        &["store may not import broker"],
    );
    check(
        "src/store/log.rs",
        "use crate::auth::X;",
        &["store may not import auth"],
    );
    check(
        "src/store/log.rs",
        "use crate::store::x; use super::y;",
        &[],
    );
    check(
        "src/store/log.rs",
        "use crate::{base, shard::disk};",
        &["store may not import shard"],
    );
    check(
        "src/base/crc.rs",
        "use crate::{\n    base::x,\n    cli,\n};",
        &["base may not import cli"],
    );
    check(
        "src/store/log.rs",
        "use super::super::broker::X;",
        &["store may not import broker"],
    );
    check(
        "src/machine.rs",
        "use super::broker;",
        &["machine may not import broker"],
    );
    check(
        "src/store/log.rs",
        "fn f() { crate::shard::now() }",
        &["store may not import shard"],
    );
    check(
        "src/store/log.rs",
        "// crate::shard\nconst A: &str = \"crate::shard\";",
        &[],
    );
    check(
        "src/elsewhere/a.rs",
        "",
        &["elsewhere has no row in the table"],
    );
    check("src/cli.rs", "use crate::broker::X;", &[]);
}

#[test]
fn long_functions_are_found() {
    let check = |text: &str, expected: &[&str]| {
        check("function length", "src/base/a.rs", text, expected);
    };
    let long = |lines: usize, line: &str| format!("fn f() {{\n{}}}\n", line.repeat(lines));
    check(&long(68, "    a();\n"), &[]);
    check(&long(69, "    a();\n"), &["f has 71 lines"]);
    check(&long(69, "    // }\n"), &["f has 71 lines"]);
    check(
        &long(69, "    a('{', \"}\", r#\"\"}\"#, b'}', '\\'');\n"),
        &["f has 71 lines"],
    );
    let dispatch = |arm: &str| long(1, &format!("    match code {{\n{}    }}\n", arm.repeat(90)));
    check(&dispatch("        A | B if a == b => f(x, y),\n"), &[]);
    check(
        &dispatch("        A => {\n            f(x)\n        }\n"),
        &[],
    );
    let worked = "        A => {\n            f(x);\n            g(x);\n        }\n";
    check(&dispatch(worked), &["f has 364 lines"]);
    check(
        "trait T { fn f(&self); }\nstruct S { g: fn(u8) -> u8 }\n",
        &[],
    );
}

#[test]
fn shapes_of_files_are_found() {
    let long = "fn a() {}\n".repeat(1000);
    check("file length", "src/base/a.rs", &long, &[]);
    let longer = format!("{long}fn b() {{}}\n");
    check(
        "file length",
        "src/base/a.rs",
        &longer,
        &["1001 lines without tests"],
    );
    let tests = format!("{long}#[cfg(test)]\nmod tests {{\n{long}}}\n");
    check("file length", "src/base/a.rs", &tests, &[]);
    check("file length", "src/base/tests.rs", &longer, &[]);
    check(
        "line length",
        "src/base/a.rs",
        &format!("// {}\n", "é".repeat(97)),
        &[],
    );
    check(
        "line length",
        "src/base/a.rs",
        &format!("// {}\n", "é".repeat(98)),
        &["101 columns"],
    );
    check("folder depth", "src/a/b/c.rs", "", &[]);
    check(
        "folder depth",
        "src/a/b/c/d.rs",
        "",
        &["more than two folders below src"],
    );
}

#[test]
fn what_belongs_to_shard_is_found_elsewhere() {
    let below = "waiting below the row of shard";
    check("async", "src/broker/a.rs", "async fn f() {}", &[below]);
    check("async", "src/base/a.rs", "fn f() { x.await }", &[below]);
    check("async", "src/loadgen/a.rs", "async fn f() {}", &[]);
    check(
        "async",
        "src/base/a.rs",
        "// async\nfn asynchronous() {}",
        &[],
    );
    check(
        "glommio",
        "src/store/a.rs",
        "use glommio::Task;",
        &["named outside shard"],
    );
    check("glommio", "src/shard/a.rs", "use glommio::Task;", &[]);
    check(
        "clock",
        "src/broker/a.rs",
        "let t = Instant::now();",
        &["read outside shard"],
    );
    check(
        "clock",
        "src/cli.rs",
        "std::time::SystemTime::now()",
        &["read outside shard"],
    );
    check("clock", "src/shard/clock.rs", "Instant::now()", &[]);
    let hint = "// SAFETY: a\nunsafe { f() }";
    check("unsafe", "src/base/prefetch.rs", hint, &[]);
    check("unsafe", "src/base/crc.rs", hint, &["outside shard"]);
    check(
        "unsafe",
        "src/base/a.rs",
        "// SAFETY: no\nunsafe { f() }",
        &["outside shard"],
    );
    let bare = "without a `// SAFETY:` comment";
    check(
        "unsafe",
        "src/shard/a.rs",
        "fn f() {\n    unsafe { g() }\n}",
        &[bare],
    );
    check(
        "unsafe",
        "src/shard/a.rs",
        "// SAFETY: a\nf();\nunsafe { g() }",
        &[bare],
    );
    check(
        "unsafe",
        "src/shard/a.rs",
        "// SAFETY: a\n// b\nlet x =\n    unsafe { g() };",
        &[],
    );
    check(
        "unsafe",
        "src/shard/a.rs",
        "/// # Safety\n/// x\n#[inline]\nunsafe fn f() {}",
        &[],
    );
}

#[test]
fn refused_names_are_found() {
    let check = |path, text, expected: &[&str]| check("names", path, text, expected);
    check(
        "src/base/a.rs",
        "struct TopicManager;",
        &["TopicManager says manager"],
    );
    check("src/base/a.rs", "enum ImplKind {}", &["ImplKind says impl"]);
    check("src/base/a.rs", "impl Simple {}\nmod utility {}", &[]);
    check("src/base/a.rs", "mod common {}", &["common says common"]);
    check(
        "src/base/a.rs",
        "fn get_topic() {}",
        &["get_topic starts with get_"],
    );
    check("src/base/a.rs", "fn done() {}\nfn forget_all() {}", &[]);
    check("src/base/byte_util.rs", "", &["byte_util says util"]);
}

#[test]
fn unfinished_work_and_sleeping_tests_are_found() {
    check(
        "unfinished",
        "src/base/a.rs",
        &format!("// {}: later", UNFINISHED[0]),
        &["TODO"],
    );
    check(
        "unfinished",
        "src/base/a.rs",
        "fn f() { todo!() }",
        &["todo!("],
    );
    check(
        "unfinished",
        "src/base/a.rs",
        "#[ignore]\nfn f() {}",
        &["#[ignore"],
    );
    let waits = "a test waits for time instead of an event";
    check("sleep", "tests/a.rs", "thread::sleep(x);", &[waits]);
    check("sleep", "src/base/tests.rs", "thread::sleep(x);", &[waits]);
    let inside = "#[cfg(test)]\nmod tests {\n    fn f() { sleep(x) }\n}";
    check("sleep", "src/base/a.rs", inside, &[waits]);
    check(
        "sleep",
        "src/shard/a.rs",
        "fn f() { sleep(x) }\n#[cfg(test)]\nmod tests {}",
        &[],
    );
}

#[test]
fn totals_are_found() {
    let text = |count: usize, line: &str| line.repeat(count);
    check("traits", "src/base/a.rs", &text(10, "trait A {}\n"), &[]);
    check(
        "traits",
        "src/base/a.rs",
        &text(11, "trait A {}\n"),
        &["11 of 10"],
    );
    check("total length", "src/base/a.rs", &text(68_500, "//\n"), &[]);
    check(
        "total length",
        "src/base/a.rs",
        &text(68_501, "//\n"),
        &["68501 of 68500 lines"],
    );
}

#[test]
fn dependencies_without_a_reason_are_found() {
    let check = |manifest: &str, expected: usize| {
        let mut out = Vec::new();
        dependency_reasons(manifest, &mut out);
        assert_eq!(out.len(), expected, "{manifest}: {out:?}");
    };
    check(
        "[package]\nname = \"a\"\n[dependencies]\n# Sums.\na = \"1\"\n",
        0,
    );
    check("[dependencies]\n# Sums.\na = \"1\"\nb = \"1\"\n", 1);
    check("[dev-dependencies]\n#\na = \"1\"\n", 1);
    check("[dependencies.a]\nversion = \"1\"\n", 1);
    check("# Sums.\n[target.x.dependencies.a]\nversion = \"1\"\n", 0);
}
