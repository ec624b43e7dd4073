//! The rules, each a function from a file to what it finds there.

use crate::text::{Function, Source, closing, find_flat, functions, is_word, lines, words};

/// Which modules a module may import: those of lower rows. Neighbours do not know each other.
const ROWS: &[&[&str]] = &[
    &["base"],
    &["message", "remoting", "filter"],
    &["machine", "store", "replica", "auth", "client"],
    &["broker", "namesrv", "controller"],
    &["shard"],
    &["http", "grpc", "admin", "loadgen"],
    &["config", "cli", "serve", "check", "main", "lib"],
];
/// The row of `shard`, the first that may wait.
const ASYNC_ROW: usize = 4;
/// The row that assembles the process and may import anything.
const ASSEMBLY_ROW: usize = 6;
const FUNCTION_LINES_MAX: usize = 70;
/// An arm of a `match` that only dispatches is a call, which rustfmt may spread over this many.
const DISPATCH_ARM_LINES_MAX: usize = 3;
const FILE_LINES_MAX: usize = 1000;
const COLUMNS_MAX: usize = 100;
/// `src/folder/folder/file.rs`.
const PATH_PARTS_MAX: usize = 4;
const TRAITS_MAX: usize = 10;
/// Raised for what operators' tools ask of a broker, the duplicate guard, light queues and lite
/// topics, and the hot path: sends compared in both header forms, the ring in the page cache.
const PRODUCTION_LINES_MAX: usize = 68_500;
/// Outside `shard`, here alone may be `unsafe`: a hint to the processor, not an access.
const PREFETCH: &str = "src/base/prefetch.rs";
const NAME_WORDS_REFUSED: &[&str] = &[
    "manager",
    "service",
    "processor",
    "impl",
    "util",
    "utils",
    "helper",
    "factory",
    "common",
];
const FUNCTION_PREFIXES_REFUSED: &[&str] = &["get_", "do_"];
pub const UNFINISHED: &[&str] = &["TODO", "FIXME"];

/// One thing that is wrong.
#[derive(Debug)]
pub struct Finding {
    pub rule: &'static str,
    pub path: String,
    /// Counted from 1; 0 where the whole file or tree is meant.
    pub line: usize,
    pub what: String,
}

fn finding(source: &Source, rule: &'static str, at: usize, what: impl Into<String>) -> Finding {
    Finding {
        rule,
        path: source.path.clone(),
        line: source.line_at(at),
        what: what.into(),
    }
}

/// The modules a file names: after `crate::`, and after enough `super::` to reach the root.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let depth = source.path.trim_end_matches("/mod.rs").split('/').count() - 1;
    let mut imports = Vec::new();
    let mut chain = 0;
    for (at, word) in words(code) {
        let rest = &code[at + word.len()..];
        chain = if word == "super" { chain + 1 } else { 0 };
        if !rest.starts_with("::") || (word != "crate" && word != "super") {
            continue;
        }
        let rest = at + word.len() + 2;
        let named = if code[rest..].starts_with('{') {
            group(code, rest)
        } else {
            Vec::new()
        };
        let named = if named.is_empty() {
            vec![first_word(&code[rest..])]
        } else {
            named
        };
        let known = |name: &String| ROWS.iter().any(|row| row.contains(&name.as_str()));
        match word {
            "crate" => imports.extend(named.into_iter().map(|name| (at, name))),
            _ if chain >= depth => {
                imports.extend(named.into_iter().filter(known).map(|name| (at, name)));
            }
            _ => {}
        }
    }
    imports
}

fn first_word(code: &str) -> String {
    let code = code.trim_start();
    code.bytes()
        .take_while(|byte| is_word(*byte))
        .map(char::from)
        .collect()
}

/// The first word of each item of `{a::b, c}`.
fn group(code: &str, open: usize) -> Vec<String> {
    let end = closing(code, open) - 1;
    let mut names = Vec::new();
    let mut at = open + 1;
    while at < end {
        names.push(first_word(&code[at..end]));
        at = find_flat(code, at, b",").map_or(end, |comma| comma + 1);
    }
    names.retain(|name| !name.is_empty());
    names
}

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

fn layers(source: &Source, out: &mut Vec<Finding>) {
    const RULE: &str = "layers";
    let Some(module) = source.module() else {
        return;
    };
    let Some(own) = row(module) else {
        out.push(finding(
            source,
            RULE,
            0,
            format!("{module} has no row in the table"),
        ));
        return;
    };
    if own == ASSEMBLY_ROW {
        return;
    }
    for (at, name) in imports(source) {
        let fine = name == module || row(&name).is_some_and(|other| other < own);
        if !fine {
            out.push(finding(
                source,
                RULE,
                at,
                format!("{module} may not import {name}"),
            ));
        }
    }
}

