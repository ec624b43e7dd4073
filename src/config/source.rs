//! Reading the texts a configuration is written in, into `(key, value, line)`.
//!
//! A file whose name ends in `.toml` is TOML with all keys at the top level; any other file is
//! properties, as RocketMQ's `broker.conf` (`java.util.Properties.load`). Values stay texts here;
//! `value.rs` knows their forms.

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin, Problem};

/// One `key = value` of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub key: String,
    pub value: String,
    /// Counted from 1.
    pub line: usize,
}

/// The entries of a file, in the order in which they stand there.
pub(super) fn entries(path: &str, text: &str) -> Result<Vec<Entry>, ConfigError> {
    if path.ends_with(".toml") {
        toml_entries(path, text)
    } else {
        properties(path, text)
    }
}

fn fault(path: &str, line: usize, why: String) -> ConfigError {
    let origin = Origin::File {
        path: path.to_owned(),
        line,
    };
    ConfigError {
        origin,
        problem: Problem::Syntax(why),
    }
}

fn line_of(text: &str, byte: usize) -> usize {
    1 + text
        .bytes()
        .take(byte)
        .filter(|byte| *byte == b'\n')
        .count()
}

fn toml_entries(path: &str, text: &str) -> Result<Vec<Entry>, ConfigError> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = line_of(text, error.span().map_or(0, |span| span.start));
        fault(path, line, format!("not TOML: {}", error.message()))
    })?;
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line_of(text, key.span().start);
        let Some(value) = toml_text(value.get_ref()) else {
            let why = format!(
                "{}: expected one value; keys stand at the top level",
                key.get_ref()
            );
            return Err(fault(path, line, why));
        };
        entries.push(Entry {
            key: key.get_ref().to_string(),
            value,
            line,
        });
    }
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

/// The text of a TOML value; an array of addresses or core numbers becomes a list.
fn toml_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Array(items) => {
            let strings = items.iter().any(|item| item.get_ref().is_str());
            let items: Option<Vec<String>> =
                items.iter().map(|item| toml_text(item.get_ref())).collect();
            items.map(|items| items.join(if strings { ";" } else { "," }))
        }
        _ => None,
    }
}

/// Reads `java.util.Properties` text: comments with `#` or `!`, `=`, `:` or a space between key
/// and value, a backslash that continues a line or escapes a character.
fn properties(path: &str, text: &str) -> Result<Vec<Entry>, ConfigError> {
    let mut entries = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let mut logical = first.trim_start().to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while continues(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(next.trim_start());
        }
        let line = index + 1;
        let (key, value) = split(&logical);
        let unescape = |raw: &str| {
            unescaped(raw).ok_or_else(|| fault(path, line, format!("`{raw}`: bad \\u escape")))
        };
        let (key, value) = (unescape(key)?, unescape(value)?.trim().to_owned());
        entries.push(Entry { key, value, line });
    }
    Ok(entries)
}

/// Whether a line ends in an odd number of backslashes.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Splits at the first separator that no backslash stands before.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    for (at, char) in line.char_indices() {
        if !escaped && (char == '=' || char == ':' || char.is_whitespace()) {
            let rest = line[at..].trim_start();
            let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
            return (&line[..at], rest.trim_start());
        }
        escaped = char == '\\' && !escaped;
    }
    (line, "")
}

fn unescaped(raw: &str) -> Option<String> {
    let mut text = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            text.push(char);
            continue;
        }
        match chars.next() {
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('f') => text.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16)
                    .ok()
                    .filter(|_| digits.len() == 4)?;
                text.push(char::from_u32(code)?);
            }
            Some(other) => text.push(other),
            None => {}
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &str) {
        let found = match entries(path, text) {
            Ok(entries) => {
                let shown = entries
                    .iter()
                    .map(|e| format!("{}|{}|{}", e.line, e.key, e.value));
                shown.collect::<Vec<_>>().join("\n")
            }
            Err(error) => error.to_string(),
        };
        assert!(found.starts_with(expected), "{text:?} gave {found:?}");
        assert_eq!(
            found.is_empty(),
            expected.is_empty(),
            "{text:?} gave {found:?}"
        );
    }

    #[test]
    fn properties_are_read_as_java_reads_them() {
        check("b.conf", "", "");
        check("b.conf", "# x\n! y\n\n a = b \n", "4|a|b");
        check("b.conf", "a:b\nc d\ne\n", "1|a|b\n2|c|d\n3|e|");
        check("b.conf", "a=b\\\n  c\nd=e", "1|a|bc\n3|d|e");
        check("b.conf", "a\\=b=c=d", "1|a=b|c=d");
        check("b.conf", "p=C\\:\\\\x", "1|p|C:\\x");
        check("b.conf", "p=\\u00e9\\t1", "1|p|é\t1");
        check("b.conf", "p=\\u00", "b.conf:1: `\\u00`: bad \\u escape");
        check("b.conf", "a=b\\", "1|a|b");
    }

    #[test]
    fn toml_is_read_with_its_lines() {
        check(
            "b.toml",
            "# x\na = 1\nb = \"two\"\nc = true\n",
            "2|a|1\n3|b|two\n4|c|true",
        );
        check(
            "b.toml",
            "n = [\"a:1\", \"b:2\"]\nc = [0, 1]",
            "1|n|a:1;b:2\n2|c|0,1",
        );
        check("b.toml", "size = 1_000", "1|size|1000");
        check("b.toml", "\na = ", "b.toml:2: not TOML: ");
        check(
            "b.toml",
            "a = 1\n[broker]\nb = 2\n",
            "b.toml:2: broker: expected one value",
        );
        check("b.toml", "a = 1\na = 2\n", "b.toml:2: not TOML: ");
    }
}
