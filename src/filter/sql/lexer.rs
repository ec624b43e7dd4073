//! Words of a SQL92 expression.
//!
//! As the reference's generated lexer: the longest word wins, keywords in any case, a line comment
//! ends with a line break or is none, and a number may touch the word behind it (`007` is three
//! numbers, `0L` a number and a name). Source: `SelectorParserTokenManager`.

use std::ops::Range;

/// One word. Texts borrow from the expression.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Token<'a> {
    End,
    Not,
    And,
    Or,
    Between,
    In,
    True,
    False,
    Null,
    Is,
    Contains,
    StartsWith,
    EndsWith,
    /// Decimal digits, an `L` behind them taken off.
    Integer(&'a str),
    Float(&'a str),
    /// What stands between the quotes, quotes inside still doubled.
    Text(&'a str),
    Name(&'a str),
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Open,
    Comma,
    Close,
    Plus,
    Minus,
}

const KEYWORDS: [(&str, Token<'static>); 12] = [
    ("NOT", Token::Not),
    ("AND", Token::And),
    ("OR", Token::Or),
    ("BETWEEN", Token::Between),
    ("IN", Token::In),
    ("TRUE", Token::True),
    ("FALSE", Token::False),
    ("NULL", Token::Null),
    ("IS", Token::Is),
    ("CONTAINS", Token::Contains),
    ("STARTSWITH", Token::StartsWith),
    ("ENDSWITH", Token::EndsWith),
];

/// Longer ones first where one begins another.
const SIGNS: [(&str, Token<'static>); 11] = [
    ("<>", Token::NotEqual),
    (">=", Token::GreaterOrEqual),
    ("<=", Token::LessOrEqual),
    ("=", Token::Equal),
    (">", Token::Greater),
    ("<", Token::Less),
    ("(", Token::Open),
    (",", Token::Comma),
    (")", Token::Close),
    ("+", Token::Plus),
    ("-", Token::Minus),
];

/// The next word at or behind byte `at`, and where it lies. `Err` is where no word can begin.
pub fn next(expression: &str, at: usize) -> Result<(Token<'_>, Range<usize>), usize> {
    let start = at + skipped(&expression[at..]);
    let rest = &expression[start..];
    let Some(first) = rest.bytes().next() else {
        return Ok((Token::End, start..start));
    };
    let (token, len) = match first {
        b'\'' => text(rest).ok_or(start)?,
        b'0'..=b'9' | b'.' => number(rest).ok_or(start)?,
        b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' => word(rest),
        _ => {
            let sign = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign));
            let (sign, token) = sign.ok_or(start)?;
            (*token, sign.len())
        }
    };
    Ok((token, start..start + len))
}

/// Bytes of blanks and comments at the start.
fn skipped(text: &str) -> usize {
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0C']);
        let comment = line_comment(trimmed).or_else(|| block_comment(trimmed));
        let after = &trimmed[comment.unwrap_or(0)..];
        if comment.is_none() {
            return text.len() - after.len();
        }
        rest = after;
    }
}

fn line_comment(text: &str) -> Option<usize> {
    let inside = text.strip_prefix("--")?;
    inside.find(['\n', '\r']).map(|end| 2 + end + 1)
}

fn block_comment(text: &str) -> Option<usize> {
    let inside = text.strip_prefix("/*")?;
    inside.find("*/").map(|end| 2 + end + 2)
}

fn text(rest: &str) -> Option<(Token<'_>, usize)> {
    let mut at = 1;
    loop {
        at += rest[at..].find('\'')?;
        if !rest[at + 1..].starts_with('\'') {
            return Some((Token::Text(&rest[1..at]), at + 1));
        }
        at += 2;
    }
}

fn word(rest: &str) -> (Token<'_>, usize) {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    let len = rest.find(|c| !inside(c)).unwrap_or(rest.len());
    let word = &rest[..len];
    let keyword = KEYWORDS
        .iter()
        .find(|(keyword, _)| keyword.eq_ignore_ascii_case(word));
    (keyword.map_or(Token::Name(word), |(_, token)| *token), len)
}

/// `None` for a dot without digits.
fn number(rest: &str) -> Option<(Token<'_>, usize)> {
    let whole = digits(rest);
    let fraction = rest[whole..].starts_with('.').then(|| {
        let digits = digits(&rest[whole + 1..]);
        1 + digits
    });
    match fraction {
        Some(len) if whole > 0 || len > 1 => {
            let len = whole + len;
            let len = len + exponent(&rest[len..]).unwrap_or(0);
            return Some((Token::Float(&rest[..len]), len));
        }
        Some(_) => return None,
        None => {}
    }
    if let Some(exponent) = exponent(&rest[whole..]) {
        let len = whole + exponent;
        return Some((Token::Float(&rest[..len]), len));
    }
    // A zero stands alone.
    if rest.starts_with('0') {
        return Some((Token::Integer("0"), 1));
    }
    let long = rest[whole..].starts_with(['l', 'L']);
    Some((Token::Integer(&rest[..whole]), whole + usize::from(long)))
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Length of `e`, a sign and digits.
fn exponent(text: &str) -> Option<usize> {
    let after = text.strip_prefix(['e', 'E'])?;
    let sign = usize::from(after.starts_with(['+', '-']));
    match digits(&after[sign..]) {
        0 => None,
        digits => Some(1 + sign + digits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(expression: &str) -> Result<Vec<Token<'_>>, usize> {
        let (mut tokens, mut at) = (Vec::new(), 0);
        loop {
            match next(expression, at)? {
                (Token::End, _) => return Ok(tokens),
                (token, range) => {
                    tokens.push(token);
                    at = range.end;
                }
            }
        }
    }

    #[test]
    fn words() {
        let tokens = all("a_1 >= 10L AND $b\tnot In ('x''y', '')").unwrap();
        let expected = [
            Token::Name("a_1"),
            Token::GreaterOrEqual,
            Token::Integer("10"),
            Token::And,
            Token::Name("$b"),
            Token::Not,
            Token::In,
            Token::Open,
            Token::Text("x''y"),
            Token::Comma,
            Token::Text(""),
            Token::Close,
        ];
        assert_eq!(tokens, expected);
    }

    #[test]
    fn numbers() {
        for (text, expected) in [
            ("0", vec![Token::Integer("0")]),
            ("0L", vec![Token::Integer("0"), Token::Name("L")]),
            (
                "007",
                vec![
                    Token::Integer("0"),
                    Token::Integer("0"),
                    Token::Integer("7"),
                ],
            ),
            ("12l", vec![Token::Integer("12")]),
            ("1.5e-3", vec![Token::Float("1.5e-3")]),
            ("00.5", vec![Token::Float("00.5")]),
            ("5.", vec![Token::Float("5.")]),
            (".5", vec![Token::Float(".5")]),
            ("1e5x", vec![Token::Float("1e5"), Token::Name("x")]),
            ("1e", vec![Token::Integer("1"), Token::Name("e")]),
            ("1.5L", vec![Token::Float("1.5"), Token::Name("L")]),
            ("-1", vec![Token::Minus, Token::Integer("1")]),
        ] {
            assert_eq!(all(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn comments() {
        assert_eq!(all("a --b\n c /* d * e **/ f"), all("a c f"));
        assert_eq!(
            all("--x"),
            all("- - x"),
            "a line without an end is no comment"
        );
        assert_eq!(all("a /* b"), Err(2));
    }

    #[test]
    fn where_no_word_begins() {
        for (text, at) in [
            ("a ! b", 2),
            ("'abc", 0),
            ("a = 'b", 4),
            (".", 0),
            ("ä", 0),
            ("a;", 1),
        ] {
            assert_eq!(all(text), Err(at), "{text}");
        }
    }
}