fn function_length(source: &Source, out: &mut Vec<Finding>) {
    for function in functions(&source.code) {
        let length = lines(&source.raw[function.start..function.end]);
        if length > FUNCTION_LINES_MAX && !only_dispatches(&source.code, &function) {
            let what = format!("{} has {length} lines", function.name);
            out.push(finding(source, "function length", function.start, what));
        }
    }
}

/// Whether what makes a function long is one `match` whose arms are calls.
fn only_dispatches(code: &str, function: &Function<'_>) -> bool {
    let body = &code[..function.end];
    let matches = words(body)
        .into_iter()
        .filter(|(at, word)| *word == "match" && *at > function.body);
    let blocks = matches.filter_map(|(at, _)| {
        let open = find_flat(body, at, b"{")?;
        Some((open, closing(body, open)))
    });
    let Some((open, end)) = blocks.max_by_key(|(open, end)| end - open) else {
        return false;
    };
    let outside = lines(&code[function.start..function.end]) - lines(&code[open..end]);
    outside < FUNCTION_LINES_MAX && arms_are_calls(&code[..end - 1], open + 1)
}

fn arms_are_calls(block: &str, from: usize) -> bool {
    let mut at = from;
    while let Some(arrow) = find_arrow(block, at) {
        let body = arrow + 2 + block[arrow + 2..].len() - block[arrow + 2..].trim_start().len();
        let braced = block[body..].starts_with('{');
        let end = if braced {
            closing(block, body)
        } else {
            find_flat(block, body, b",").unwrap_or(block.len())
        };
        if lines(&block[body..end]) > DISPATCH_ARM_LINES_MAX {
            return false;
        }
        at = end;
    }
    true
}

fn find_arrow(code: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at = find_flat(code, at, b"=")?;
        if code[at..].starts_with("=>") {
            return Some(at);
        }
        at += 1;
    }
}

fn file_shape(source: &Source, out: &mut Vec<Finding>) {
    let length = source.production_lines();
    if length > FILE_LINES_MAX {
        out.push(finding(
            source,
            "file length",
            0,
            format!("{length} lines without tests"),
        ));
    }
    for (index, line) in source.raw.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX && !is_text(line) {
            let (path, what) = (source.path.clone(), format!("{columns} columns"));
            out.push(Finding {
                rule: "line length",
                path,
                line: index + 1,
                what,
            });
        }
    }
    let parts = source.path.split('/').count();
    if source.path.starts_with("src/") && parts > PATH_PARTS_MAX {
        out.push(finding(
            source,
            "folder depth",
            0,
            "more than two folders below src",
        ));
    }
}

/// What only `src/shard` may contain, and what no row below it may.
fn shard_only(source: &Source, out: &mut Vec<Finding>) {
    let Some(module) = source.module() else {
        return;
    };
    for (at, word) in words(&source.code) {
        if matches!(word, "async" | "await") && row(module).is_some_and(|row| row < ASYNC_ROW) {
            out.push(finding(
                source,
                "async",
                at,
                "waiting below the row of shard",
            ));
        }
        if word == "glommio" && !source.in_shard() {
            out.push(finding(source, "glommio", at, "named outside shard"));
        }
        let now = matches!(word, "Instant" | "SystemTime")
            && source.code[at + word.len()..].starts_with("::now");
        if now && !source.in_shard() {
            out.push(finding(source, "clock", at, "read outside shard"));
        }
        let may_be_unsafe = source.in_shard() || source.path == PREFETCH;
        if word == "unsafe" && !may_be_unsafe {
            out.push(finding(source, "unsafe", at, "outside shard"));
        }
        if word == "unsafe" && may_be_unsafe && !has_safety(source, at) {
            out.push(finding(
                source,
                "unsafe",
                at,
                "without a `// SAFETY:` comment",
            ));
        }
    }
}

/// Whether the statement at `at`, or the comment right above it, says why it is sound.
fn has_safety(source: &Source, at: usize) -> bool {
    let says = |line: &str| line.contains("SAFETY:") || line.contains("# Safety");
    let line = source.line_at(at);
    let code: Vec<&str> = source.code.lines().take(line).collect();
    let comments: Vec<&str> = source.comments.lines().take(line).collect();
    if comments.last().is_some_and(|line| says(line)) {
        return true;
    }
    for (code, comment) in code.iter().zip(&comments).rev().skip(1) {
        if says(comment) {
            return true;
        }
        let code = code.trim();
        let ended = code.ends_with([';', '{', '}', ',']) && !code.starts_with('#');
        if ended || (code.is_empty() && comment.trim().is_empty()) {
            return false;
        }
    }
    false
}

