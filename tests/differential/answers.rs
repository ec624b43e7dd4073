//! The same requests to the reference's servers and to OrbitMQ: the answers must be equal, but for
//! what `known.toml` lists with a reason.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::thread;

use crate::known::{Difference, judge};
use crate::script::{Case, UNSETTLED, play};
use crate::shape::Leaves;
use crate::{brokers, cases, java};

const CASES_MIN: usize = 250;

/// The script is about what the reference does: it has to get that far.
fn check_reference(case: &Case, theirs: &Leaves) {
    let silent = theirs.get("code").is_some_and(|code| code == "silent");
    assert!(
        !silent || case.silent,
        "the reference does not answer: {}",
        case.name
    );
    let unsettled = theirs.get(UNSETTLED);
    assert!(
        unsettled.is_none(),
        "{}: never {unsettled:?}, but {theirs:?}",
        case.name
    );
}

/// Where codes differ, all that comes with a code does, and is not told.
fn compare(case: &Case, theirs: &Leaves, ours: &Leaves) -> Vec<Difference> {
    let difference = |field: &str, told: &str| Difference {
        case: case.name,
        field: told.to_owned(),
        theirs: theirs.get(field).cloned(),
        ours: ours.get(field).cloned(),
    };
    if theirs.get("code") != ours.get("code") {
        let remark = |leaves: &Leaves| {
            let part = |name: &str| leaves.get(name).cloned().unwrap_or_default();
            Some(format!("{} {}", part("code"), part("remark")))
        };
        return vec![Difference {
            theirs: remark(theirs),
            ours: remark(ours),
            ..difference("code", "code")
        }];
    }
    let fields: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let differs = |field: &&String| theirs.get(*field) != ours.get(*field);
    fields
        .into_iter()
        .filter(differs)
        .map(
            |field| match (field.as_str(), theirs.get(field), ours.get(field)) {
                // Saying something else is one thing, saying something or nothing another.
                ("remark", Some(_), None) => difference(field, "remark.missing"),
                ("remark", None, Some(_)) => difference(field, "remark.added"),
                _ => difference(field, field),
            },
        )
        .collect()
}

#[test]
fn answers_are_those_of_the_reference() {
    if java::tools().is_none() {
        return;
    }
    let script = cases::script();
    let mut names = HashSet::new();
    for case in &script {
        assert!(
            names.insert(case.name),
            "two cases are called {}",
            case.name
        );
    }
    assert!(script.len() >= CASES_MIN, "{} cases", script.len());
    let directory = tempfile::Builder::new()
        .prefix("answers-")
        .tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))
        .expect("a directory");
    let (reference, orbit) = brokers::start(&java::jars(), directory.path());
    let (theirs, ours) = thread::scope(|scope| {
        let theirs = scope.spawn(|| play(&reference, &script));
        let ours = play(&orbit, &script);
        (theirs.join().expect("the script ends"), ours)
    });
    for (case, theirs) in script.iter().zip(&theirs) {
        check_reference(case, theirs);
    }
    let answers = script.iter().zip(theirs.iter().zip(&ours));
    let differences: Vec<Difference> = answers
        .flat_map(|(case, (theirs, ours))| compare(case, theirs, ours))
        .collect();
    let wrong = judge(&differences);
    println!("{} cases, {} differences", script.len(), differences.len());
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
