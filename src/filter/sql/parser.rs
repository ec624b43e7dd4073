//! From words to a tree, by recursive descent.
//!
//! `OR` binds least, then `AND`, then `=`, `<>` and `IS`, then the comparisons, then `+`, `-` and
//! `NOT`. What the reference refuses when it builds its tree is refused here: a string or truth
//! value beside `<`, `NULL` beside `=`, `IN` behind anything but a property, `0.0`. Words behind a
//! whole expression do not count, as in the reference. Source: `SelectorParser`,
//! `ComparisonExpression`, `ConstantExpression`.

use std::fmt;

use super::lexer::{self, Token};
use super::tree::{Node, Order, Search, Tree};
use super::value::Value;

/// Brackets and signs inside each other; the reference's stack ends somewhere in the thousands.
pub const DEPTH_MAX: usize = 200;
/// Comparisons of comparisons without brackets, as in `a = b = c`, in the whole expression.
const CHAINED_MAX: usize = 100;
/// Bytes of an expression.
pub const EXPRESSION_BYTES_MAX: usize = 64 * 1024;
/// Different properties in one expression.
pub const PROPERTIES_MAX: usize = 1000;

/// Why an expression is refused, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SqlError {
    /// Byte of the expression.
    pub at: usize,
    pub reason: String,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.at + 1, self.reason)
    }
}

impl std::error::Error for SqlError {}

/// Parses a whole expression.
pub fn parse(expression: &str) -> Result<Tree, SqlError> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(SqlError {
            at: EXPRESSION_BYTES_MAX,
            reason: format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes"),
        });
    }
    let mut parser = Parser {
        expression,
        token: Token::End,
        at: 0,
        next: 0,
        depth: 0,
        chained: 0,
        names: Vec::new(),
    };
    parser.advance()?;
    let root = parser.either()?;
    let root = parser.truth(root)?;
    Ok(Tree {
        root,
        names: parser.names,
    })
}

struct Parser<'a> {
    expression: &'a str,
    /// The word not yet taken, where it begins and where the next may.
    token: Token<'a>,
    at: usize,
    next: usize,
    depth: usize,
    chained: usize,
    names: Vec<Box<str>>,
}

impl<'a> Parser<'a> {
    fn error(&self, reason: impl Into<String>) -> SqlError {
        SqlError {
            at: self.at,
            reason: reason.into(),
        }
    }