fn names(source: &Source, out: &mut Vec<Finding>) {
    const RULE: &str = "names";
    let stem = source
        .path
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".rs");
    let words = words(&source.code);
    let declared = words.windows(2).filter_map(|pair| {
        let [(start, kind), (at, name)] = *pair else {
            return None;
        };
        let kinds = ["fn", "struct", "enum", "trait", "mod", "type", "union"];
        let next = source.code[start + kind.len()..at].trim().is_empty();
        (next && kinds.contains(&kind)).then_some((kind, (at, name)))
    });
    for (kind, (at, name)) in declared.chain([("file", (0, stem))]) {
        if let Some(word) = refused_word(name) {
            out.push(finding(source, RULE, at, format!("{name} says {word}")));
        }
        let prefix = FUNCTION_PREFIXES_REFUSED
            .iter()
            .find(|prefix| name.starts_with(**prefix));
        if let (Some(prefix), "fn") = (prefix, kind) {
            out.push(finding(
                source,
                RULE,
                at,
                format!("{name} starts with {prefix}"),
            ));
        }
    }
}

/// The refused word that a CamelCase or snake_case name is made with.
fn refused_word(name: &str) -> Option<&'static str> {
    let mut snake = String::new();
    for char in name.chars() {
        if char.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(char.to_ascii_lowercase());
    }
    let refused = |word: &str| {
        NAME_WORDS_REFUSED
            .iter()
            .copied()
            .find(|refused| *refused == word)
    };
    snake.split('_').find_map(refused)
}

fn unfinished(source: &Source, out: &mut Vec<Finding>) {
    const RULE: &str = "unfinished";
    for (at, word) in words(&source.comments) {
        if UNFINISHED.contains(&word) {
            out.push(finding(source, RULE, at, word));
        }
    }
    for mark in ["todo!(", "unimplemented!(", "#[ignore", "allow(dead_code)"] {
        for (at, _) in source.code.match_indices(mark) {
            out.push(finding(source, RULE, at, mark));
        }
    }
}

fn sleeping_tests(source: &Source, out: &mut Vec<Finding>) {
    for (at, word) in words(&source.code) {
        if word == "sleep" && source.is_test_at(at) {
            out.push(finding(
                source,
                "sleep",
                at,
                "a test waits for time instead of an event",
            ));
        }
    }
}

fn totals(sources: &[Source], out: &mut Vec<Finding>) {
    let whole = |rule, what| Finding {
        rule,
        path: "src".to_owned(),
        line: 0,
        what,
    };
    let own = sources
        .iter()
        .filter(|source| source.path.starts_with("src/"));
    let traits = own.clone().flat_map(|source| words(&source.code));
    let traits = traits.filter(|(_, word)| *word == "trait").count();
    if traits > TRAITS_MAX {
        out.push(whole("traits", format!("{traits} of {TRAITS_MAX}")));
    }
    let lines: usize = own.map(Source::production_lines).sum();
    if lines > PRODUCTION_LINES_MAX {
        out.push(whole(
            "total length",
            format!("{lines} of {PRODUCTION_LINES_MAX} lines"),
        ));
    }
}

/// Every direct dependency has a comment with its reason in the line above.
pub fn dependency_reasons(manifest: &str, out: &mut Vec<Finding>) {
    let mut above = "";
    let mut listed = false;
    for (index, line) in manifest.lines().enumerate() {
        let header = line.starts_with('[');
        if header {
            listed = line.trim_end_matches(']').ends_with("dependencies");
        }
        let entry = listed && line.starts_with(|first: char| first.is_ascii_alphanumeric());
        let table = header && line.contains("dependencies.");
        if (entry || table) && !(above.starts_with('#') && above.len() > 2) {
            let (path, what) = ("Cargo.toml".to_owned(), format!("no reason above: {line}"));
            out.push(Finding {
                rule: "dependencies",
                path,
                line: index + 1,
                what,
            });
        }
        above = line;
    }
}

pub fn findings(sources: &[Source], manifest: &str) -> Vec<Finding> {
    let mut out = Vec::new();
    for source in sources {
        layers(source, &mut out);
        function_length(source, &mut out);
        file_shape(source, &mut out);
        shard_only(source, &mut out);
        names(source, &mut out);
        unfinished(source, &mut out);
        sleeping_tests(source, &mut out);
    }
    totals(sources, &mut out);
    dependency_reasons(manifest, &mut out);
    out
}

/// A line that is long only because of a string in it: rustfmt leaves those, and breaking up bytes
/// that were captured from a peer would hide what they are.
fn is_text(line: &str) -> bool {
    let (first, last) = (line.find('"'), line.rfind('"'));
    let code = line.trim_start();
    !code.starts_with("//")
        && first.is_some_and(|at| at < COLUMNS_MAX)
        && last > Some(COLUMNS_MAX - 2)
}
