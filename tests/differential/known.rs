//! Differences that are known, each with its reason: `known.toml`.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

/// One leaf of one case that is not the same.
#[derive(Clone, Debug)]
pub struct Difference {
    pub case: &'static str,
    pub field: String,
    pub theirs: Option<String>,
    pub ours: Option<String>,
}

#[derive(Deserialize)]
struct File {
    known: Vec<Known>,
}

/// Every case named here differs in every field named here. A `*` stands for any text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    cases: Vec<String>,
    fields: Vec<String>,
    reason: String,
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            let ends = (0..=rest.len()).filter(|at| rest.is_char_boundary(*at));
            ends.into_iter().any(|at| matches(after, &rest[at..]))
        }),
    }
}

/// What is wrong with the list: differences that are not in it, entries that do not occur.
pub fn judge(differences: &[Difference]) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/known.toml");
    let text = std::fs::read_to_string(&path).expect("the list is there");
    let file: File = toml::from_str(&text).unwrap_or_else(|error| panic!("known.toml: {error}"));
    let mut listed = BTreeSet::new();
    let mut wrong = Vec::new();
    for known in &file.known {
        if known.reason.trim().is_empty() {
            wrong.push(format!("known.toml: {:?} without a reason", known.cases));
        }
        for case in &known.cases {
            for field in &known.fields {
                let occurs = differences
                    .iter()
                    .enumerate()
                    .filter(|(_, found)| matches(case, found.case) && matches(field, &found.field));
                let found: Vec<usize> = occurs.map(|(at, _)| at).collect();
                if found.is_empty() {
                    wrong.push(format!("known.toml: {case}: {field} is the same by now"));
                }
                listed.extend(found);
            }
        }
    }
    let unlisted = differences
        .iter()
        .enumerate()
        .filter(|(at, _)| !listed.contains(at));
    wrong.extend(unlisted.map(|(_, found)| {
        let shown = |value: &Option<String>| value.as_deref().unwrap_or("(none)").to_owned();
        let (theirs, ours) = (shown(&found.theirs), shown(&found.ours));
        format!(
            "{}: {}\n    reference: {theirs}\n    orbitmq:   {ours}",
            found.case, found.field
        )
    }));
    wrong
}

#[test]
fn patterns() {
    let check = |pattern: &str, text: &str, expected: bool| {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    };
    check("a", "a", true);
    check("a", "ab", false);
    check("*", "", true);
    check("a*", "ab", true);
    check("*.c", "a.b.c", true);
    check("a*c*e", "abcde", true);
    check("a*c*e", "abde", false);
}
