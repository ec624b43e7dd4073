//! SQL92 expressions: generated ones, on generated properties, against the reference's parser.

use orbitmq::filter::sql::SqlFilter;
use orbitmq::message::properties;

use crate::java;

const EXPRESSIONS: usize = 6000;
const SETS: usize = 8;
const NAMES: [&str; 5] = ["a", "b", "TAGS", "_x$1", "none"];
const VALUES: [&str; 22] = [
    "5",
    "-5",
    "05",
    "+5",
    "5.0",
    "1e1",
    " 7 ",
    "9999999999",
    "true",
    "TRUE",
    "no",
    "text",
    "te",
    "it's",
    "x",
    "NaN",
    "-0.0",
    "0",
    "Infinity",
    "ü",
    "1d",
    ".5",
];
const LITERALS: [&str; 30] = [
    "5",
    "-5",
    "+5",
    "0",
    "10L",
    "9999999999",
    "99999999999999999999",
    "5.0",
    ".5",
    "1e1",
    "0.0",
    "'5'",
    "'text'",
    "'te'",
    "''",
    "'it''s'",
    "'ü'",
    "TRUE",
    "false",
    "NULL",
    "1.",
    "007",
    "0L",
    "1.5L",
    "2147483647",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "-0",
    "1E400",
];
const COMPARISONS: [&str; 7] = ["=", "<>", "<", "<=", ">", ">=", "= "];
const NOISE: [&str; 14] = [
    "(", ")", "NOT", "AND", "IS NULL", ",", "'", "--c\\n", "/* c */", "!", "LIKE", "+", "-", "IN",
];

/// Xorshift: the same expressions in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len())]
    }
}

fn operand(dice: &mut Dice, depth: usize) -> String {
    match dice.below(12) {
        0..=5 => dice.pick(&NAMES).to_owned(),
        6..=9 => dice.pick(&LITERALS).to_owned(),
        10 => format!("-{}", operand(dice, depth)),
        _ if depth > 0 => format!("({})", condition(dice, depth - 1)),
        _ => dice.pick(&NAMES).to_owned(),
    }
}

fn condition(dice: &mut Dice, depth: usize) -> String {
    let left = operand(dice, depth);
    let not = ["", "", "NOT ", "not "][dice.below(4)];
    match dice.below(13) {
        0..=4 => format!(
            "{left} {} {}",
            dice.pick(&COMPARISONS),
            operand(dice, depth)
        ),
        5 => format!("{left} IS {not}NULL"),
        6 => {
            let (low, high) = (operand(dice, depth), operand(dice, depth));
            format!("{left} {not}BETWEEN {low} AND {high}")
        }
        7 => format!("{left} {not}in ('text', {})", dice.pick(&LITERALS)),
        8 => {
            let search = dice.pick(&["CONTAINS", "startswith", "EndsWith"]);
            format!("{left} {not}{search} {}", dice.pick(&LITERALS))
        }
        9 if depth > 0 => format!("NOT ({})", condition(dice, depth - 1)),
        10..=11 if depth > 0 => {
            let word = dice.pick(&["AND", "OR", "and", "Or"]);
            let (left, right) = (condition(dice, depth - 1), condition(dice, depth - 1));
            format!("{left} {word} {right}")
        }
        _ => left,
    }
}

/// One expression in four has something put in where it may not fit.
fn expression(dice: &mut Dice) -> String {
    let depth = dice.below(4);
    let text = condition(dice, depth);
    if dice.below(4) > 0 {
        return text;
    }
    let mut words: Vec<&str> = text.split(' ').collect();
    words.insert(dice.below(words.len() + 1), dice.pick(&NOISE));
    words.join(" ")
}

fn properties(dice: &mut Dice) -> String {
    let mut text = String::new();
    for name in &NAMES[..4] {
        if dice.below(4) > 0 {
            let value = dice.pick(&VALUES);
            text.push_str(&format!("{name}\x01{value}\x02"));
        }
    }
    text
}

fn answer(expression: &str, sets: &[String]) -> String {
    match SqlFilter::parse(&expression.replace("\\n", "\n")) {
        Err(_) => "E".to_owned(),
        Ok(filter) => {
            let matches = |set: &String| {
                if filter.matches(properties::iter(set.as_bytes())) {
                    't'
                } else {
                    'f'
                }
            };
            sets.iter().map(matches).collect()
        }
    }
}

#[test]
fn expressions_mean_what_they_mean_to_the_reference() {
    if java::tools().is_none() {
        return;
    }
    let mut dice = Dice(0x5EED);
    let cases: Vec<(String, Vec<String>)> = (0..EXPRESSIONS)
        .map(|_| {
            let sets = (0..SETS).map(|_| properties(&mut dice)).collect();
            (expression(&mut dice), sets)
        })
        .collect();
    let lines: Vec<String> = cases
        .iter()
        .map(|(expression, sets)| format!("{expression}\t{}\n", sets.join("\t")))
        .collect();
    let theirs = java::run("Sql.java", &java::jars(), &lines.concat());
    assert_eq!(theirs.len(), cases.len());
    let (mut refused, mut matched) = (0, 0);
    for ((expression, sets), theirs) in cases.iter().zip(&theirs) {
        let ours = answer(expression, sets);
        assert_eq!(ours, *theirs, "{expression}\n{sets:?}");
        refused += usize::from(ours == "E");
        matched += ours.matches('t').count();
    }
    println!("{EXPRESSIONS} expressions, {refused} refused, {matched} matches");
    assert!(
        refused > EXPRESSIONS / 20 && matched > EXPRESSIONS / 4,
        "{refused} {matched}"
    );
}