    fn advance(&mut self) -> Result<Token<'a>, SqlError> {
        let (token, range) = lexer::next(self.expression, self.next).map_err(|at| SqlError {
            at,
            reason: "no word of an expression begins here".to_owned(),
        })?;
        self.at = range.start;
        self.next = range.end;
        Ok(std::mem::replace(&mut self.token, token))
    }

    /// Takes the word if it comes next.
    fn take(&mut self, token: Token<'_>) -> Result<bool, SqlError> {
        let is_next = self.token == token;
        if is_next {
            self.advance()?;
        }
        Ok(is_next)
    }

    fn expect(&mut self, token: Token<'_>, name: &str) -> Result<(), SqlError> {
        match self.take(token)? {
            true => Ok(()),
            false => Err(self.error(format!("expected {name}"))),
        }
    }

    /// What can be true or false: a property is cast.
    fn truth(&self, node: Node) -> Result<Node, SqlError> {
        match node {
            Node::Property(_) => Ok(Node::Cast(Box::new(node))),
            node if node.is_truth() => Ok(node),
            _ => Err(self.error("the expression before this is neither true nor false")),
        }
    }

    fn either(&mut self) -> Result<Node, SqlError> {
        let left = self.both()?;
        if self.token != Token::Or {
            return Ok(left);
        }
        let mut sides = vec![self.truth(left)?];
        while self.take(Token::Or)? {
            let right = self.both()?;
            sides.push(self.truth(right)?);
        }
        Ok(Node::Or(sides))
    }

    fn both(&mut self) -> Result<Node, SqlError> {
        let left = self.equality()?;
        if self.token != Token::And {
            return Ok(left);
        }
        let mut sides = vec![self.truth(left)?];
        while self.take(Token::And)? {
            let right = self.equality()?;
            sides.push(self.truth(right)?);
        }
        Ok(Node::And(sides))
    }

    /// Counts what makes the tree deep without brackets: a comparison as a side of another.
    fn chain(&mut self, left: &Node) -> Result<(), SqlError> {
        let ends = matches!(
            self.token,
            Token::Close | Token::And | Token::Or | Token::End
        );
        self.chained += usize::from(!ends && left.is_compound());
        match self.chained > CHAINED_MAX {
            true => Err(self.error(format!(
                "more than {CHAINED_MAX} comparisons of comparisons"
            ))),
            false => Ok(()),
        }
    }

    fn equality(&mut self) -> Result<Node, SqlError> {
        let mut left = self.comparison()?;
        loop {
            self.chain(&left)?;
            left = if self.take(Token::Equal)? {
                let right = self.comparison()?;
                self.equal(left, right)?
            } else if self.take(Token::NotEqual)? {
                let right = self.comparison()?;
                Node::Not(Box::new(self.equal(left, right)?))
            } else if self.take(Token::Is)? {
                let not = self.take(Token::Not)?;
                self.expect(Token::Null, "NULL")?;
                let is_null = Node::Equal(Box::new((left, Node::Constant(Value::Null.into()))));
                match not {
                    true => Node::Not(Box::new(is_null)),
                    false => is_null,
                }
            } else {
                return Ok(left);
            };
        }
    }

    fn equal(&self, left: Node, right: Node) -> Result<Node, SqlError> {
        for side in [&left, &right] {
            if side.constant().is_some_and(Value::is_null) {
                return Err(self.error("NULL cannot be compared: use IS NULL"));
            }
        }
        if let (Some(Value::Bool(_)), Some(other)) = (left.constant(), right.constant())
            && !matches!(other, Value::Bool(_))
        {
            return Err(self.error("a truth value cannot be compared with this"));
        }
        Ok(Node::Equal(Box::new((left, right))))
    }

    fn comparison(&mut self) -> Result<Node, SqlError> {
        let mut left = self.unary()?;
        loop {
            self.chain(&left)?;
            let order = match self.token {
                Token::Greater => Some(Order::Greater),
                Token::GreaterOrEqual => Some(Order::GreaterOrEqual),
                Token::Less => Some(Order::Less),
                Token::LessOrEqual => Some(Order::LessOrEqual),
                _ => None,
            };
            left = if let Some(order) = order {
                self.advance()?;
                let right = self.unary()?;
                self.ordered(order, left, right)?
            } else {
                match self.token {
                    Token::Not => {
                        self.advance()?;
                        self.tested(left, true)?
                    }
                    Token::Between
                    | Token::In
                    | Token::Contains
                    | Token::StartsWith
                    | Token::EndsWith => self.tested(left, false)?,
                    _ => return Ok(left),
                }
            };
        }
    }

    fn ordered(&self, order: Order, left: Node, right: Node) -> Result<Node, SqlError> {
        for side in [&left, &right] {
            let fits = match side.constant() {
                Some(value) => value.is_number(),
                None => !side.is_truth(),
            };
            if !fits {
                return Err(self.error("only numbers and properties have an order"));
            }
        }
        Ok(Node::Ordered(order, Box::new((left, right))))
    }

    /// `BETWEEN`, `IN` and the searches, `NOT` taken already.
    fn tested(&mut self, left: Node, not: bool) -> Result<Node, SqlError> {
        let search = match self.advance()? {
            Token::Between => return self.between(left, not),
            Token::In => return self.one_of(left, not),
            Token::Contains => Search::Contains,
            Token::StartsWith => Search::StartsWith,
            Token::EndsWith => Search::EndsWith,
            _ => return Err(self.error("NOT stands here without IN, BETWEEN or a search")),
        };
        let text = self.text()?;
        Ok(Node::Search {
            search,
            not,
            text,
            inside: Box::new(left),
        })
    }

    fn between(&mut self, value: Node, not: bool) -> Result<Node, SqlError> {
        let low = self.unary()?;
        self.expect(Token::And, "AND")?;
        let high = self.unary()?;
        if not {
            let below = self.ordered(Order::Less, value.clone(), low)?;
            let above = self.ordered(Order::Greater, value, high)?;
            return Ok(Node::Or(vec![below, above]));
        }
        if let (Some(low), Some(high)) = (low.constant(), high.constant())
            && high.order(low) == Ok(Some(std::cmp::Ordering::Less))
        {
            return Err(self.error("BETWEEN needs the smaller value first"));
        }
        let above = self.ordered(Order::GreaterOrEqual, value.clone(), low)?;
        let below = self.ordered(Order::LessOrEqual, value, high)?;
        Ok(Node::And(vec![above, below]))
    }

    fn one_of(&mut self, left: Node, not: bool) -> Result<Node, SqlError> {
        self.expect(Token::Open, "a bracket")?;
        let mut texts = vec![self.text()?];
        while self.take(Token::Comma)? {
            texts.push(self.text()?);
        }
        self.expect(Token::Close, "a closing bracket")?;
        let Node::Property(property) = left else {
            return Err(self.error("only a property can be IN a list"));
        };
        texts.sort_unstable();
        texts.dedup();
        Ok(Node::OneOf {
            property,
            not,
            texts: texts.into(),
        })
    }

    fn text(&mut self) -> Result<Box<str>, SqlError> {
        match self.token {
            Token::Text(text) => {
                self.advance()?;
                Ok(text.replace("''", "'").into())
            }
            _ => Err(self.error("expected a text in quotes")),
        }
    }

    fn unary(&mut self) -> Result<Node, SqlError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(format!("more than {DEPTH_MAX} brackets and signs deep")));
        }
        let node = if self.take(Token::Plus)? {
            self.unary()
        } else if self.take(Token::Minus)? {
            self.unary().map(|node| Node::Negated(Box::new(node)))
        } else if self.take(Token::Not)? {
            let node = self.unary()?;
            self.truth(node).map(|node| Node::Not(Box::new(node)))
        } else {
            self.primary()
        };
        self.depth -= 1;
        node
    }

    fn primary(&mut self) -> Result<Node, SqlError> {
        let value = match self.token {
            Token::Text(_) => return self.text().map(|text| Node::Constant(text.into())),
            Token::Name(name) => {
                self.advance()?;
                return self.property(name);
            }
            Token::Open => {
                self.advance()?;
                let node = self.either()?;
                self.expect(Token::Close, "a closing bracket")?;
                return Ok(node);
            }
            Token::Integer(digits) => Value::integer(digits)
                .ok_or_else(|| self.error(format!("{digits} is beyond 64 bits")))?,
            Token::Float(digits) => self.float(digits)?,
            Token::True => Value::Bool(true),
            Token::False => Value::Bool(false),
            Token::Null => Value::Null,
            _ => return Err(self.error("expected a property, a value or a bracket")),
        };
        self.advance()?;
        Ok(Node::Constant(value.into()))
    }

    /// The reference refuses zero: it is below the smallest number that is more than zero.
    fn float(&self, digits: &str) -> Result<Value<'static>, SqlError> {
        match digits.parse() {
            Ok(number) if f64::is_finite(number) && number > 0.0 => Ok(Value::Double(number)),
            _ => Err(self.error(format!(
                "{digits} is not in the range of a double above zero"
            ))),
        }
    }

    fn property(&mut self, name: &str) -> Result<Node, SqlError> {
        let known = self.names.iter().position(|known| **known == *name);
        let at = known.unwrap_or(self.names.len());
        if at == PROPERTIES_MAX {
            return Err(self.error(format!("more than {PROPERTIES_MAX} properties")));
        }
        if known.is_none() {
            self.names.push(name.into());
        }
        Ok(Node::Property(at))
    }
}
