//! Reads Rust as text: what is code, what is comment, where words, functions and tests are.

/// One Rust file.
pub struct Source {
    pub path: String,
    pub raw: String,
    /// The text with comments and the inside of literals blanked, byte for byte.
    pub code: String,
    /// The text with all but comments blanked.
    pub comments: String,
    /// Byte ranges of items under `#[cfg(test)]`.
    tests: Vec<(usize, usize)>,
}

impl Source {
    pub fn new(path: &str, raw: &str) -> Source {
        let (code, comments) = blank(raw);
        let tests = test_items(&code);
        Source {
            path: path.to_owned(),
            raw: raw.to_owned(),
            code,
            comments,
            tests,
        }
    }

    pub fn line_at(&self, at: usize) -> usize {
        line_at(&self.raw, at)
    }

    /// The folder or file below `src/`: the module of the layer table.
    pub fn module(&self) -> Option<&str> {
        let part = self.path.strip_prefix("src/")?.split('/').next()?;
        Some(part.strip_suffix(".rs").unwrap_or(part))
    }

    pub fn in_shard(&self) -> bool {
        self.module() == Some("shard")
    }

    /// Whether all of the file is a test: it stands in `tests/`, or is a module's `tests.rs`.
    fn is_test(&self) -> bool {
        !self.path.starts_with("src/") || self.path.ends_with("/tests.rs")
    }

    pub fn is_test_at(&self, at: usize) -> bool {
        self.is_test()
            || self
                .tests
                .iter()
                .any(|(from, to)| (*from..*to).contains(&at))
    }

    pub fn production_lines(&self) -> usize {
        if self.is_test() {
            return 0;
        }
        let tests = self
            .tests
            .iter()
            .map(|(from, to)| lines(&self.raw[*from..*to]));
        self.raw.lines().count().saturating_sub(tests.sum())
    }
}

fn line_at(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}

pub fn lines(text: &str) -> usize {
    1 + text
        .trim_end()
        .bytes()
        .filter(|byte| *byte == b'\n')
        .count()
}

/// Splits a file into code and comments, each with everything else blanked.
fn blank(raw: &str) -> (String, String) {
    let bytes = raw.as_bytes();
    let (mut code, mut comments) = (bytes.to_vec(), bytes.to_vec());
    let wipe = |text: &mut [u8]| {
        text.iter_mut()
            .filter(|byte| **byte != b'\n')
            .for_each(|byte| *byte = b' ');
    };
    let mut at = 0;
    while at < bytes.len() {
        let (end, comment) = piece(bytes, at);
        if comment {
            wipe(&mut code[at..end]);
        } else {
            wipe(&mut comments[at..end]);
            // The quotes of a literal stay, so that an expression does not vanish.
            if end - at > 1 {
                wipe(&mut code[at + 1..end - 1]);
            }
        }
        at = end;
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(code), text(comments))
}

/// The end of the comment, literal or single byte that starts at `at`, and whether it is a comment.
fn piece(bytes: &[u8], at: usize) -> (usize, bool) {
    let rest = &bytes[at..];
    let after_word = at > 0 && is_word(bytes[at - 1]);
    if rest.starts_with(b"//") {
        let end = rest.iter().position(|byte| *byte == b'\n');
        return (at + end.unwrap_or(rest.len()), true);
    }
    if rest.starts_with(b"/*") {
        return (at + block_comment(rest), true);
    }
    if rest[0] == b'"' {
        return (at + quoted(rest), false);
    }
    if rest[0] == b'r' && (!after_word || matches!(bytes[at - 1], b'b' | b'c')) {
        let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
        if rest.get(1 + hashes) == Some(&b'"') {
            return (at + raw_string(rest, hashes), false);
        }
    }
    if rest[0] == b'\'' {
        return (at + char_literal(rest), false);
    }
    (at + 1, false)
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at.min(rest.len())
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_string(rest: &[u8], hashes: usize) -> usize {
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    let body = 2 + hashes;
    let found = rest[body..]
        .windows(end.len())
        .position(|window| window == end);
    found.map_or(rest.len(), |found| body + found + end.len())
}

/// The length of a char literal, or 1 for the quote of a lifetime.
fn char_literal(rest: &[u8]) -> usize {
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(12)]).into_owned();
    let Some(first) = text.chars().next() else {
        return 1;
    };
    if first == '\\' {
        let end = rest.iter().skip(3).position(|byte| *byte == b'\'');
        return end.map_or(1, |end| end + 4);
    }
    if text[first.len_utf8()..].starts_with('\'') {
        first.len_utf8() + 2
    } else {
        1
    }
}

pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Every word of blanked code with the place it starts.
pub fn words(code: &str) -> Vec<(usize, &str)> {
    let bytes = code.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = at
            + bytes[at..]
                .iter()
                .take_while(|byte| is_word(**byte))
                .count();
        if end > at {
            words.push((at, &code[at..end]));
        }
        at = end.max(at) + 1;
    }
    words
}

/// The place after the bracket that closes the one at `open`.
pub fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// The first of `wanted` at or after `from` that stands in no bracket.
pub fn find_flat(code: &str, from: usize, wanted: &[u8]) -> Option<usize> {
    let bytes = code.as_bytes();
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            byte if wanted.contains(&byte) => return Some(at),
            b'(' | b'[' | b'{' => at = closing(code, at),
            b')' | b']' | b'}' => return None,
            _ => at += 1,
        }
    }
    None
}

fn test_items(code: &str) -> Vec<(usize, usize)> {
    const MARK: &str = "#[cfg(test)]";
    let mut items = Vec::new();
    for (at, _) in code.match_indices(MARK) {
        let end = find_flat(code, at + MARK.len(), b"{;").map_or(code.len(), |end| {
            if code.as_bytes()[end] == b'{' {
                closing(code, end)
            } else {
                end + 1
            }
        });
        items.push((at, end));
    }
    items
}

pub struct Function<'a> {
    pub name: &'a str,
    pub start: usize,
    pub body: usize,
    pub end: usize,
}

pub fn functions(code: &str) -> Vec<Function<'_>> {
    let words = words(code);
    let mut functions = Vec::new();
    for pair in words.windows(2) {
        let [(start, "fn"), (at, name)] = *pair else {
            continue;
        };
        // A function pointer type has no name, a declaration in a trait no body.
        if !code[start + 2..at].trim().is_empty() {
            continue;
        }
        if let Some(body) = find_flat(code, at, b"{;").filter(|at| code.as_bytes()[*at] == b'{') {
            functions.push(Function {
                name,
                start,
                body,
                end: closing(code, body),
            });
        }
    }
    functions
}
