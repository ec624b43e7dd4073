//! SQL92 expressions on message properties.
//!
//! Parsed once for a subscription, then asked for each message. Source: `SqlFilter`; spec page
//! semantics §4.

mod lexer;
mod parser;
mod tree;
mod value;

use std::sync::Arc;

pub use parser::{DEPTH_MAX, EXPRESSION_BYTES_MAX, PROPERTIES_MAX, SqlError};

/// A parsed expression; copies share it.
#[derive(Clone, Debug)]
pub struct SqlFilter {
    expression: Arc<str>,
    tree: Arc<tree::Tree>,
}

impl SqlFilter {
    /// # Errors
    /// The place and the reason, in words for whoever wrote the expression.
    pub fn parse(expression: &str) -> Result<Self, SqlError> {
        let tree = parser::parse(expression)?;
        Ok(SqlFilter {
            expression: expression.into(),
            tree: Arc::new(tree),
        })
    }

    /// Whether a message with these properties, names and values, is wanted.
    pub fn matches<'a>(&self, properties: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> bool {
        self.tree.matches(properties)
    }

    pub fn expression(&self) -> &str {
        &self.expression
    }
}

impl PartialEq for SqlFilter {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression
    }
}

impl Eq for SqlFilter {}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: [(&str, &str); 5] = [
        ("a", "5"),
        ("b", "text"),
        ("c", "true"),
        ("d", "1.5"),
        ("e", "it's"),
    ];

    fn matches(expression: &str) -> bool {
        let filter = SqlFilter::parse(expression);
        filter
            .unwrap_or_else(|error| panic!("{expression}: {error}"))
            .matches(
                MESSAGE
                    .iter()
                    .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
            )
    }

    #[test]
    fn what_holds() {
        for expression in [
            "a = 5",
            "a > 4 AND a < 6",
            "a between 5 and 5",
            "a NOT BETWEEN 6 AND 9",
            "5 = a",
            "-a IS NULL",
            "a > -1",
            "a >= +5",
            "b = 'text'",
            "e = 'it''s'",
            "b <> 'other'",
            "b IN ('x', 'text')",
            "b NOT IN ('x', 'y')",
            "c = TRUE",
            "NOT (a = 6)",
            "d = 1.5",
            "d > 1.0",
            "none IS NULL",
            "a IS NOT NULL",
            "none = nothing",
            "b CONTAINS 'ex' AND b STARTSWITH 'te' AND b ENDSWITH 'xt'",
            "b NOT CONTAINS 'z'",
            "a = 6 OR b = 'text'",
            "none = 1 OR a = 5",
            "a = 5 trailing words do not count",
            "TRUE",
            "NULL IS NULL",
            "1 > 0",
        ] {
            assert!(matches(expression), "{expression}");
        }
    }

    #[test]
    fn what_does_not_hold_or_is_null_or_an_error() {
        for expression in [
            "a",
            "c",
            "none",
            "NOT none",
            "none = 1",
            "none <> 1",
            "none > 1",
            "none BETWEEN 1 AND 2",
            "none IN ('a')",
            "none NOT IN ('a')",
            "none NOT CONTAINS 'a'",
            "b CONTAINS ''",
            "b NOT CONTAINS ''",
            "a = 5 AND none = 1",
            "b > 5",
            "b = 5",
            "b = 5 OR a = 5",
            "TRUE = c",
            "a < b",
            "FALSE",
            "a = 5.5",
            "d > 1",
            "a LIKE 'x%' OR TRUE",
        ] {
            assert!(!matches(expression), "{expression}");
        }
        assert!(matches("a = 5 OR b = 5"), "an error that is not reached");
    }

    #[test]
    fn what_is_refused() {
        for (expression, at) in [
            ("", 0),
            ("a >", 3),
            ("a > 'x'", 7),
            ("a > TRUE", 8),
            ("a = NULL", 8),
            ("TRUE = 1", 8),
            ("1", 1),
            ("'text'", 6),
            ("-a", 2),
            ("a BETWEEN 2 AND 1", 17),
            ("a IN (1)", 6),
            ("5 IN ('a')", 10),
            ("a IN ()", 6),
            ("a = 0.0", 4),
            ("a = 99999999999999999999", 4),
            ("(a = 1", 6),
            ("a = 'x", 4),
            ("a NOT 5", 7),
            ("a > 1 > 2", 9),
        ] {
            let error = SqlFilter::parse(expression).expect_err(expression);
            assert_eq!(error.at, at, "{expression}: {error}");
        }
    }

    #[test]
    fn limits() {
        let deep = |depth| format!("{}a = 1{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(SqlFilter::parse(&deep(DEPTH_MAX - 1)).err(), None);
        assert!(SqlFilter::parse(&deep(DEPTH_MAX)).is_err());
        assert!(SqlFilter::parse(&"-".repeat(100_000)).is_err());
        assert!(SqlFilter::parse(&" ".repeat(EXPRESSION_BYTES_MAX + 1)).is_err());
        assert!(SqlFilter::parse(&format!("a{}", " = a".repeat(100))).is_ok());
        assert!(SqlFilter::parse(&format!("a{}", " = a".repeat(200))).is_err());
        let long = format!("a = 5{}", " OR a = 1".repeat(7000));
        assert!(matches(&long));
        let many: Vec<_> = (0..=PROPERTIES_MAX)
            .map(|n| format!("p{n} IS NULL"))
            .collect();
        assert!(SqlFilter::parse(&many[1..].join(" OR ")).is_ok());
        assert!(SqlFilter::parse(&many.join(" OR ")).is_err());
    }
}
